//! What an answer carries: nothing, a short text, or a file on its way through.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use crate::content::{Found, Place, Reader};

/// How much of a file is taken at once.
const PIECE: usize = 16 * 1024;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All of it, or what is left.
    Text(Option<Bytes>),
    /// A file: what is still to come, and its place among the files on their way.
    Content {
        reader: Reader,
        left: u64,
        _place: Place,
    },
}

impl Answer {
    pub(crate) fn nothing() -> Self {
        Self::Text(None)
    }

    pub(crate) fn text(text: String) -> Self {
        Self::Text(Some(text.into()))
    }

    pub(crate) fn content(found: Found, place: Place) -> Self {
        Self::Content {
            reader: found.reader,
            left: found.size,
            _place: place,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Content { left: 0, .. } => Poll::Ready(None),
            Self::Content { reader, left, .. } => {
                let mut space = vec![0; PIECE];
                let mut read = ReadBuf::new(&mut space);
                ready!(Pin::new(reader).poll_read(context, &mut read))?;
                let length = read.filled().len();
                if length == 0 {
                    let cut = io::ErrorKind::UnexpectedEof;
                    return Poll::Ready(Some(Err(cut.into())));
                }
                *left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
                space.truncate(length);
                Poll::Ready(Some(Ok(Frame::data(space.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None) | Self::Content { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Text(text) => text
                .as_ref()
                .map_or(0, |t| u64::try_from(t.len()).unwrap_or(u64::MAX)),
            Self::Content { left, .. } => *left,
        })
    }
}
