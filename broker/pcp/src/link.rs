//! What brokers tell each other on a link: which clients they hold.
//!
//! Each broker owns the truth of its own clients. On a new link it publishes a snapshot, in chunks,
//! and then deltas; each frame carries the epoch of the snapshot it belongs to, so that a receiver
//! never mixes two lives of a link.

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{DecodeError, put_uri, read_uri};
use crate::uri::{Uri, UriError};
use crate::wire::Reader;

/// How many bytes of announcements go into one frame, at most: below
/// [`crate::frame::MAX_SESSION_PAYLOAD`] with room for the last entry.
pub const CHUNK_BYTES: usize = 48 * 1024;

/// One client that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The client's address.
    pub uri: Uri,
    /// The `started` of the session in question ([`crate::greeting::Hello::started`]): a client seen
    /// in two places belongs to the newer session.
    pub started: u64,
    /// Whether the session is there or gone.
    pub connected: bool,
}

/// News of a broker's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkFrame {
    /// A part of the whole: what is not in any part up to the last is not connected.
    Snapshot {
        /// Which snapshot this is; a higher one replaces all that was said before.
        epoch: u64,
        /// Whether this part completes it.
        last: bool,
        /// Connected clients.
        clients: Vec<Announcement>,
    },
    /// What has changed since the snapshot of this epoch, in order.
    Delta {
        /// The snapshot that this continues.
        epoch: u64,
        /// Changes.
        changes: Vec<Announcement>,
    },
}

const SNAPSHOT: u8 = 1;
const SNAPSHOT_LAST: u8 = 2;
const DELTA: u8 = 3;

impl LinkFrame {
    /// Splits announcements into lists that each fit one frame. An empty input gives no list.
    #[must_use]
    pub fn chunks(announcements: Vec<Announcement>) -> Vec<Vec<Announcement>> {
        let mut chunks: Vec<Vec<Announcement>> = Vec::new();
        let mut bytes = CHUNK_BYTES;
        for announcement in announcements {
            let size = entry_size(&announcement);
            bytes += size;
            match chunks.last_mut() {
                Some(chunk) if bytes <= CHUNK_BYTES => chunk.push(announcement),
                _ => {
                    chunks.push(vec![announcement]);
                    bytes = size;
                }
            }
        }
        chunks
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let (kind, epoch, entries) = match self {
            Self::Snapshot {
                epoch,
                last: false,
                clients,
            } => (SNAPSHOT, epoch, clients),
            Self::Snapshot {
                epoch,
                last: true,
                clients,
            } => (SNAPSHOT_LAST, epoch, clients),
            Self::Delta { epoch, changes } => (DELTA, epoch, changes),
        };
        out.put_u8(kind);
        out.put_u64(*epoch);
        for entry in entries {
            out.put_u8(u8::from(entry.connected));
            out.put_u64(entry.started);
            put_uri(out, &entry.uri);
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let epoch = reader.u64()?;
        let mut entries = Vec::new();
        while !reader.is_empty() {
            let connected = reader.u8()? != 0;
            let started = reader.u64()?;
            let uri = read_uri(&mut reader)?.ok_or(DecodeError::Uri(UriError::Certname))?;
            entries.push(Announcement {
                uri,
                started,
                connected,
            });
        }
        match kind {
            SNAPSHOT => Ok(Self::Snapshot {
                epoch,
                last: false,
                clients: entries,
            }),
            SNAPSHOT_LAST => Ok(Self::Snapshot {
                epoch,
                last: true,
                clients: entries,
            }),
            DELTA => Ok(Self::Delta {
                epoch,
                changes: entries,
            }),
            other => Err(DecodeError::Version(other)),
        }
    }
}

fn entry_size(entry: &Announcement) -> usize {
    11 + entry.uri.certname().as_str().len() + entry.uri.client_type().as_str().len()
}
