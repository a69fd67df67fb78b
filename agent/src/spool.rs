//! The transactions on disk: one directory each, named by the transaction id.
//!
//! `<spool-dir>/<transaction_id>/metadata` holds a [`record`] of the transaction, to which each later
//! state adds another. Beside it lie the files of the run. A new transaction's directory appears with
//! its record in it or not at all. What is written outlives the agent, however it ends, because the
//! system keeps it in memory; what is flushed outlives a loss of power, too. Names that begin with a dot
//! are the agent's own, for no transaction id does: `.new-*` is a directory in the making, `.gone-*`
//! one being removed, `.run-*` the run of a blocking request, `.lock` keeps a second agent away.
//! Parameters are never written here.

pub mod record;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pxp::TransactionId;

use crate::disk::{self, Room};
use crate::transaction::Stored;
use record::{Record, RecordError};

/// The longest file of records. There is one for each state, with a dozen short values and at most
/// one message.
const MAX_RECORDS: u64 = 512 * 1024;

/// Where the kernel says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Only the agent's own user may look into the spool: output of tasks may hold secrets. Through a
/// directory that is let through, others reach what they know the name of and may read.
const DIRECTORY_MODE: u32 = 0o700;
const THROUGH_MODE: u32 = 0o711;
const FILE_MODE: u32 = 0o600;

/// How many files must be free for a new transaction: a dozen each for all that may run at once.
const RESERVED_FILES: u64 = 1024;

const METADATA: &str = "metadata";
const LOCK: &str = ".lock";
const NEW: &str = ".new-";
const GONE: &str = ".gone-";
const BLOCKING: &str = ".run-";

/// The spool directory. Holding one means that no other agent uses it.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: Arc<Path>,
    /// The machine's present start.
    boot: Arc<str>,
    /// How many bytes of the disk must be free for a new transaction.
    reserve: u64,
    /// Nothing for who only looks.
    _lock: Option<Arc<File>>,
}

/// What became of the wish to begin a transaction.
#[derive(Debug)]
pub enum Begun {
    /// It is on disk.
    New,
    /// The id is in use.
    Exists(Result<Stored, SpoolError>),
}

/// How safely a record must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the loss of power.
    Flushed,
    /// It survives the end of the agent. After a loss of power the record before this one may be the
    /// last again.
    Lazy,
}

/// Everything that was found in the spool.
#[derive(Debug, Default)]
pub struct Contents {
    /// The transactions that could be read.
    pub transactions: Vec<Stored>,
    /// The runs of blocking requests, whose requesters have gone.
    pub blocking_runs: Vec<PathBuf>,
    /// What could not be read, and is left alone while it is young.
    pub unreadable: Vec<Unreadable>,
}

/// Something in the spool that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The transaction whose directory it is, if its name can be one's.
    pub id: Option<TransactionId>,
    /// Why not.
    pub error: SpoolError,
}

/// Why the spool could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent holds the directory.
    #[error("another agent uses the spool directory {}", .0.display())]
    InUse(PathBuf),
    /// An operation on a file or directory failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is there, and is not a record of this transaction.
    #[error("{} is not a record of its transaction", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: RecordError,
    },
    /// There is too little room for a new transaction and for the ends of those that run.
    #[error(
        "the disk of {} is nearly full: {free} bytes are free, and {reserve} are kept for what runs \
         already", path.display()
    )]
    Full {
        /// The spool.
        path: PathBuf,
        /// What is free.
        free: u64,
        /// What must be.
        reserve: u64,
    },
    /// The same for files.
    #[error(
        "the file system of {} can hold only {free} more files, and {reserve} are kept for what runs \
         already", path.display()
    )]
    NoInodes {
        /// The spool.
        path: PathBuf,
        /// How many there may be.
        free: u64,
        /// How many there must be.
        reserve: u64,
    },
    /// Something lies in the spool that is no transaction.
    #[error("{} is no transaction", .0.display())]
    Foreign(PathBuf),
}

impl Spool {
    /// Opens the spool directory, making it when there is none, and clears away what an earlier
    /// agent left half made or half removed.
    ///
    /// # Errors
    /// [`SpoolError`] when it cannot be used, or another agent uses it.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        DirBuilder::new()
            .recursive(true)
            .mode(THROUGH_MODE)
            .create(dir)
            .map_err(failed("create", dir))?;
        // An existing directory may have the original's wider mode.
        fs::set_permissions(dir, Permissions::from_mode(THROUGH_MODE))
            .map_err(failed("set the mode of", dir))?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(failed("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(dir.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        let boot = boot_id()?;
        let spool = Self {
            dir: dir.into(),
            boot,
            reserve: 0,
            _lock: Some(Arc::new(lock)),
        };
        for name in spool.names()? {
            if name.starts_with(NEW) || name.starts_with(GONE) {
                let path = dir.join(name);
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(spool)
    }

    /// A spool to be looked at, whether an agent uses it or not. Nothing is cleared away.
    ///
    /// # Errors
    /// [`SpoolError`] when there is none.
    pub fn look(dir: &Path) -> Result<Self, SpoolError> {
        fs::read_dir(dir).map_err(failed("list", dir))?;
        Ok(Self {
            dir: dir.into(),
            boot: boot_id()?,
            reserve: 0,
            _lock: None,
        })
    }

    /// Takes new transactions only while so many bytes of the disk are free.
    #[must_use]
    pub fn reserving(self, reserve: u64) -> Self {
        Self { reserve, ..self }
    }

    /// Whether there is room for one more transaction.
    ///
    /// # Errors
    /// [`SpoolError::Full`] or [`SpoolError::NoInodes`] when there is not.
    pub fn room(&self) -> Result<Room, SpoolError> {
        let room = Room::of(&self.dir).map_err(failed("look at the disk of", &self.dir))?;
        if room.bytes < self.reserve {
            return Err(SpoolError::Full {
                path: self.dir.to_path_buf(),
                free: room.bytes,
                reserve: self.reserve,
            });
        }
        match room.files {
            Some(free) if self.reserve > 0 && free < RESERVED_FILES => Err(SpoolError::NoInodes {
                path: self.dir.to_path_buf(),
                free,
                reserve: RESERVED_FILES,
            }),
            _ => Ok(room),
        }
    }

    /// The directory of a transaction.
    #[must_use]
    pub fn directory(&self, id: &TransactionId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    /// Writes a new transaction down, durably, unless its id is in use.
    ///
    /// # Errors
    /// [`SpoolError`] when nothing could be written; then there is no such transaction.
    pub fn begin(&self, transaction: &Stored) -> Result<Begun, SpoolError> {
        let id = &transaction.request().id;
        match self.read(id) {
            Ok(None) => {}
            Ok(Some(known)) => return Ok(Begun::Exists(Ok(known))),
            Err(error) => return Ok(Begun::Exists(Err(error))),
        }
        self.room()?;
        let made = self.dir.join(format!("{NEW}{id}"));
        if fs::exists(&made).map_err(failed("look at", &made))? {
            fs::remove_dir_all(&made).map_err(failed("remove", &made))?;
        }
        make_directory(&made)?;
        let directory = self.directory(id);
        let begun = self
            .add_record(&made, b"", transaction, Durability::Flushed)
            .and_then(|()| {
                flush_directory(&made)?;
                fs::rename(&made, &directory).map_err(failed("create", &directory))?;
                flush_directory(&self.dir)
            });
        if let Err(error) = begun {
            // Nothing may be left of it, under the one name or the other. When that fails too, the
            // next start clears the one, and finds a transaction that never ran in the other.
            for path in [made, directory] {
                fs::remove_dir_all(path).ok();
            }
            return Err(error);
        }
        Ok(Begun::New)
    }

    /// Adds a record to those of a transaction.
    ///
    /// # Errors
    /// [`SpoolError`] when the new record could not be written; the old one counts as before.
    pub fn write(&self, transaction: &Stored, durability: Durability) -> Result<(), SpoolError> {
        let directory = self.directory(&transaction.request().id);
        // On a line of its own, whatever came before: that may be half a record.
        self.add_record(&directory, b"\n", transaction, durability)
    }

    /// Reads a transaction back; nothing when the spool does not have it.
    ///
    /// # Errors
    /// [`SpoolError`] when something is there that cannot be read.
    pub fn read(&self, id: &TransactionId) -> Result<Option<Stored>, SpoolError> {
        let directory = self.directory(id);
        let path = directory.join(METADATA);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match fs::symlink_metadata(&directory) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(failed("look at", &directory)(source)),
                    Ok(_) => Err(failed("open", &path)(error)),
                };
            }
            Err(source) => return Err(failed("open", &path)(source)),
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_RECORDS), &mut text)
            .map_err(failed("read", &path))?;
        Record::parse(&text, &self.boot)
            .and_then(|stored| {
                if stored.request().id == *id {
                    Ok(stored)
                } else {
                    Err(RecordError::OtherTransaction)
                }
            })
            .map(Some)
            .map_err(|source| SpoolError::Record { path, source })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`SpoolError`] when the directory itself cannot be read.
    pub fn contents(&self) -> Result<Contents, SpoolError> {
        let mut contents = Contents::default();
        for name in self.names()? {
            if name.starts_with(BLOCKING) {
                contents.blocking_runs.push(self.dir.join(name));
            } else if !name.starts_with('.') {
                let Ok(id) = TransactionId::parse(&name) else {
                    let error = SpoolError::Foreign(self.dir.join(name));
                    contents.unreadable.push(Unreadable { id: None, error });
                    continue;
                };
                match self.read(&id) {
                    Ok(Some(stored)) => contents.transactions.push(stored),
                    // Removed by an operator just now.
                    Ok(None) => {}
                    Err(error) => contents.unreadable.push(Unreadable {
                        id: Some(id),
                        error,
                    }),
                }
            }
        }
        Ok(contents)
    }

    /// Removes a transaction and all its files. Until the name is gone everything is there.
    ///
    /// # Errors
    /// [`SpoolError`] when it could not be removed, or not all of it.
    pub fn remove(&self, id: &TransactionId) -> Result<(), SpoolError> {
        let directory = self.directory(id);
        let gone = self.dir.join(format!("{GONE}{id}"));
        fs::rename(&directory, &gone).map_err(failed("remove", &directory))?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))
    }

    /// Makes a directory for the run of a blocking request. `token` keeps it apart from others.
    ///
    /// # Errors
    /// [`SpoolError`] when it cannot be made.
    pub fn begin_blocking(&self, token: u64) -> Result<PathBuf, SpoolError> {
        self.room()?;
        let path = self.dir.join(format!("{BLOCKING}{token:016x}"));
        make_directory(&path)?;
        Ok(path)
    }

    /// How many bytes a transaction's files take, and when anything was last put beside them. What is
    /// gone meanwhile counts as nothing.
    #[must_use]
    pub fn measure(&self, id: &TransactionId) -> (u64, SystemTime) {
        disk::measure(&self.directory(id))
    }

    /// Lets another user through to the files of its task, where no mount of its own shows them to it.
    ///
    /// # Errors
    /// [`SpoolError`] when the directory cannot be changed.
    pub fn let_through(&self, directory: &Path) -> Result<(), SpoolError> {
        fs::set_permissions(directory, Permissions::from_mode(THROUGH_MODE))
            .map_err(failed("set the mode of", directory))
    }

    fn add_record(
        &self,
        directory: &Path,
        before: &[u8],
        transaction: &Stored,
        durability: Durability,
    ) -> Result<(), SpoolError> {
        let path = directory.join(METADATA);
        let line = Record::line(transaction, &self.boot).map_err(|source| SpoolError::Record {
            path: path.clone(),
            source,
        })?;
        let line = [before, &line].concat();
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(failed("open", &path))?;
        file.write_all(&line).map_err(failed("write", &path))?;
        match durability {
            Durability::Flushed => file.sync_data().map_err(failed("flush", &path)),
            Durability::Lazy => Ok(()),
        }
    }

    /// The names in the directory. A name that is not UTF-8 is shown with replacements: it is
    /// neither ours nor a transaction's.
    fn names(&self) -> Result<Vec<String>, SpoolError> {
        fs::read_dir(&self.dir)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect()
            })
            .map_err(failed("list", &self.dir))
    }
}

impl SpoolError {
    /// What an operator can do about it, if it is not plain.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Full { .. } | Self::NoInodes { .. } => {
                Some("free space there; spool-dir-reserve says how much is kept")
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free space there")
                }
                io::ErrorKind::ReadOnlyFilesystem => Some("mount it for writing"),
                _ => None,
            },
            Self::InUse(_) | Self::Record { .. } | Self::Foreign(_) => None,
        }
    }

    /// Whether what could not be read is broken, rather than out of reach or of a newer agent.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Record { source, .. } => !matches!(source, RecordError::Version(_)),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Full { .. } | Self::NoInodes { .. } | Self::InUse(_) | Self::Foreign(_) => false,
        }
    }
}

/// Makes a directory for the agent alone.
///
/// # Errors
/// [`SpoolError`] when it cannot be made.
pub fn make_directory(path: &Path) -> Result<(), SpoolError> {
    DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(failed("create", path))
}

fn boot_id() -> Result<Arc<str>, SpoolError> {
    let path = Path::new(BOOT_ID);
    let boot = fs::read_to_string(path).map_err(failed("read", path))?;
    Ok(boot.trim_end().into())
}

fn flush_directory(path: &Path) -> Result<(), SpoolError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flush", path))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_path_buf();
    move |source| SpoolError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
