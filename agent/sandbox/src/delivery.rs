//! What reaches a task without ever being on disk: the secret part of its environment and of its
//! arguments, and its standard input. It travels once, over the wrapper's stdin.
//!
//! Form, integers little-endian: `u64` length of all that follows; `u32` number of variables; each
//! variable as `u32` length, name, `u32` length, value; `u32` number of arguments, each as `u32`
//! length, text; the rest is the standard input.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The largest delivery: that of a PCP message, which the input of a task arrives in.
pub const MAX_DELIVERY: usize = 64 * 1024 * 1024;

/// What is handed to one task.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Added to the plan's environment; it wins where both have a name.
    pub environment: Vec<(OsString, OsString)>,
    /// Added behind the plan's arguments.
    pub arguments: Vec<OsString>,
    /// All that the task will find on its stdin, before the end of file.
    pub stdin: Vec<u8>,
}

/// Why something cannot be delivered, or is not a delivery.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// It is larger than [`MAX_DELIVERY`].
    #[error("the delivery is larger than {MAX_DELIVERY} bytes")]
    TooLarge,
    /// A variable's name is empty, or has `=` or NUL, or its value has NUL.
    #[error("the delivery has a variable that no environment can hold")]
    Variable,
    /// An argument has NUL.
    #[error("the delivery has an argument with a NUL character")]
    Argument,
    /// The sender went away in the middle.
    #[error("the delivery is incomplete")]
    Incomplete,
    /// The lengths in it do not add up.
    #[error("the delivery is malformed")]
    Form,
    /// It cannot be read.
    #[error("cannot read the delivery")]
    Read(#[source] std::io::Error),
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delivery([redacted])")
    }
}

impl Delivery {
    /// The delivery as it travels, length included.
    ///
    /// # Errors
    /// When it is too large, or no environment can hold it.
    pub fn encode(&self) -> Result<Vec<u8>, DeliveryError> {
        self.check()?;
        let variables: usize = self
            .environment
            .iter()
            .map(|(name, value)| 8 + name.len() + value.len())
            .sum();
        let arguments: usize = self.arguments.iter().map(|text| 4 + text.len()).sum();
        let length = 8 + variables + arguments + self.stdin.len();
        if length > MAX_DELIVERY {
            return Err(DeliveryError::TooLarge);
        }
        let mut bytes = Vec::with_capacity(8 + length);
        bytes.extend_from_slice(&(length as u64).to_le_bytes());
        bytes.extend_from_slice(&length_of(self.environment.len())?);
        for (name, value) in &self.environment {
            for text in [name, value] {
                bytes.extend_from_slice(&length_of(text.len())?);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes.extend_from_slice(&length_of(self.arguments.len())?);
        for text in &self.arguments {
            bytes.extend_from_slice(&length_of(text.len())?);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.stdin);
        Ok(bytes)
    }

    /// Reads one delivery. Memory grows with what arrives, not with what is announced.
    ///
    /// # Errors
    /// When the bytes are not a delivery, whole and within the limit.
    pub fn read(from: &mut impl Read) -> Result<Self, DeliveryError> {
        let mut length = [0; 8];
        from.read_exact(&mut length).map_err(read_error)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_DELIVERY as u64 {
            return Err(DeliveryError::TooLarge);
        }
        let mut body = Vec::new();
        from.take(length)
            .read_to_end(&mut body)
            .map_err(DeliveryError::Read)?;
        if body.len() as u64 != length {
            return Err(DeliveryError::Incomplete);
        }
        Self::decode(&body)
    }

    fn decode(mut body: &[u8]) -> Result<Self, DeliveryError> {
        let mut environment = Vec::new();
        for _ in 0..take_length(&mut body)? {
            let name = take_text(&mut body)?;
            let value = take_text(&mut body)?;
            environment.push((name, value));
        }
        let mut arguments = Vec::new();
        for _ in 0..take_length(&mut body)? {
            arguments.push(take_text(&mut body)?);
        }
        let delivery = Self {
            environment,
            arguments,
            stdin: body.to_vec(),
        };
        delivery.check()?;
        Ok(delivery)
    }

    fn check(&self) -> Result<(), DeliveryError> {
        let has = |text: &OsStr, byte: u8| text.as_bytes().contains(&byte);
        let fits = self.environment.iter().all(|(name, value)| {
            !name.is_empty() && !has(name, b'=') && !has(name, 0) && !has(value, 0)
        });
        if !fits {
            return Err(DeliveryError::Variable);
        }
        if self.arguments.iter().any(|text| has(text, 0)) {
            return Err(DeliveryError::Argument);
        }
        Ok(())
    }
}

fn length_of(length: usize) -> Result<[u8; 4], DeliveryError> {
    u32::try_from(length)
        .map(u32::to_le_bytes)
        .map_err(|_| DeliveryError::TooLarge)
}

fn take_length(body: &mut &[u8]) -> Result<usize, DeliveryError> {
    let (length, rest) = body.split_first_chunk().ok_or(DeliveryError::Form)?;
    *body = rest;
    usize::try_from(u32::from_le_bytes(*length)).map_err(|_| DeliveryError::Form)
}

fn take_text(body: &mut &[u8]) -> Result<OsString, DeliveryError> {
    let length = take_length(body)?;
    let (text, rest) = body.split_at_checked(length).ok_or(DeliveryError::Form)?;
    *body = rest;
    Ok(OsString::from_vec(text.to_vec()))
}

fn read_error(error: std::io::Error) -> DeliveryError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        DeliveryError::Incomplete
    } else {
        DeliveryError::Read(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = OsString> {
        vec(1..=255_u8, 0..12).prop_map(OsString::from_vec)
    }

    fn name() -> impl Strategy<Value = OsString> {
        "[A-Za-z_é]{1,8}".prop_map(OsString::from)
    }

    prop_compose! {
        fn delivery()(
            environment in vec((name(), text()), 0..4), arguments in vec(text(), 0..4),
            stdin in vec(any::<u8>(), 0..40),
        ) -> Delivery {
            Delivery { environment, arguments, stdin }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_delivery_that_reads_the_same_or_none(
            body in vec(any::<u8>(), 0..80),
            whole in delivery(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let encoded = whole.encode().unwrap();
            prop_assert_eq!(&Delivery::read(&mut encoded.as_slice()).unwrap(), &whole);
            let mut damaged = encoded;
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let honest = [&(body.len() as u64).to_le_bytes(), body.as_slice()].concat();
            for bytes in [body, honest, damaged] {
                if let Ok(read) = Delivery::read(&mut bytes.as_slice()) {
                    let again = read.encode().unwrap();
                    prop_assert_eq!(Delivery::read(&mut again.as_slice()).unwrap(), read);
                }
            }
        }
    }

    fn sample() -> Delivery {
        Delivery {
            environment: vec![
                ("PT_name".into(), "nginx\nand more".into()),
                ("PT_bytes".into(), OsString::from_vec(vec![0xff, 0xfe])),
                ("EMPTY".into(), OsString::new()),
            ],
            arguments: vec!["a b".into(), OsString::new()],
            stdin: b"{\"name\":\"nginx\"}\0\xff".to_vec(),
        }
    }

    #[test]
    fn what_is_encoded_is_read_back_exactly() {
        for delivery in [sample(), Delivery::default()] {
            let bytes = delivery.encode().unwrap();
            assert_eq!(Delivery::read(&mut bytes.as_slice()).unwrap(), delivery);
        }
    }

    #[test]
    fn every_cut_is_incomplete() {
        let bytes = sample().encode().unwrap();
        for end in 0..bytes.len() {
            let read = Delivery::read(&mut &bytes[..end]);
            assert!(
                matches!(read, Err(DeliveryError::Incomplete)),
                "cut at {end}: {read:?}"
            );
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_anything_is_read() {
        let length = u64::MAX.to_le_bytes();
        let mut bytes = length.as_slice().chain(std::io::repeat(0));
        assert!(matches!(
            Delivery::read(&mut bytes),
            Err(DeliveryError::TooLarge)
        ));
        let large = Delivery {
            stdin: vec![0; MAX_DELIVERY],
            ..Delivery::default()
        };
        assert!(matches!(large.encode(), Err(DeliveryError::TooLarge)));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_malformed() {
        for body in [
            &[][..],
            &[1, 0, 0],
            &[1, 0, 0, 0],
            &[1, 0, 0, 0, 1, 0, 0, 0, b'A'],
            &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'A'],
            &[0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 1, 0, 0, 0],
            &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(
                matches!(Delivery::decode(body), Err(DeliveryError::Form)),
                "{body:?}"
            );
        }
    }

    #[test]
    fn variables_that_no_environment_can_hold_are_refused_on_both_sides() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")] {
            let mut delivery = Delivery::default();
            delivery.environment.push((name.into(), value.into()));
            assert!(matches!(delivery.encode(), Err(DeliveryError::Variable)));
        }
        let argument = Delivery {
            arguments: vec!["a\0b".into()],
            ..Delivery::default()
        };
        assert!(matches!(argument.encode(), Err(DeliveryError::Argument)));
        let mut bytes = sample().encode().unwrap();
        let place = bytes
            .windows(7)
            .position(|window| window == b"PT_name")
            .unwrap();
        bytes[place] = b'=';
        let read = Delivery::read(&mut bytes.as_slice());
        assert!(matches!(read, Err(DeliveryError::Variable)));
    }

    #[test]
    fn its_debug_form_says_nothing() {
        assert_eq!(format!("{:?}", sample()), "Delivery([redacted])");
    }
}
