//! Where the files of one certname lie, in the layout of Puppet's ssldir, and how they are written:
//! beside and renamed, so that a process that reloads never sees half a file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::{CaError, file};

/// The ssldir of one certname.
#[derive(Debug, Clone)]
pub struct SslDir {
    /// The directory itself.
    pub dir: PathBuf,
    /// Whose certificate it holds.
    pub certname: String,
}

impl SslDir {
    /// The certificate: `certs/CERTNAME.pem`.
    #[must_use]
    pub fn cert(&self) -> PathBuf {
        self.dir.join(format!("certs/{}.pem", self.certname))
    }

    /// The private key, readable by its owner only: `private_keys/CERTNAME.pem`.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.join(format!("private_keys/{}.pem", self.certname))
    }

    /// The CA's certificates: `certs/ca.pem`.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("certs/ca.pem")
    }

    /// The CA's revocation lists: `crl.pem`.
    #[must_use]
    pub fn crl(&self) -> PathBuf {
        self.dir.join("crl.pem")
    }

    pub(crate) fn make(&self) -> Result<(), CaError> {
        make_dir(&self.dir.join("certs"))?;
        make_dir(&self.dir.join("private_keys"))
    }
}

pub(crate) fn make_dir(path: &Path) -> Result<(), CaError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(|source| file("create", path, source))
}

pub(crate) fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| file("read", path, source))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), CaError> {
    write_with_mode(path, text, 0o644)
}

pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), CaError> {
    write_with_mode(path, text, 0o600)
}

fn write_with_mode(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let beside = path.with_extension("new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| file("write", path, source))
}
