//! A file that an action needs: what it must contain, and where it can be had.

use std::collections::BTreeSet;

use pcp::Digest;
use pxp::{FileUri, TaskFile};

use super::path::{InvalidPath, RelativePath};

/// One file, as content and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it must contain.
    pub digest: Digest,
    /// Its own name.
    pub name: String,
    /// Its size in bytes, if the request says so.
    pub size: Option<u64>,
    /// Where a Puppet Server has it, should no broker have it.
    pub uri: FileUri,
}

/// Why a file of a request cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Its name or path leads elsewhere.
    #[error("the file name {name:?} is refused: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: InvalidPath,
    },
    /// Its digest is not one.
    #[error("the sha256 of the file {0:?} is not 64 hexadecimal digits")]
    Digest(String),
}

impl Source {
    /// A file whose name is a plain one.
    ///
    /// # Errors
    /// [`SourceError`] when the name is a path, or the digest is none.
    pub fn plain(file: &TaskFile) -> Result<Self, SourceError> {
        let name = RelativePath::component(&file.filename).map_err(refused(&file.filename))?;
        Self::named(file, name)
    }

    /// A file of which only the last part of its name counts, as in the original.
    ///
    /// # Errors
    /// [`SourceError`] when that part cannot be the name of a file, or the digest is none.
    pub fn last_part(file: &TaskFile) -> Result<Self, SourceError> {
        let last = file.filename.rsplit('/').next().unwrap_or_default();
        let name = RelativePath::component(last).map_err(refused(&file.filename))?;
        Self::named(file, name)
    }

    /// A file whose name is a path below a module, and that path.
    ///
    /// # Errors
    /// [`SourceError`] when the path leads elsewhere, or the digest is none.
    pub fn at_path(file: &TaskFile) -> Result<(RelativePath, Self), SourceError> {
        let path = RelativePath::parse(&file.filename).map_err(refused(&file.filename))?;
        let source = Self::named(file, path.name())?;
        Ok((path, source))
    }

    fn named(file: &TaskFile, name: &str) -> Result<Self, SourceError> {
        Ok(Self {
            digest: digest(&file.sha256, &file.filename)?,
            name: name.to_owned(),
            size: file.size_bytes,
            uri: file.uri.clone(),
        })
    }
}

/// The digest of the file of this name.
///
/// # Errors
/// [`SourceError::Digest`].
pub fn digest(sha256: &str, name: &str) -> Result<Digest, SourceError> {
    let digest = sha256.parse();
    digest.map_err(|_| SourceError::Digest(name.to_owned()))
}

/// The environments that files are of, as the requester says.
pub fn environments<'a>(uris: impl Iterator<Item = &'a FileUri>) -> Vec<String> {
    let named = uris.filter_map(|uri| uri.params.get("environment")?.as_str());
    let named: BTreeSet<_> = named.collect();
    named.into_iter().map(str::to_owned).collect()
}

fn refused(name: &str) -> impl FnOnce(InvalidPath) -> SourceError {
    let name = name.to_owned();
    move |reason| SourceError::Name { name, reason }
}
