//! Files by digest on this broker's disk: bounded in bytes, what has not been used for the longest time
//! goes first, and nothing is given out whose digest was not compared. All of it blocks.
//!
//! `<dir>/<sha256>` is a file, `<dir>/.part-<number>` one that is on its way. The time of a file's last use
//! is its time of modification, so that the order survives a restart.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use daemon::disk::Room;
use nix::fcntl::posix_fallocate;
use pcp::Digest;

/// A file up to this size is read into memory to be compared, and given out from there: most files of
/// tasks. A larger one is read twice.
pub(super) const IN_MEMORY: u64 = 256 * 1024;

/// How much of a larger file is read at once.
const CHUNK: usize = 64 * 1024;

const PART: &str = ".part-";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The directory, and what is known of it.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// How many bytes its files may have.
    most: u64,
    /// How many bytes must stay free on its disk.
    reserve: u64,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Digest, Entry>,
    /// The entries by their last use, oldest first.
    uses: BTreeMap<u64, Digest>,
    /// Counts uses.
    clock: u64,
    /// Of all entries.
    bytes: u64,
    /// Of all parts: room that is promised.
    promised: u64,
    parts: u64,
    evicted: u64,
    corrupted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    used: u64,
}

/// What a store holds, and what has happened to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) capacity: u64,
    pub(crate) evicted: u64,
    pub(crate) corrupted: u64,
}

/// A file whose digest was compared just now.
#[derive(Debug)]
pub(super) enum Verified {
    Memory(Vec<u8>),
    File(File, u64),
}

/// A file on its way into the store. Dropped before [`Part::finish`], it leaves nothing behind.
pub(super) struct Part {
    store: Arc<Store>,
    digest: Digest,
    size: u64,
    path: PathBuf,
    file: Arc<File>,
    hash: Context,
    written: u64,
    finished: bool,
}

/// What has come is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came has the SHA-256 {found}")]
pub(super) struct Mismatch {
    found: Digest,
}

/// Why a part did not become a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinishError {
    #[error("the source sent something else")]
    Mismatch(#[source] Mismatch),
    #[error("the file cannot be put into its place")]
    Rename(#[source] io::Error),
}

impl Store {
    /// Opens a directory, which is made when there is none, and forgets what it may not hold.
    pub(super) fn open(dir: &Path, most: u64, reserve: u64) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(dir)?;
        let store = Self {
            dir: dir.to_owned(),
            most,
            reserve,
            index: Mutex::default(),
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(PART) {
                // Of a life that ended in the middle.
                fs::remove_file(entry.path())?;
            } else if let Ok(digest) = name.parse::<Digest>()
                && let Ok(metadata) = entry.metadata()
                && metadata.is_file()
            {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((used, digest, metadata.len()));
            }
            // Anything else is not ours: whoever has put it there may have a reason.
        }
        found.sort_by_key(|(used, digest, _)| (*used, digest.0));
        let mut index = store.lock();
        for (_, digest, size) in found {
            index.insert(digest, size);
        }
        store.make_room(&mut index, 0);
        drop(index);
        Ok(store)
    }

    /// A file of this digest, compared just now. One that is not what its name says is removed.
    pub(super) fn get(&self, digest: Digest) -> Option<Verified> {
        let size = self.lock().used(digest)?;
        let path = self.path(digest);
        match verified(&path, digest, size) {
            Ok(Some(verified)) => Some(verified),
            Ok(None) => {
                tracing::warn!(%digest, "file in the content cache was altered; fetching it again");
                self.forget(digest, &path);
                None
            }
            // Somebody has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lock().remove(digest);
                None
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "file in the content cache cannot be read");
                self.forget(digest, &path);
                None
            }
        }
    }

    /// Whether there is a file of this digest, as far as is known without a look at it.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.lock().entries.contains_key(&digest)
    }

    /// Room for a file that comes, which is taken on the disk at once; nothing when there is none.
    pub(super) fn begin(self: &Arc<Self>, digest: Digest, size: u64) -> Option<Part> {
        let mut index = self.lock();
        if !self.make_room(&mut index, size) {
            return None;
        }
        index.promised = index.promised.saturating_add(size);
        index.parts += 1;
        let path = self.dir.join(format!("{PART}{}", index.parts));
        drop(index);
        match create(&path, size) {
            Ok(file) => Some(Part {
                store: Arc::clone(self),
                digest,
                size,
                path,
                file: Arc::new(file),
                hash: Context::new(&SHA256),
                written: 0,
                finished: false,
            }),
            Err(error) => {
                tracing::warn!(%digest, size, %error, "file is passed on without being kept");
                // It may never have been made.
                drop(fs::remove_file(&path));
                self.lock().give_back(size);
                None
            }
        }
    }

    pub(super) fn held(&self) -> Held {
        let index = self.lock();
        Held {
            files: index.entries.len(),
            bytes: index.bytes,
            capacity: self.most,
            evicted: index.evicted,
            corrupted: index.corrupted,
        }
    }

    /// Removes files until so many bytes more are within both bounds. False when that cannot be.
    fn make_room(&self, index: &mut Index, size: u64) -> bool {
        if index.promised.saturating_add(size) > self.most {
            return false;
        }
        loop {
            let taken = index.bytes.saturating_add(index.promised);
            if taken.saturating_add(size) <= self.most && self.disk_has(size) {
                return true;
            }
            let Some((_, oldest)) = index.uses.first_key_value() else {
                return taken.saturating_add(size) <= self.most && self.disk_has(size);
            };
            let oldest = *oldest;
            index.remove(oldest);
            index.evicted += 1;
            let path = self.path(oldest);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(digest = %oldest, %error, "file in the content cache cannot be removed");
            }
        }
    }

    /// Whether the disk keeps its reserve with so many bytes more: what is promised is allocated.
    fn disk_has(&self, size: u64) -> bool {
        // A disk that cannot be looked at takes nothing.
        Room::of(&self.dir).is_ok_and(|room| room.bytes >= self.reserve.saturating_add(size))
    }

    /// Removes a file that is no good.
    fn forget(&self, digest: Digest, path: &Path) {
        let mut index = self.lock();
        index.remove(digest);
        index.corrupted += 1;
        drop(fs::remove_file(path));
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    /// An index is whole at every step.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn insert(&mut self, digest: Digest, size: u64) {
        self.remove(digest);
        self.clock += 1;
        let used = self.clock;
        self.entries.insert(digest, Entry { size, used });
        self.uses.insert(used, digest);
        self.bytes = self.bytes.saturating_add(size);
    }

    fn remove(&mut self, digest: Digest) {
        if let Some(entry) = self.entries.remove(&digest) {
            self.uses.remove(&entry.used);
            self.bytes = self.bytes.saturating_sub(entry.size);
        }
    }

    /// It is used now: its size.
    fn used(&mut self, digest: Digest) -> Option<u64> {
        let entry = self.entries.get_mut(&digest)?;
        self.uses.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.uses.insert(entry.used, digest);
        Some(entry.size)
    }

    fn give_back(&mut self, size: u64) {
        self.promised = self.promised.saturating_sub(size);
    }
}

impl Part {
    /// What is read by those who do not wait until it is whole.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Takes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        (&*self.file).write_all(bytes)?;
        self.hash.update(bytes);
        self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(self.written)
    }

    /// Makes it a file of the store, if it is what was asked for.
    pub(super) fn finish(mut self) -> Result<(), FinishError> {
        let found = digest_of(self.hash.clone());
        if found != self.digest || self.written != self.size {
            return Err(FinishError::Mismatch(Mismatch { found }));
        }
        // A file system's own clock has ticks so long that files of one tick would have no order.
        drop(self.file.set_modified(SystemTime::now()));
        // Under the lock, so that whoever makes room sees either the promise or the file.
        let mut index = self.store.lock();
        fs::rename(&self.path, self.store.path(self.digest)).map_err(FinishError::Rename)?;
        index.give_back(self.size);
        index.insert(self.digest, self.size);
        drop(index);
        self.finished = true;
        Ok(())
    }
}

/// A digest on its way has no form of its own.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("path", &self.path)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            drop(fs::remove_file(&self.path));
            self.store.lock().give_back(self.size);
        }
    }
}

fn create(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)?;
    if size > 0 {
        let size = i64::try_from(size).map_err(io::Error::other)?;
        posix_fallocate(&file, 0, size)?;
    }
    Ok(file)
}

/// The file, or nothing when it is not what it should be.
fn verified(path: &Path, digest: Digest, size: u64) -> io::Result<Option<Verified>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != size {
        return Ok(None);
    }
    // The order of the last uses is not worth a failure.
    drop(file.set_modified(SystemTime::now()));
    let mut hash = Context::new(&SHA256);
    if size <= IN_MEMORY {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        hash.update(&bytes);
        return Ok((digest_of(hash) == digest).then_some(Verified::Memory(bytes)));
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => hash.update(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if digest_of(hash) != digest {
        return Ok(None);
    }
    file.rewind()?;
    Ok(Some(Verified::File(file, size)))
}

fn digest_of(hash: Context) -> Digest {
    let digest = hash.finish();
    // SHA-256 has 32 bytes.
    Digest(digest.as_ref().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
