//! One file on its way into the cache, for everybody who wants it: asked for once, given to each as it
//! comes. The last byte is held back until the whole has the right digest, so that nobody ends up with a
//! whole file that is the wrong one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::disk::{Disk, DiskError};
use pcp::{ContentError, ContentErrorCode, Digest};
use pcp_client::content::Content;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;

use super::error;
use super::store::{FinishError, Part};

/// How much is read from the source before it is written down, and from the disk before it is sent.
pub(super) const PIECE: usize = 64 * 1024;

/// How far it has come.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Somebody is being asked for it.
    Asking,
    /// So many of its bytes are here.
    Coming {
        file: Arc<File>,
        size: u64,
        written: u64,
    },
    /// All of it is here, and right.
    Whole { file: Arc<File>, size: u64 },
    /// It is there, and cannot be kept: everybody fetches it for himself.
    Uncached,
    /// It cannot be had, for this reason.
    Failed(ContentError),
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Flight {
    stage: watch::Sender<Stage>,
    /// What was asked for and cannot be kept, for the first who takes it.
    uncached: Mutex<Option<Content>>,
}

/// What there is to give, when it is known.
#[derive(Debug)]
pub(super) enum Landing {
    /// Its bytes come from here; so many.
    Shared { size: u64 },
    /// It is passed on as it comes, to this one alone.
    Alone(Content),
    /// It is there, and must be asked for again.
    Again,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Asking),
            uncached: Mutex::default(),
        }
    }
}

impl Flight {
    /// Waits until it is known whether there is anything to give.
    ///
    /// # Errors
    /// Why there is not.
    pub(super) async fn landing(&self) -> Result<Landing, ContentError> {
        let mut stage = self.stage.subscribe();
        // The sender is our own.
        let known = stage
            .wait_for(|stage| !matches!(stage, Stage::Asking))
            .await;
        match known.map(|stage| stage.clone()) {
            Ok(Stage::Coming { size, .. } | Stage::Whole { size, .. }) => {
                Ok(Landing::Shared { size })
            }
            Ok(Stage::Uncached) => Ok(self.take().map_or(Landing::Again, Landing::Alone)),
            Ok(Stage::Failed(error)) => Err(error),
            Ok(Stage::Asking) | Err(_) => Err(given_up()),
        }
    }

    /// There is no file.
    pub(super) fn fail(&self, error: ContentError) {
        self.stage.send_replace(Stage::Failed(error));
    }

    /// There is one, and it cannot be kept.
    pub(super) fn leave(&self, content: Content) {
        *self.uncached.lock().unwrap_or_else(PoisonError::into_inner) = Some(content);
        self.stage.send_replace(Stage::Uncached);
    }

    /// Whoever should have carried it is gone.
    pub(super) fn give_up(&self) {
        self.stage.send_if_modified(|stage| {
            let waiting = !stage.is_last();
            if waiting {
                *stage = Stage::Failed(given_up());
            }
            waiting
        });
    }

    fn take(&self) -> Option<Content> {
        let mut uncached = self.uncached.lock().unwrap_or_else(PoisonError::into_inner);
        uncached.take()
    }

    /// Takes a file to its end, and tells everybody who waits how far it is, or why it did not get there.
    pub(super) async fn carry(&self, digest: Digest, part: Part, content: Content, disk: &Disk) {
        if let Err(fault) = self.pieces(part, content, disk).await {
            let fault = daemon::error_chain(&fault);
            tracing::warn!(%digest, error = %fault, "content did not arrive");
            self.fail(error(ContentErrorCode::Unavailable, &fault));
        }
    }

    async fn pieces(
        &self,
        mut part: Part,
        mut content: Content,
        disk: &Disk,
    ) -> Result<(), CarryError> {
        let size = content.size;
        let file = part.file();
        self.stage.send_replace(Stage::Coming {
            file: Arc::clone(&file),
            size,
            written: 0,
        });
        loop {
            let piece = next_piece(&mut content.reader).await;
            let piece = piece.map_err(CarryError::Source)?;
            if piece.is_empty() {
                break;
            }
            let write = move || {
                let written = part.write(&piece)?;
                Ok((part, written))
            };
            let written = disk.run(write).await.map_err(CarryError::Disk)?;
            let (back, written) = written.map_err(CarryError::Write)?;
            part = back;
            self.stage.send_replace(Stage::Coming {
                file: Arc::clone(&file),
                size,
                written,
            });
        }
        let finished = disk.run(move || part.finish()).await;
        finished
            .map_err(CarryError::Disk)?
            .map_err(CarryError::Finish)?;
        self.stage.send_replace(Stage::Whole { file, size });
        Ok(())
    }

    /// Gives the file to one who waits, as far as it has come, until it is whole. What is read at the
    /// other end stops short when it never is.
    pub(super) async fn give(&self, disk: &Disk, mut to: DuplexStream) {
        let mut stage = self.stage.subscribe();
        let mut at = 0;
        loop {
            // Who carries it does not go without a last word.
            let news = stage.wait_for(|stage| stage.is_last() || stage.readable() != Some(at));
            let Ok(now) = news.await.map(|stage| stage.clone()) else {
                return;
            };
            let (Some(until), Some(file)) = (now.readable(), now.file()) else {
                return;
            };
            while at < until {
                let length = usize::try_from(until - at).unwrap_or(PIECE).min(PIECE);
                let file = Arc::clone(&file);
                let read = move || {
                    let mut piece = vec![0; length];
                    file.read_exact_at(&mut piece, at).map(|()| piece)
                };
                let piece = match disk.run(read).await {
                    Ok(Ok(piece)) => piece,
                    Ok(Err(error)) => {
                        return tracing::warn!(%error, "file in the content cache cannot be read");
                    }
                    Err(error) => {
                        let error = daemon::error_chain(&error);
                        return tracing::warn!(%error, "file in the content cache cannot be read");
                    }
                };
                if to.write_all(&piece).await.is_err() {
                    // Whoever wanted it has gone.
                    return;
                }
                at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            }
            if matches!(now, Stage::Whole { .. }) {
                return;
            }
        }
    }
}

impl Stage {
    /// How many bytes may be given out; nothing when there will be none.
    fn readable(&self) -> Option<u64> {
        match self {
            Self::Asking => Some(0),
            Self::Coming { size, written, .. } => Some((*written).min(size.saturating_sub(1))),
            Self::Whole { size, .. } => Some(*size),
            Self::Uncached | Self::Failed(_) => None,
        }
    }

    /// Whether nothing comes behind it.
    fn is_last(&self) -> bool {
        match self {
            Self::Asking | Self::Coming { .. } => false,
            Self::Whole { .. } | Self::Uncached | Self::Failed(_) => true,
        }
    }

    fn file(&self) -> Option<Arc<File>> {
        match self {
            Self::Coming { file, .. } | Self::Whole { file, .. } => Some(Arc::clone(file)),
            Self::Asking | Self::Uncached | Self::Failed(_) => None,
        }
    }
}

/// Why a file did not get into the cache.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error("its source broke off")]
    Source(#[source] io::Error),
    #[error("the content cache cannot be written")]
    Write(#[source] io::Error),
    #[error("the content cache cannot be used")]
    Disk(#[source] DiskError),
    #[error("it does not belong into the content cache")]
    Finish(#[source] FinishError),
}

/// Nobody carries it any more.
fn given_up() -> ContentError {
    error(ContentErrorCode::Unavailable, "the fetch was given up")
}

/// A full piece, or what is left; nothing at the end.
async fn next_piece(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    while piece.len() < PIECE && reader.read_buf(&mut piece).await? > 0 {}
    Ok(piece)
}
