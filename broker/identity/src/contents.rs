//! The bytes of an identity's files, read in one go: what is checked is what was read, also while
//! somebody replaces the files one after the other.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::{Files, IdentityError, Revocation};

/// What the files hold.
pub(crate) struct Contents {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) ca: Vec<u8>,
    /// Empty when revocation is not checked.
    pub(crate) crl: Vec<u8>,
}

/// A number for each file's bytes, so that neither a key nor a large CRL is kept to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u64; 4]);

/// What the file system says of each file. It changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamps([Option<(u64, u64, i64, i64)>; 4]);

/// The files' names in our logs, in the order of fingerprints and stamps.
const NAMES: [&str; 4] = ["certificate", "key", "CA", "CRL"];

impl Contents {
    /// Reads all files that count.
    pub(crate) fn read(files: &Files) -> Result<Self, IdentityError> {
        Ok(Self {
            cert: read(&files.cert)?,
            key: read(&files.key)?,
            ca: read(&files.ca)?,
            crl: match (files.revocation, &files.crl) {
                (Revocation::None, _) => Vec::new(),
                (Revocation::Chain | Revocation::Leaf, Some(crl)) => read(crl)?,
                (Revocation::Chain | Revocation::Leaf, None) => return Err(IdentityError::NoCrl),
            },
        })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint([&self.cert, &self.key, &self.ca, &self.crl].map(|bytes| {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            hasher.finish()
        }))
    }
}

impl Fingerprint {
    /// The names of the files that differ.
    pub(crate) fn changes(&self, before: &Self) -> String {
        let pairs = NAMES.iter().zip(self.0.iter().zip(before.0));
        let changed = pairs.filter(|(_, (now, before))| *now != before);
        changed
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Stamps {
    pub(crate) fn of(files: &Files) -> Self {
        let stamp = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            Some((metadata.ino(), metadata.size(), changed.0, changed.1))
        };
        let crl = files.crl.as_deref().and_then(stamp);
        Self([stamp(&files.cert), stamp(&files.key), stamp(&files.ca), crl])
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}
