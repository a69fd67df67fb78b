//! The files of tasks, kept under their digests: fetched once from Puppet Server, checked, and from
//! then on served to brokers from here, whatever becomes of Puppet Server and its code.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pcp::frame::Digest;
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Url};
use sha2::{Digest as _, Sha256};
use task_data::{FileUri, Task, TaskFile};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::ServerError;
use crate::flight::Flight;
use crate::library::{self, Library};
use crate::service::{Service, ServiceError};

/// A file that has been used this recently is not removed: its job may not be stored yet.
const YOUNG: Duration = Duration::from_secs(10 * 60);

/// How many files may be on their way at once for which somebody else waits, too.
const FLIGHTS: usize = 10_000;

/// The kept files.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// How many bytes may stay that no job needs.
    room: u64,
    library: Library,
    flights: Flight<Digest, (), ServerError>,
    /// Held by who makes room.
    broom: Mutex<()>,
}

impl Files {
    pub(super) fn new(directory: PathBuf, room: u64, library: Library) -> Self {
        Self {
            directory,
            room,
            library,
            // A file that is there is looked at anew each time: that it was there is no proof.
            flights: Flight::new(Duration::ZERO, FLIGHTS),
            broom: Mutex::new(()),
        }
    }

    /// Where the file of a digest lies when it is here.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// Makes sure that a file is here and has the content of its digest.
    ///
    /// # Errors
    /// When it can be had neither here nor from Puppet Server.
    pub(super) async fn fetch(
        &self,
        service: &Service,
        file: &TaskFile,
    ) -> Result<(), ServerError> {
        let Ok(digest) = file.sha256.parse::<Digest>() else {
            return Err(ServerError::Changed(file.filename.clone()));
        };
        let load = async {
            match library::check(&file.path, digest).await {
                Ok(Some(_)) => {
                    touch(&file.path).await;
                    return Ok(());
                }
                Ok(None) => tracing::warn!(path = %file.path.display(), "kept file is damaged"),
                Err(_) => {} // not here yet
            }
            fs::create_dir_all(&self.directory)
                .await
                .map_err(|error| keep_fault(&self.directory, &error))?;
            let beside = self.directory.join(format!("{}.new", Uuid::new_v4()));
            let outcome = self.download(service, file, digest, &beside).await;
            if outcome.is_err() {
                // Nothing of it is used, whether or not it goes away.
                drop(fs::remove_file(&beside).await);
            }
            outcome
        };
        self.flights.get(&digest, load).await
    }

    async fn download(
        &self,
        service: &Service,
        file: &TaskFile,
        digest: Digest,
        beside: &Path,
    ) -> Result<(), ServerError> {
        let path = place(&file.uri)?;
        let bytes = HeaderValue::from_static("application/octet-stream");
        let asked = service.ask(&Method::GET, &path, |request| {
            request.header(ACCEPT, bytes.clone())
        });
        let mut answer = asked.await.map_err(|error| match error {
            // It was there when the task was described.
            ServiceError::Status { status: 404, .. } => ServerError::Changed(file.filename.clone()),
            error => error.into(),
        })?;
        let failed = |error: io::Error| keep_fault(beside, &error);
        let mut written = File::create(beside).await.map_err(failed)?;
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(chunk) = answer.chunk().await? {
            let chunk = chunk.as_ref();
            size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if size > file.size_bytes {
                return Err(ServerError::Changed(file.filename.clone()));
            }
            hash.update(chunk);
            written.write_all(chunk).await.map_err(failed)?;
        }
        if size != file.size_bytes || Digest(hash.finalize().into()) != digest {
            return Err(ServerError::Changed(file.filename.clone()));
        }
        written.sync_all().await.map_err(failed)?;
        fs::rename(beside, &file.path)
            .await
            .map_err(|error| keep_fault(&file.path, &error))
    }

    /// Removes the files that have not been used for longest, until what no job needs fits. What
    /// `task` needs stays, as does what is young.
    pub(super) async fn make_room(&self, task: &Task) {
        // Who comes second need not do what the first is doing.
        let Ok(_broom) = self.broom.try_lock() else {
            return;
        };
        if let Err(error) = self.sweep(task).await {
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "no room made for files of tasks");
        }
    }

    async fn sweep(&self, task: &Task) -> io::Result<()> {
        let mut entries = match fs::read_dir(&self.directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = vec![];
        let mut total = 0_u64;
        while let Some(entry) = entries.next_entry().await? {
            let Ok(metadata) = entry.metadata().await else {
                continue; // somebody has removed it
            };
            let path = entry.path();
            let needed = self.library.needs(&path) || task.files.iter().any(|f| f.path == path);
            if metadata.is_file() && !needed {
                total = total.saturating_add(metadata.len());
                files.push((metadata.modified()?, metadata.len(), path));
            }
        }
        files.sort();
        let now = SystemTime::now();
        for (used, size, path) in files {
            let young = now.duration_since(used).is_ok_and(|age| age < YOUNG);
            if total <= self.room || young {
                break;
            }
            fs::remove_file(&path).await?;
            total = total.saturating_sub(size);
        }
        Ok(())
    }
}

/// Path and query of a file, as they stand in a URL.
fn place(uri: &FileUri) -> Result<String, ServerError> {
    // Which host does not matter: only what is behind it is used.
    let mut url: Url = "https://server/"
        .parse()
        .map_err(|_| ServerError::Changed(uri.path.clone()))?;
    url.set_path(&uri.path);
    for (name, value) in &uri.params {
        let text = value.as_str().map(str::to_owned);
        let text = text.unwrap_or_else(|| value.to_string());
        url.query_pairs_mut().append_pair(name, &text);
    }
    Ok(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

fn keep_fault(path: &Path, error: &io::Error) -> ServerError {
    ServerError::Keep {
        path: path.display().to_string(),
        problem: error.to_string(),
    }
}

/// Notes that a file has been used now. A file that is thereby held for older than it is may be
/// fetched again, no more.
async fn touch(path: &Path) {
    let path = path.to_owned();
    let touched = tokio::task::spawn_blocking(move || {
        std::fs::File::options()
            .append(true)
            .open(path)?
            .set_modified(SystemTime::now())
    });
    if let Ok(Err(error)) = touched.await {
        tracing::debug!(%error, "use of a file not noted");
    }
}
