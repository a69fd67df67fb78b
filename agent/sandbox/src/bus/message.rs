//! Messages, as far as a filter must know them (D-Bus specification, "Message Protocol"): how long they
//! are, and what is called.

use crate::profile::bus::BUS;

/// The bytes that tell how long a message is.
pub(super) const PREFIX: usize = 16;

/// The longest header, in bytes: names have at most 255, and paths are short.
pub const MAX_HEADER: usize = 16 * 1024;

/// The byte order of both architectures.
const LITTLE: u8 = b'l';
const VERSION: u8 = 1;
const NO_REPLY_EXPECTED: u8 = 1;

// Kinds of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;
const UNIX_FDS: u8 = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    MethodCall,
    /// An answer or a signal.
    Other,
}

/// What the prefix tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) wants_reply: bool,
    pub(super) serial: u32,
    /// Bytes up to the body, prefix and padding included.
    pub(super) header: usize,
    /// Bytes of the body.
    pub(super) body: u32,
}

/// What a message calls. Empty names stand for fields that are not there; nothing allows them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

impl Head {
    pub(super) fn read(prefix: &[u8; PREFIX]) -> Option<Self> {
        let [order, kind, flags, version, numbers @ ..] = prefix;
        let mut numbers = Reader { bytes: numbers };
        let (body, serial, fields) = (numbers.number()?, numbers.number()?, numbers.number()?);
        if *order != LITTLE || *version != VERSION || serial == 0 {
            return None;
        }
        let kind = match kind {
            1 => Kind::MethodCall,
            2..=4 => Kind::Other,
            _ => return None,
        };
        let fields = usize::try_from(fields).ok()?;
        Some(Self {
            kind,
            wants_reply: flags & NO_REPLY_EXPECTED == 0,
            serial,
            header: PREFIX.checked_add(fields)?.checked_next_multiple_of(8)?,
            body,
        })
    }
}

impl<'a> Call<'a> {
    /// Reads the fields of a header that [`Head`] has measured.
    pub(super) fn read(head: &Head, header: &'a [u8]) -> Option<Self> {
        let length = header.get(12..PREFIX)?.first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let mut fields = Fields {
            all: header.get(PREFIX..PREFIX.checked_add(length)?)?,
            at: 0,
        };
        let mut call = Self::default();
        let mut seen = 0_u16;
        while !fields.over() {
            fields.align(8)?;
            let kind = fields.byte()?;
            let bit = 1_u16
                .checked_shl(kind.into())
                .filter(|bit| seen & bit == 0)?;
            seen |= bit;
            match (kind, fields.signature()?) {
                (PATH, "o") | (ERROR_NAME | SENDER, "s") => {
                    fields.text()?;
                }
                (INTERFACE, "s") => call.interface = fields.text()?,
                (MEMBER, "s") => call.member = fields.text()?,
                (DESTINATION, "s") => call.destination = fields.text()?,
                (SIGNATURE, "g") => {
                    fields.signature()?;
                }
                (REPLY_SERIAL, "u") => {
                    fields.number()?;
                }
                (UNIX_FDS, "u") if fields.number()? == 0 => {}
                _ => return None,
            }
        }
        let padding = header.get(PREFIX.checked_add(length)?..)?;
        (padding.iter().all(|byte| *byte == 0) && header.len() == head.header).then_some(call)
    }
}

/// The answer to a call that is not passed on.
pub(super) fn refusal(serial: u32, call: &Call<'_>) -> Vec<u8> {
    let text = format!(
        "a task of the profile standard may not call {}.{} of {}: see what its sandbox allows",
        call.interface, call.member, call.destination
    );
    let mut body = Vec::new();
    put_text(&mut body, &text);
    let mut fields = Vec::new();
    put_field(&mut fields, ERROR_NAME, "s");
    put_text(&mut fields, "org.freedesktop.DBus.Error.AccessDenied");
    put_field(&mut fields, REPLY_SERIAL, "u");
    put_number(&mut fields, serial);
    put_field(&mut fields, SENDER, "s");
    put_text(&mut fields, BUS);
    put_field(&mut fields, SIGNATURE, "g");
    fields.extend_from_slice(b"\x01s\0");
    let mut message = vec![LITTLE, 3, NO_REPLY_EXPECTED, VERSION];
    put_number(&mut message, length(&body));
    // The bus gives its own messages to a connection other numbers; nobody answers this one.
    put_number(&mut message, u32::MAX);
    put_number(&mut message, length(&fields));
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

/// Texts here are of names that were in a header, so far below 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// Fields stand in an array that begins at a multiple of 8, so their places may be counted from there.
fn put_field(fields: &mut Vec<u8>, kind: u8, signature: &str) {
    pad(fields, 8);
    fields.extend_from_slice(&[kind, 1]);
    fields.extend_from_slice(signature.as_bytes());
    fields.push(0);
}

fn put_number(bytes: &mut Vec<u8>, number: u32) {
    pad(bytes, 4);
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, length(text.as_bytes()));
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = rest;
        Some(u32::from_le_bytes(*number))
    }
}

/// The array of header fields, which begins at a multiple of 8.
struct Fields<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn over(&self) -> bool {
        self.at >= self.all.len()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.all.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        let padding = self.at.checked_next_multiple_of(to)? - self.at;
        let padding = self.take(padding)?;
        padding.iter().all(|byte| *byte == 0).then_some(())
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?;
        self.terminated(length.into())
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0 && !text.contains('\0')).then_some(text)
    }
}
