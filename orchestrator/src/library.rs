//! The files of tasks, for brokers that ask for them by digest. A file is served as it was when its
//! job began, or not at all: whoever asks gets the content of that digest or a refusal.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pcp::frame::{ContentError, ContentErrorCode, Digest};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::Semaphore;

use crate::job::JobId;
use crate::store::FileRef;

/// How many files are read at once. Brokers cache what they get, so few ask.
const READERS: usize = 8;

/// How much of a file is read at a time.
const CHUNK: usize = 64 * 1024;

/// Which files the active jobs need. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    jobs: Arc<Mutex<Shelves>>,
    readers: Arc<Semaphore>,
}

/// The files of each job, by the digest that they had when it began.
type Shelves = BTreeMap<JobId, Vec<(Digest, PathBuf)>>;

/// A file whose content has been checked.
#[derive(Debug)]
pub(crate) struct Checked {
    /// In bytes.
    pub(crate) size: u64,
    /// At its beginning.
    pub(crate) file: File,
}

impl Library {
    pub(crate) fn new() -> Self {
        Self {
            jobs: Arc::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// A job needs these files. A digest that is none is left out: no agent could ask for it.
    pub(crate) fn add(&self, job: JobId, files: &[FileRef]) {
        let files = files
            .iter()
            .filter_map(|file| Some((file.sha256.parse().ok()?, file.path.clone())))
            .collect();
        self.lock().insert(job, files);
    }

    /// A job has ended.
    pub(crate) fn remove(&self, job: JobId) {
        self.lock().remove(&job);
    }

    /// Whether an active job needs the file at this path.
    pub(crate) fn needs(&self, path: &Path) -> bool {
        self.lock().values().flatten().any(|(_, of)| of == path)
    }

    /// Opens the file with this digest.
    ///
    /// # Errors
    /// What the asker is told.
    pub(crate) async fn open(&self, digest: Digest) -> Result<Checked, ContentError> {
        let Ok(_permit) = self.readers.try_acquire() else {
            return Err(refusal(
                ContentErrorCode::Busy,
                "too many files are being read",
            ));
        };
        let paths: Vec<PathBuf> = self
            .lock()
            .values()
            .flatten()
            .filter(|(other, _)| *other == digest)
            .map(|(_, path)| path.clone())
            .collect();
        let mut problem = "no running job needs a file of this digest";
        for path in paths {
            match check(&path, digest).await {
                Ok(Some(checked)) => return Ok(checked),
                Ok(None) => {
                    tracing::warn!(path = %path.display(), %digest, "task file has changed");
                    problem = "the file has changed since the job began";
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "task file cannot be read");
                    problem = "the file cannot be read any more";
                }
            }
        }
        Err(refusal(ContentErrorCode::NotFound, problem))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shelves> {
        // The map is whole at every step, so a panic elsewhere does not spoil it.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(code: ContentErrorCode, message: &str) -> ContentError {
    ContentError {
        code,
        message: message.to_owned(),
    }
}

/// Opens a file and reads it through once; nothing when its content has another digest. It is sent
/// from the same descriptor, and the asker checks the digest again.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn check(path: &Path, digest: Digest) -> io::Result<Option<Checked>> {
    let mut file = File::open(path).await?;
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        hash.update(chunk.get(..read).unwrap_or_default());
        size = size.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    if digest != Digest(hash.finalize().into()) {
        return Ok(None);
    }
    file.rewind().await?;
    Ok(Some(Checked { size, file }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(content: &[u8]) -> Digest {
        Digest(Sha256::digest(content).into())
    }

    #[tokio::test]
    async fn serves_what_the_job_began_with_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello.sh");
        std::fs::write(&path, "echo hello").unwrap();
        let wanted = digest(b"echo hello");
        let library = Library::new();
        let code = |result: Result<Checked, ContentError>| result.unwrap_err().code;
        assert_eq!(code(library.open(wanted).await), ContentErrorCode::NotFound);

        let file = FileRef {
            sha256: wanted.to_string(),
            path: path.clone(),
        };
        library.add(JobId(1), &[file]);
        let mut checked = library.open(wanted).await.unwrap();
        let mut content = String::new();
        checked.file.read_to_string(&mut content).await.unwrap();
        assert_eq!((checked.size, content.as_str()), (10, "echo hello"));

        std::fs::write(&path, "rm -rf /").unwrap();
        assert_eq!(code(library.open(wanted).await), ContentErrorCode::NotFound);
        let changed = digest(b"rm -rf /");
        assert_eq!(
            code(library.open(changed).await),
            ContentErrorCode::NotFound
        );

        std::fs::write(&path, "echo hello").unwrap();
        library.remove(JobId(1));
        assert_eq!(code(library.open(wanted).await), ContentErrorCode::NotFound);
    }
}
