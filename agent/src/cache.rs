//! Task files: fetched over the mesh by their SHA-256, or from a Puppet Server where no broker has
//! them, kept, and copied out.
//!
//! `<task-cache-dir>/<sha256>/<name>`. What is run is never the file in the cache but a private copy
//! in the transaction's directory, whose digest is computed while it is written: whatever happens to
//! the cache, a task runs exactly the bytes that were asked for. A file that is wanted by several
//! transactions at once is fetched once.

mod download;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pcp::Digest;
use pcp_client::ClientHandle;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::bounds::{Bounds, Entry, before};
use crate::disk::{self, Disk, DiskError};
use crate::modules::source::Source;
use crate::primaries::Primaries;
pub use download::DownloadError;

/// Where Puppet's plugins lie below the cache, each environment's in a directory of its name: `apply prep`
/// puts them there.
pub const PLUGINS: &str = "plugins";

/// What a file is called while it is fetched.
const PART: &str = ".part-";

/// After this time a fetch that left nothing but a part has broken off: none takes nearly as long
/// without a byte.
const BROKEN_OFF: Duration = Duration::from_secs(60 * 60);

/// The agent's own, in the cache.
const OWN: u32 = 0o700;

/// What a task may run as another user. Where it lies, in the spool, nobody else comes.
const STAGED: u32 = 0o755;

/// The cache directory and the way to what it lacks.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: Arc<Path>,
    disk: Disk,
    client: ClientHandle,
    primaries: Primaries,
    fetching: Arc<Mutex<HashMap<Digest, Weak<Semaphore>>>>,
    /// Read while a copy is written ([`sandbox::Launcher::starting`]).
    starting: Arc<RwLock<()>>,
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// All tries failed; the last of them so.
    #[error("Failed to download file with: {name}")]
    Download {
        /// The file's name.
        name: String,
        /// What went wrong the last time.
        #[source]
        source: DownloadError,
    },
    /// The disk refuses.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was fetched and is gone again: somebody removes files from the cache.
    #[error("the file {0} vanished from the task cache")]
    Vanished(String),
    /// The work could not be done.
    #[error("the task cache cannot be used")]
    Disk(#[source] DiskError),
}

impl Cache {
    /// A cache in a directory, which is made when there is none. Blocks.
    ///
    /// # Errors
    /// [`CacheError`] when the directory cannot be made.
    pub fn open(
        dir: &Path,
        disk: Disk,
        client: ClientHandle,
        primaries: Primaries,
        starting: Arc<RwLock<()>>,
    ) -> Result<Self, CacheError> {
        make_directories(dir, OWN)?;
        Ok(Self {
            dir: dir.into(),
            disk,
            client,
            primaries,
            fetching: Arc::default(),
            starting,
        })
    }

    /// Puts a private, verified copy of a file at `to`, which may be there already.
    ///
    /// # Errors
    /// [`CacheError`] when it cannot be had.
    pub async fn place(&self, file: &Source, to: &Path) -> Result<(), CacheError> {
        if self.copy(file, to).await? {
            return Ok(());
        }
        let turn = self.turn(file.digest);
        // Never closed.
        let _turn = turn.acquire().await;
        if self.copy(file, to).await? {
            return Ok(());
        }
        self.download(file).await?;
        if self.copy(file, to).await? {
            Ok(())
        } else {
            Err(CacheError::Vanished(file.name.clone()))
        }
    }

    /// Removes what the bounds do not allow, what has not been used for the longest time first, and
    /// what is left of fetches that broke off. Blocks. What is being fetched stays, and copies that
    /// are being made are not disturbed: they hold the file open.
    ///
    /// # Errors
    /// [`CacheError`] for the directory, or the first entry that cannot be removed.
    pub fn purge(&self, bounds: Bounds, now: Timestamp) -> Result<usize, CacheError> {
        let mut entries = Vec::new();
        let mut gone = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("list", &self.dir))? {
            let path = entry.map_err(failed("list", &self.dir))?.path();
            let digest = path.file_name().and_then(|name| name.to_str());
            let Some(digest) = digest.and_then(|name| name.parse::<Digest>().ok()) else {
                // Not ours: whoever has put it there may have a reason.
                continue;
            };
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => metadata,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(failed("look at", &path)(source)),
            };
            let used = metadata.modified().map_err(failed("look at", &path))?;
            let used = Timestamp::try_from(used).unwrap_or(Timestamp::MIN);
            let removable = !self.is_fetched(digest);
            if removable && used < before(now, BROKEN_OFF) && !has_file(&path) {
                gone.push(path);
                continue;
            }
            entries.push(Entry {
                bytes: disk::measure(&path).0,
                what: path,
                used,
                removable,
            });
        }
        entries.extend(plugins(&self.dir.join(PLUGINS), now)?);
        gone.extend(
            bounds
                .excess(entries, now)
                .into_iter()
                .map(|entry| entry.what),
        );
        for path in &gone {
            match fs::remove_dir_all(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("remove", path)(source)),
            }
        }
        Ok(gone.len())
    }

    fn is_fetched(&self, digest: Digest) -> bool {
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching
            .get(&digest)
            .is_some_and(|turn| turn.strong_count() > 0)
    }

    /// One at a time may fetch a digest; the others find it when it is their turn.
    fn turn(&self, digest: Digest) -> Arc<Semaphore> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = fetching.get(&digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        fetching.insert(digest, Arc::downgrade(&turn));
        turn
    }

    fn path(&self, file: &Source) -> (PathBuf, PathBuf) {
        let directory = self.dir.join(file.digest.to_string());
        let path = directory.join(&file.name);
        (directory, path)
    }

    async fn copy(&self, file: &Source, to: &Path) -> Result<bool, CacheError> {
        let (directory, path) = self.path(file);
        let digest = file.digest;
        let to = to.to_path_buf();
        let starting = Arc::clone(&self.starting);
        let work = move || {
            let _writing = starting.read().unwrap_or_else(PoisonError::into_inner);
            copy(&directory, &path, digest, &to)
        };
        self.disk.run(work).await.map_err(CacheError::Disk)?
    }
}

/// Copies a cached file if it is there and is what it should be.
fn copy(directory: &Path, path: &Path, wanted: Digest, to: &Path) -> Result<bool, CacheError> {
    let mut from = match File::open(path) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(failed("open", path)(source)),
    };
    // Purging goes by the time of the last use.
    match File::open(directory).and_then(|dir| dir.set_modified(SystemTime::now())) {
        Ok(()) => {}
        // Purged just now: what is open can still be copied.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("touch", directory)(source)),
    }
    if let Some(parent) = to.parent() {
        make_directories(parent, STAGED)?;
    }
    let mut output = create(to, STAGED)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(failed("read", path)(source)),
        };
        let read = chunk.get(..length).unwrap_or_default();
        hasher.update(read);
        output.write_all(read).map_err(failed("write", to))?;
    }
    if Digest(hasher.finalize().into()) == wanted {
        return Ok(true);
    }
    drop(output);
    tracing::warn!(file = %path.display(), "cached task file was altered; fetching it again");
    for path in [to, path] {
        fs::remove_file(path).map_err(failed("remove", path))?;
    }
    Ok(false)
}

/// The plugins of environments, each in a directory whose time is that of their last use. What was used
/// a short while ago may be in use.
fn plugins(dir: &Path, now: Timestamp) -> Result<Vec<Entry<PathBuf>>, CacheError> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("list", dir)(source)),
    };
    let mut entries = Vec::new();
    for entry in listed {
        let path = entry.map_err(failed("list", dir))?.path();
        let (bytes, _) = disk::measure(&path);
        let used = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        let used = Timestamp::try_from(used.map_err(failed("look at", &path))?);
        let used = used.unwrap_or(Timestamp::MIN);
        entries.push(Entry {
            what: path,
            used,
            bytes,
            removable: used < before(now, BROKEN_OFF),
        });
    }
    Ok(entries)
}

/// Whether anything has been fetched into a directory to its end.
fn has_file(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        !name.to_string_lossy().starts_with(PART)
    })
}

/// Support files get the executable bit that the original gives to every file, too. The mode is this
/// one, whatever the umask is.
fn create(path: &Path, mode: u32) -> Result<File, CacheError> {
    let created = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path);
    let file = created.map_err(failed("create", path))?;
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(failed("create", path))?;
    Ok(file)
}

fn make_directories(path: &Path, mode: u32) -> Result<(), CacheError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        // Somebody else has made it just now, and gives it its mode.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(source) => return Err(failed("create", path)(source)),
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("create", path))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |source| CacheError::Io {
        operation,
        path,
        source,
    }
}
