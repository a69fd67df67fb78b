//! How a file gets into the cache: a broker is asked first, then each Puppet Server, several times; and
//! what does not have the digest that was asked for is not kept.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use pcp::{ContentErrorCode, Digest};
use pcp_client::content::ContentReader;
use pcp_client::{FetchError, State};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use super::{Cache, CacheError, OWN, PART, create, failed, make_directories};
use crate::disk::DiskError;
use crate::modules::source::Source;
use crate::primaries::{Download, PrimaryError};

/// The largest file that is fetched. Task files are scripts; some bring an archive along.
const MAX_FILE: u64 = 1 << 30;

/// How much is read before it is hashed and written, on another thread.
const CHUNK: usize = 256 * 1024;

/// The pauses between tries, as in the original: five tries in all.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How long a try waits for a connection to a broker before it counts as failed.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);

/// The same where Puppet Servers can be asked instead: a broker that restarts is back sooner.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);

/// Why one try to fetch a file failed.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nobody gives it to us.
    #[error("it could not be fetched")]
    Fetch(#[source] FetchError),
    /// It is too large.
    #[error("it has {0} bytes, and the limit is {MAX_FILE}")]
    TooLarge(u64),
    /// The transfer broke off.
    #[error("its transfer broke off")]
    Transfer(#[source] io::Error),
    /// A Puppet Server does not give it to us.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// Neither a broker nor a Puppet Server gives it to us.
    #[error(
        "no broker gave it ({}), and it failed after trying all the available primary-uris",
        daemon::error_chain(.broker)
    )]
    Nowhere {
        /// What came of asking the broker.
        broker: Box<Self>,
        /// What came of asking the last of the servers.
        #[source]
        primary: Box<Self>,
    },
    /// It is not what was asked for.
    #[error("it has a SHA that differs from the provided SHA: {found} in place of {wanted}")]
    Mismatch {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// It could not be written.
    #[error("it could not be written")]
    Cache(#[source] Box<CacheError>),
}

impl Cache {
    pub(super) async fn download(&self, file: &Source) -> Result<(), CacheError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let error = match self.try_download(file).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let pause = if error.is_final() {
                None
            } else {
                pauses.next()
            };
            let Some(pause) = pause else {
                return Err(CacheError::Download {
                    name: file.name.clone(),
                    source: error,
                });
            };
            tracing::warn!(
                file = file.name,
                digest = %file.digest,
                error = daemon::error_chain(&error),
                "task file not fetched, trying again"
            );
            sleep(pause).await;
        }
    }

    /// The broker first, then each Puppet Server.
    async fn try_download(&self, file: &Source) -> Result<(), DownloadError> {
        let broker = match self.ask_broker(file).await {
            Ok(()) => return Ok(()),
            Err(error @ DownloadError::Cache(_)) => return Err(error),
            Err(error) if self.primaries.servers().is_empty() => return Err(error),
            Err(error) => error,
        };
        tracing::debug!(
            digest = %file.digest,
            error = daemon::error_chain(&broker),
            "no broker gives a file; asking Puppet Servers"
        );
        match self.ask_primaries(file).await {
            Ok(()) => Ok(()),
            Err(error @ DownloadError::Cache(_)) => Err(error),
            Err(error) => Err(DownloadError::Nowhere {
                broker: Box::new(broker),
                primary: Box::new(error),
            }),
        }
    }

    async fn ask_broker(&self, file: &Source) -> Result<(), DownloadError> {
        let patience = if self.primaries.servers().is_empty() {
            CONNECTION_PATIENCE
        } else {
            SHORT_PATIENCE
        };
        let mut state = self.client.state();
        let connected = state.wait_for(|state| matches!(state, State::Connected { .. }));
        // What comes of it shows the request itself.
        timeout(patience, connected).await.ok();
        let content = self
            .client
            .fetch(file.digest)
            .await
            .map_err(DownloadError::Fetch)?;
        let body = Body::Broker(content.reader);
        self.take(body, Some(content.size), file).await
    }

    async fn ask_primaries(&self, file: &Source) -> Result<(), DownloadError> {
        let mut last = PrimaryError::Uri("there is no server to ask").into();
        for server in self.primaries.servers() {
            let taken = match self.primaries.ask(server, &file.uri).await {
                Ok(download) => {
                    let size = download.size;
                    self.take(Body::Primary(download), size, file).await
                }
                Err(error) => Err(error.into()),
            };
            last = match taken {
                Ok(()) => return Ok(()),
                Err(error @ DownloadError::Cache(_)) => return Err(error),
                Err(error) => error,
            };
            let error = daemon::error_chain(&last);
            tracing::warn!(%server, digest = %file.digest, error, "file not downloaded");
        }
        Err(last)
    }

    /// Takes what comes, and keeps it if it is what was asked for.
    async fn take(
        &self,
        body: Body,
        size: Option<u64>,
        file: &Source,
    ) -> Result<(), DownloadError> {
        if let Some(size) = size.filter(|size| *size > MAX_FILE) {
            return Err(DownloadError::TooLarge(size));
        }
        let (directory, path) = self.path(file);
        let part = directory.join(format!("{PART}{}", uuid::Uuid::new_v4()));
        let kept = self
            .keep(body, file.digest, directory, part.clone(), path)
            .await;
        if kept.is_err() {
            let gone = move || fs::remove_file(part);
            // It may never have been made; what is left over is removed with its directory.
            self.disk.run(gone).await.ok();
        }
        kept
    }

    async fn keep(
        &self,
        mut body: Body,
        wanted: Digest,
        directory: PathBuf,
        part: PathBuf,
        path: PathBuf,
    ) -> Result<(), DownloadError> {
        let target = part.clone();
        let create = move || {
            make_directories(&directory, OWN)?;
            create(&target, OWN)
        };
        let mut output = self
            .disk
            .run(create)
            .await
            .map_err(of_disk)?
            .map_err(of_cache)?;
        let mut hasher = Sha256::new();
        let mut length = 0;
        loop {
            let (chunk, ended) = body.chunk().await?;
            length += chunk.len() as u64;
            if length > MAX_FILE {
                return Err(DownloadError::TooLarge(length));
            }
            let target = part.clone();
            let write = move || {
                hasher.update(&chunk);
                output.write_all(&chunk).map_err(failed("write", &target))?;
                Ok((hasher, output))
            };
            (hasher, output) = self
                .disk
                .run(write)
                .await
                .map_err(of_disk)?
                .map_err(of_cache)?;
            if ended {
                break;
            }
        }
        let found = Digest(hasher.finalize().into());
        if found != wanted {
            return Err(DownloadError::Mismatch { wanted, found });
        }
        let rename = move || fs::rename(&part, &path).map_err(failed("create", &path));
        self.disk
            .run(rename)
            .await
            .map_err(of_disk)?
            .map_err(of_cache)
    }
}

/// A file on its way to us.
enum Body {
    Broker(ContentReader),
    Primary(Download),
}

impl Body {
    /// Reads until a chunk is full or the file ends, which the second value says.
    async fn chunk(&mut self) -> Result<(Vec<u8>, bool), DownloadError> {
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            let read = match self {
                Self::Broker(reader) => reader.read_buf(&mut chunk).await,
                Self::Primary(download) => download.read(&mut chunk).await,
            };
            let ended = read.map_err(DownloadError::Transfer)? == 0;
            if ended || chunk.len() >= CHUNK {
                return Ok((chunk, ended));
            }
        }
    }
}

impl DownloadError {
    /// Whether another try would only end in the same way.
    fn is_final(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Refused(error)) => error.code == ContentErrorCode::Unauthorized,
            Self::Fetch(_) | Self::Transfer(_) => false,
            Self::TooLarge(_) | Self::Mismatch { .. } | Self::Cache(_) => true,
            Self::Primary(error) => match error {
                PrimaryError::Uri(_) => true,
                // A server answers so as long as nobody changes its files or its rules.
                PrimaryError::Status { status, .. } => (400..500).contains(status),
                PrimaryError::Unreachable { .. } | PrimaryError::TimedOut { .. } => false,
            },
            Self::Nowhere { broker, primary } => broker.is_final() && primary.is_final(),
        }
    }
}

fn of_disk(error: DiskError) -> DownloadError {
    of_cache(CacheError::Disk(error))
}

fn of_cache(error: CacheError) -> DownloadError {
    DownloadError::Cache(Box::new(error))
}
