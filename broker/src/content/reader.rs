//! The bytes of a file that was found, wherever they come from.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};

use pcp_client::content::{Content, ContentReader};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf};

use super::store::Verified;

/// A file that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// So many bytes.
    pub(crate) size: u64,
    /// Stops short when something goes wrong in the middle.
    pub(crate) reader: Reader,
}

/// Reads a file that was found.
#[derive(Debug)]
pub(crate) enum Reader {
    /// It comes from a source, for this reader alone.
    Source(ContentReader),
    /// It is here.
    Memory(Cursor<Vec<u8>>),
    /// It is on the disk.
    File(tokio::fs::File),
    /// It comes, for several at once.
    Coming(DuplexStream),
}

impl From<Content> for Found {
    fn from(content: Content) -> Self {
        Self {
            size: content.size,
            reader: Reader::Source(content.reader),
        }
    }
}

impl From<Verified> for Found {
    fn from(verified: Verified) -> Self {
        match verified {
            Verified::Memory(bytes) => Self {
                size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                reader: Reader::Memory(Cursor::new(bytes)),
            },
            Verified::File(file, size) => Self {
                size,
                reader: Reader::File(tokio::fs::File::from_std(file)),
            },
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Source(source) => Pin::new(source).poll_read(context, buffer),
            Self::Memory(bytes) => Pin::new(bytes).poll_read(context, buffer),
            Self::File(file) => Pin::new(file).poll_read(context, buffer),
            Self::Coming(coming) => Pin::new(coming).poll_read(context, buffer),
        }
    }
}
