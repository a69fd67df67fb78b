//! The files of a task: which they are, where they are fetched, and their digests.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{ListError, TaskError};
use crate::name::is_name;
use crate::task::{FileUri, TaskFile};

/// How many files a directory in `files` may bring in. Beyond it somebody has named the wrong
/// directory, and every node would fetch it.
const MAX_DIRECTORY_FILES: usize = 10_000;

/// How deep a directory in `files` may nest. File systems allow more; modules do not need it.
const MAX_DIRECTORY_DEPTH: usize = 64;

/// The directories of a module that tasks may take files from.
const MOUNTS: [Mount; 4] = [Mount::Files, Mount::Lib, Mount::Scripts, Mount::Tasks];

/// A file that a task names and that is there, before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) filename: String,
    pub(crate) path: PathBuf,
    pub(crate) uri_path: String,
}

/// A directory of a module that tasks may take files from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mount {
    Files,
    Lib,
    Scripts,
    Tasks,
}

impl Mount {
    fn directory(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Lib => "lib",
            Self::Scripts => "scripts",
            Self::Tasks => "tasks",
        }
    }

    /// Where Puppet Server serves the content. Plugins of all modules share one place.
    fn uri_path(self, module: &str, path: &str) -> String {
        let base = "/puppet/v3/file_content";
        match self {
            Self::Files => format!("{base}/modules/{module}/{path}"),
            Self::Lib => format!("{base}/plugins/{path}"),
            Self::Scripts => format!("{base}/scripts/{module}/{path}"),
            Self::Tasks => format!("{base}/tasks/{module}/{path}"),
        }
    }
}

impl Located {
    /// The executable `file` of `module`, at `path`.
    pub(crate) fn executable(
        root: &Path,
        module: &str,
        file: &str,
        path: PathBuf,
    ) -> Result<Self, TaskError> {
        within(root, module, &path)?;
        let uri_path = Mount::Tasks.uri_path(module, file);
        Ok(Self {
            filename: file.to_owned(),
            path,
            uri_path,
        })
    }

    /// Reads the file through and makes its entry.
    pub(crate) fn digest(self, environment: &str) -> Result<TaskFile, TaskError> {
        let (sha256, size_bytes) =
            digest(&self.path).map_err(|source| unreadable(&self.path, source))?;
        let params = Map::from_iter([("environment".to_owned(), Value::from(environment))]);
        Ok(TaskFile {
            filename: self.filename,
            path: self.path,
            sha256,
            size_bytes,
            uri: FileUri {
                path: self.uri_path,
                params,
            },
        })
    }
}

/// Finds the support files that `entries` (of `files`) name, in their order, each entry once. `find` tells
/// where a module is.
pub(crate) fn locate<'a>(
    find: impl Fn(&str) -> Result<Option<PathBuf>, ListError>,
    entries: impl Iterator<Item = &'a String>,
) -> Result<Vec<Located>, TaskError> {
    let mut located = Vec::new();
    let mut seen = Vec::new();
    for entry in entries {
        if !seen.contains(&entry) {
            seen.push(entry);
            locate_entry(&find, entry, &mut located)?;
        }
    }
    Ok(located)
}

fn locate_entry(
    find: impl Fn(&str) -> Result<Option<PathBuf>, ListError>,
    entry: &str,
    located: &mut Vec<Located>,
) -> Result<(), TaskError> {
    let mut parts = entry.splitn(3, '/');
    let module = parts.next().unwrap_or_default();
    let mount = parts.next().unwrap_or_default();
    let path = parts.next().unwrap_or_default();
    let found = if is_name(module) { find(module)? } else { None };
    let Some(root) = found else {
        return Err(TaskError::metadata(format!(
            "Could not find module {module} containing task file {path}"
        )));
    };
    let Some(mount) = MOUNTS.into_iter().find(|known| known.directory() == mount) else {
        return Err(TaskError::metadata(format!(
            "Files must be saved in module directories that Puppet makes available via mount points: {}",
            MOUNTS.map(Mount::directory).join(", ")
        )));
    };
    let is_directory_entry = entry.ends_with('/');
    let inner = path.strip_suffix('/').unwrap_or(path);
    let relative = inner
        .split('/')
        .any(|part| matches!(part, "." | "..") || part.contains('\0'))
        || (inner.contains("//") || inner.starts_with('/') || inner.ends_with('/'));
    if relative {
        return Err(TaskError::metadata(
            "File pathnames cannot include relative paths",
        ));
    }
    let directory = root.join(mount.directory());
    let full = if inner.is_empty() {
        directory
    } else {
        directory.join(inner)
    };
    within(&root, module, &full)?;
    let kind = fs::metadata(&full).map_err(|source| unreadable(&full, source))?;
    match (kind.is_dir(), is_directory_entry) {
        (true, true) => walk(&root, module, mount, &full, inner, located),
        (true, false) => Err(TaskError::metadata(format!(
            "Directories specified in task metadata must include a trailing slash: {entry}"
        ))),
        (false, true) => Err(TaskError::metadata(format!(
            "Files specified in task metadata cannot include a trailing slash: {entry}"
        ))),
        (false, false) if !kind.is_file() => Err(TaskError::file(format!(
            "{} is neither a file nor a directory",
            full.display()
        ))),
        (false, false) => {
            located.push(support_file(module, mount, inner, full));
            Ok(())
        }
    }
}

fn support_file(module: &str, mount: Mount, inner: &str, path: PathBuf) -> Located {
    Located {
        filename: format!("{module}/{}/{inner}", mount.directory()),
        path,
        uri_path: mount.uri_path(module, inner),
    }
}

/// Every file below a directory, by name. As Puppet's glob does, it leaves out what begins with a
/// dot and does not walk into linked directories.
fn walk(
    root: &Path,
    module: &str,
    mount: Mount,
    directory: &Path,
    inner: &str,
    located: &mut Vec<Located>,
) -> Result<(), TaskError> {
    let mut open = vec![(directory.to_owned(), inner.to_owned(), 0)];
    let mut found = Vec::new();
    while let Some((directory, inner, depth)) = open.pop() {
        if depth > MAX_DIRECTORY_DEPTH {
            return Err(TaskError::file(format!(
                "{} nests deeper than {MAX_DIRECTORY_DEPTH} directories",
                directory.display()
            )));
        }
        let entries = fs::read_dir(&directory).map_err(|source| unreadable(&directory, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| unreadable(&directory, source))?;
            let path = entry.path();
            // A name that is not UTF-8 can be named neither in JSON nor in a URI.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let inner = if inner.is_empty() {
                name
            } else {
                format!("{inner}/{name}")
            };
            let kind = entry
                .file_type()
                .map_err(|source| unreadable(&path, source))?;
            if kind.is_dir() {
                open.push((path, inner, depth + 1));
            } else if fs::metadata(&path).is_ok_and(|target| target.is_file()) {
                within(root, module, &path)?;
                found.push(support_file(module, mount, &inner, path));
            }
            if found.len() > MAX_DIRECTORY_FILES {
                return Err(TaskError::file(format!(
                    "{} has more than {MAX_DIRECTORY_FILES} files",
                    directory.display()
                )));
            }
        }
    }
    found.sort_by(|a, b| a.filename.cmp(&b.filename));
    located.append(&mut found);
    Ok(())
}

/// Refuses a path that a symbolic link takes out of its module: a module may share its own files
/// with the nodes, not those of the machine it lies on.
pub(crate) fn within(root: &Path, module: &str, path: &Path) -> Result<(), TaskError> {
    let resolve = |path: &Path| {
        path.canonicalize()
            .map_err(|source| unreadable(path, source))
    };
    if resolve(path)?.starts_with(resolve(root)?) {
        Ok(())
    } else {
        Err(TaskError::file(format!(
            "{} leads out of the module {module}",
            path.display()
        )))
    }
}

fn unreadable(path: &Path, source: io::Error) -> TaskError {
    if source.kind() == io::ErrorKind::NotFound {
        TaskError::file(format!("Could not find {} on disk", path.display()))
    } else {
        let message = format!("could not read {}", path.display());
        TaskError::InvalidFile {
            message,
            source: Some(source),
        }
    }
}

/// The SHA-256 and the size of a file, read in pieces.
fn digest(path: &Path) -> io::Result<(String, u64)> {
    const PIECE: usize = 64 * 1024; // what the page cache hands over at once
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(piece.get(..read).unwrap_or_default());
                size += u64::try_from(read).unwrap_or(u64::MAX);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let hex = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((hex, size))
}
