//! Reading and writing of the binary parts: a cursor that cannot overrun, and its mirror.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer};

/// The bytes ended before the value did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes end in the middle of a value")]
pub(crate) struct Truncated;

/// A cursor over received bytes.
#[derive(Debug)]
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        self.0.try_get_u8().map_err(|_| Truncated)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Truncated> {
        self.0.try_get_u64().map_err(|_| Truncated)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut array = [0; N];
        self.0
            .try_copy_to_slice(&mut array)
            .map_err(|_| Truncated)?;
        Ok(array)
    }

    /// What `read` makes of at most 255 bytes, preceded by their number.
    pub(crate) fn short<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<T, Truncated> {
        let length = usize::from(self.u8()?);
        let value = read(self.0.get(..length).ok_or(Truncated)?);
        self.0.advance(length);
        Ok(value)
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.0
    }
}

/// Writes a text of at most 255 bytes after its length. Longer texts cannot be built: every type
/// that is written this way limits itself to 255 bytes when it is parsed.
pub(crate) fn put_short(out: &mut BytesMut, text: &str) {
    let text = text.as_bytes();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    out.put_u8(length);
    out.extend_from_slice(text.get(..usize::from(length)).unwrap_or(text));
}

/// Reads a text that is meant for a person, and will stand in logs and on terminals: control
/// characters, with which a peer could write lines of its own there, are replaced.
pub(crate) fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(if text.contains(char::is_control) {
        text.replace(char::is_control, "\u{fffd}")
    } else {
        text
    })
}
