//! What process 1 of a cell is told of its task: everything that a process made for the task alone would have
//! as a copy of the wrapper's memory. Secrets are in it; it goes through a socket between the two.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use sandbox::{MAX_DELIVERY, Plan};

use super::await_input;
use crate::jail::Own;
use crate::task::Given;

/// The longest text: a delivery, and a plan beside it.
const MAX_TEXT: usize = MAX_DELIVERY + (16 << 20);

/// A task, as process 1 has it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) plan: Plan,
    pub(super) given: Given,
    pub(super) own: Own,
}

/// The text of an order: what is in it beside descriptors.
#[derive(Debug, PartialEq, Eq)]
struct Text {
    plan: OsString,
    bus: Option<PathBuf>,
    places: Vec<OsString>,
    environment: Vec<OsString>,
    arguments: Vec<OsString>,
}

impl Order {
    /// The text. The descriptors that belong to it are those of what is the task's own.
    pub(super) fn encode(plan: &Plan, given: &Given, own: &Own) -> Option<Vec<u8>> {
        let text = Text {
            plan: OsString::from_vec(plan.encode().ok()?),
            bus: own.bus().map(Path::to_owned),
            places: own.places().iter().map(OsString::from).collect(),
            environment: given.environment.clone(),
            arguments: given.arguments.clone(),
        };
        text.encode()
    }

    /// Waits for an order.
    pub(super) fn receive(channel: &mut UnixStream) -> io::Result<Self> {
        await_input(channel)?;
        let mut length = [0; 8];
        let (read, descriptors) = sandbox_sys::receive(channel.as_fd(), &mut length)?;
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        if read != 8 || length > MAX_TEXT {
            return Err(malformed());
        }
        let mut text = vec![0; length];
        channel.read_exact(&mut text)?;
        let Text {
            plan,
            bus,
            places,
            environment,
            arguments,
        } = Text::decode(&text).ok_or_else(malformed)?;
        let places = places.into_iter().map(PathBuf::from).collect();
        let own = Own::from_parts(places, bus, descriptors).ok_or_else(malformed)?;
        Ok(Self {
            plan: Plan::decode(plan.as_bytes()).map_err(io::Error::other)?,
            given: Given {
                environment,
                arguments,
                bus: None,
            },
            own,
        })
    }
}

impl Text {
    /// Lists of texts, each list with its length and each text with its own, little-endian.
    fn encode(&self) -> Option<Vec<u8>> {
        let bus = self.bus.as_ref().map(|bus| bus.as_os_str());
        let mut bytes = Vec::new();
        put(&mut bytes, [self.plan.as_os_str()].into_iter())?;
        put(&mut bytes, bus.into_iter())?;
        for list in [&self.places, &self.environment, &self.arguments] {
            put(&mut bytes, list.iter().map(OsString::as_os_str))?;
        }
        (bytes.len() <= MAX_TEXT).then_some(bytes)
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let [plan] = <[OsString; 1]>::try_from(list(rest)?).ok()?;
        let mut bus = list(rest)?;
        let text = Self {
            plan,
            bus: bus.pop().map(PathBuf::from),
            places: list(rest)?,
            environment: list(rest)?,
            arguments: list(rest)?,
        };
        (bus.is_empty() && rest.is_empty()).then_some(text)
    }
}

fn put<'a>(bytes: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a OsStr>) -> Option<()> {
    bytes.extend(u32::try_from(texts.len()).ok()?.to_le_bytes());
    for text in texts {
        bytes.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    Some(())
}

fn list(bytes: &mut &[u8]) -> Option<Vec<OsString>> {
    let count = number(bytes)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let length = number(bytes)?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        found.push(OsString::from_vec(text.to_vec()));
    }
    Some(found)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

fn malformed() -> io::Error {
    io::Error::other("no order for a task")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = Vec<OsString>> {
        let text = prop::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec);
        prop::collection::vec(text, 0..4)
    }

    proptest! {
        #[test]
        fn an_order_is_read_back_and_a_damaged_one_harms_nobody(
            places in texts(),
            environment in texts(),
            arguments in texts(),
            bus in prop::option::of("[a-z]{1,8}"),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let text = Text {
                plan: "{}".into(),
                bus: bus.map(PathBuf::from),
                places,
                environment,
                arguments,
            };
            let mut bytes = text.encode().unwrap();
            prop_assert_eq!(Text::decode(&bytes), Some(text));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            drop(Text::decode(&bytes));
            prop_assert_eq!(Text::decode(&bytes[..at]), None);
        }
    }
}
