//! The process of `file download`: `pxp-agent module file download`. It finds on its standard input
//! what is to be where, and its files, checked and in its sight, in the staging directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use pcp::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tree::{Directory, Found, TreeError};

/// The original's words for a success.
const DOWNLOADED: &str = "downloaded";

/// What is to be done, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Work {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// What is to be at one place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The place: an absolute path.
    pub destination: PathBuf,
    /// What is to be there.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file.
    File {
        /// What it must contain.
        sha256: String,
        /// Where a copy lies.
        from: PathBuf,
        /// Why there is none, if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<String>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it points to.
        to: PathBuf,
    },
}

/// Why an entry is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// What is on standard input is no work.
    #[error("the request cannot be read")]
    Input(#[source] serde_json::Error),
    /// There is something else at a directory's place.
    #[error("Destination {0:?} already exists and is not a directory!")]
    NotDirectory(PathBuf),
    /// There is something else at a link's place.
    #[error("Destination {0:?} already exists and is not a symlink!")]
    NotSymlink(PathBuf),
    /// There is a directory at a file's place.
    #[error("Destination {0:?} already exists and is a directory!")]
    IsDirectory(PathBuf),
    /// The file could not be had, and is not there either.
    #[error("{reason}: {}", destination.display())]
    Missing {
        /// Where it was to be.
        destination: PathBuf,
        /// Why it could not be had.
        reason: String,
    },
    /// The copy is not what was asked for.
    #[error("the file for {0:?} has a SHA that differs from the provided SHA")]
    Mismatch(PathBuf),
    /// The file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The way there cannot be gone.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Does what `input` says, one entry after the other, and says so on `output`. What was done before an
/// entry that fails stays done.
///
/// # Errors
/// [`PutError`] for the entry that could not be done.
pub fn run(input: impl Read, mut output: impl Write) -> Result<(), PutError> {
    let work: Work = serde_json::from_reader(input).map_err(PutError::Input)?;
    for entry in &work.entries {
        put(entry)?;
    }
    output
        .write_all(DOWNLOADED.as_bytes())
        .and_then(|()| output.flush())
        .map_err(failed("write", Path::new("standard output")))
}

fn put(entry: &Entry) -> Result<(), PutError> {
    let destination = &entry.destination;
    match &entry.kind {
        Kind::Directory => match Directory::make(destination) {
            Ok(_) => Ok(()),
            Err(TreeError::Step(path, Errno::ENOTDIR)) if path == *destination => {
                Err(PutError::NotDirectory(destination.clone()))
            }
            Err(error) => Err(error.into()),
        },
        Kind::Symlink { to } => symlink(destination, to),
        Kind::File {
            sha256,
            from,
            missing,
        } => {
            let mismatch = |_| PutError::Mismatch(destination.clone());
            let wanted = sha256.parse().map_err(mismatch)?;
            file(destination, wanted, from, missing.as_deref())
        }
    }
}

fn symlink(destination: &Path, to: &Path) -> Result<(), PutError> {
    let (parent, name) = Directory::above(destination)?;
    match parent.look(&name)? {
        Found::Symlink(present) if present == to => Ok(()),
        Found::Symlink(_) | Found::Nothing => Ok(parent.put_symlink(&name, to)?),
        Found::File(_) | Found::Directory | Found::Other => {
            Err(PutError::NotSymlink(destination.to_owned()))
        }
    }
}

fn file(
    destination: &Path,
    wanted: Digest,
    from: &Path,
    missing: Option<&str>,
) -> Result<(), PutError> {
    let (parent, name) = Directory::above(destination)?;
    match parent.look(&name)? {
        Found::File(mut present) => {
            let found = copy(&mut present, &mut io::sink());
            if found.map_err(failed("read", destination))? == wanted {
                return Ok(parent.set_mode(&present, &name)?);
            }
        }
        Found::Directory => return Err(PutError::IsDirectory(destination.to_owned())),
        Found::Symlink(_) | Found::Other | Found::Nothing => {}
    }
    if let Some(reason) = missing {
        return Err(PutError::Missing {
            destination: destination.to_owned(),
            reason: reason.to_owned(),
        });
    }
    let mut source = File::open(from).map_err(failed("read", from))?;
    let mut new = parent.begin(&name)?;
    let found = copy(&mut source, new.file()).map_err(failed("write", destination))?;
    if found != wanted {
        return Err(PutError::Mismatch(destination.to_owned()));
    }
    Ok(new.finish()?)
}

/// Copies to the end, and gives the digest of what was copied.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = chunk.get(..length).unwrap_or_default();
        hasher.update(read);
        to.write_all(read)?;
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PutError {
    let path = path.to_path_buf();
    move |source| PutError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
