//! `file download`: files, directories and symbolic links are put on the node. What is asked is
//! checked here; the process that does it, [`put`], is this very program below the execution wrapper,
//! so that it writes with the rights and in the profile that the policy gives the action.

pub mod put;
mod tree;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use pxp::{DownloadEntry, FileDownload, Wishes};
use sandbox::Delivery;

use super::launch::{Launch, Place};
use super::source::{self, Source, SourceError};
use put::{Entry, Kind, Work};

/// What the module is called in requests.
pub const MODULE: &str = "file";

/// What its only action is called.
pub const ACTION: &str = "download";

/// The most entries of a request: a directory tree with more is an archive's business.
const MAX_ENTRIES: usize = 10_000;

/// The longest path that Linux takes (`PATH_MAX`), its NUL included.
const MAX_PATH: usize = 4096;

/// What every file is called in the cache: by content, whatever its destinations are called.
const CACHED: &str = "content";

/// A download that can be carried out.
#[derive(Debug)]
pub struct Download {
    entries: Vec<Wanted>,
    environments: Vec<String>,
    wishes: Wishes,
}

/// One entry, and what it must contain if it is a file.
#[derive(Debug)]
struct Wanted {
    destination: PathBuf,
    what: What,
}

#[derive(Debug)]
enum What {
    File(Source),
    Directory,
    Symlink(PathBuf),
}

/// Why a download cannot be carried out as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// There are too many entries.
    #[error("the request has {0} entries, more than {MAX_ENTRIES}")]
    TooMany(usize),
    /// A destination is no place for a file.
    #[error(
        "the destination {0:?} is refused: it must be an absolute path below /, of less than {MAX_PATH} \
         bytes, without \"..\" and NUL"
    )]
    Destination(String),
    /// What a link is to point to is no path.
    #[error("the link_source {0:?} is refused: it must have 1 to 4095 bytes, none of them NUL")]
    LinkSource(String),
    /// There is no such kind.
    #[error("Not a valid file type! {0}")]
    Kind(String),
    /// A file's digest is not one.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl Download {
    /// Checks a download, all of it, before anything is done.
    ///
    /// # Errors
    /// [`DownloadError`] for the first entry that cannot be had.
    pub fn new(asked: FileDownload) -> Result<Self, DownloadError> {
        if asked.files.len() > MAX_ENTRIES {
            return Err(DownloadError::TooMany(asked.files.len()));
        }
        let files = asked.files.iter().filter(|entry| entry.kind == "file");
        let environments = source::environments(files.map(|entry| &entry.uri));
        let entries = asked.files.into_iter().map(Wanted::new);
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            environments,
            wishes: asked.pxp_mesh.unwrap_or_default(),
        })
    }

    /// Where the first entry goes, for an operator's eyes.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.entries.first()?.destination.to_str()
    }

    /// What is asked beyond the entries.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.wishes.clone()
    }

    /// The environments that the files are of, as the requester says.
    #[must_use]
    pub fn environments(&self) -> Vec<String> {
        self.environments.clone()
    }

    /// The files, and where they must lie below the staging directory. One that lies at its
    /// destination already may be missing there.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, &Source)> {
        let entries = self.entries.iter().enumerate();
        let files = entries.filter_map(|(index, entry)| match &entry.what {
            What::File(source) => Some((staged(index), source)),
            What::Directory | What::Symlink(_) => None,
        });
        files.collect()
    }

    /// How the process is started that does it.
    #[must_use]
    pub fn launch(&self, place: &Place<'_>) -> Launch {
        let entries = self.entries.iter().enumerate();
        let work = Work {
            entries: entries
                .map(|(index, entry)| entry.to_put(&staged(index), place.staging, place.missing))
                .collect(),
        };
        Launch {
            program: place.agent.to_path_buf(),
            arguments: ["module", MODULE, ACTION].map(str::to_owned).into(),
            delivery: Delivery {
                stdin: pxp::write(&work),
                ..Delivery::default()
            },
        }
    }
}

impl Wanted {
    fn new(entry: DownloadEntry) -> Result<Self, DownloadError> {
        let what = match &*entry.kind {
            "file" => What::File(Source {
                digest: source::digest(&entry.sha256, &entry.destination)?,
                name: CACHED.to_owned(),
                size: None,
                uri: entry.uri,
            }),
            "directory" => What::Directory,
            "symlink" => What::Symlink(link_source(entry.link_source)?),
            _ => return Err(DownloadError::Kind(entry.kind)),
        };
        Ok(Self {
            destination: destination(&entry.destination)?,
            what,
        })
    }

    fn to_put(&self, staged: &Path, staging: &Path, missing: &BTreeMap<PathBuf, String>) -> Entry {
        Entry {
            destination: self.destination.clone(),
            kind: match &self.what {
                What::File(source) => Kind::File {
                    sha256: source.digest.to_string(),
                    from: staging.join(staged),
                    missing: missing.get(staged).cloned(),
                },
                What::Directory => Kind::Directory,
                What::Symlink(to) => Kind::Symlink { to: to.clone() },
            },
        }
    }
}

fn staged(index: usize) -> PathBuf {
    PathBuf::from(index.to_string())
}

fn destination(text: &str) -> Result<PathBuf, DownloadError> {
    let path = Path::new(text);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let fits = path.is_absolute()
        && text.len() < MAX_PATH
        && !text.contains('\0')
        && path.file_name().is_some()
        && path.components().all(plain);
    if fits {
        // Without doubled slashes and single dots.
        Ok(path.components().collect())
    } else {
        Err(DownloadError::Destination(text.to_owned()))
    }
}

fn link_source(text: String) -> Result<PathBuf, DownloadError> {
    if text.is_empty() || text.len() >= MAX_PATH || text.contains('\0') {
        Err(DownloadError::LinkSource(text))
    } else {
        Ok(PathBuf::from(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::modules::launch::{Kind, Node};

    fn download(kind: &str, destination: &str, link: &str) -> Result<Download, DownloadError> {
        let entry = json!({
            "destination": destination,
            "link_source": link,
            "uri": {"path": "/x", "params": {"environment": "production"}},
            "sha256": if kind == "file" { "AB".repeat(32) } else { String::new() },
            "kind": kind,
        });
        Download::new(serde_json::from_value(json!({"files": [entry]})).unwrap())
    }

    #[test]
    fn a_destination_is_an_absolute_path_that_does_not_go_up() {
        for hostile in [
            "",
            "/",
            "//",
            "x",
            "./x",
            "../x",
            "/a/../etc/passwd",
            "/..",
            "/a/..",
            "/a\0b",
            &format!("/{}", "x".repeat(MAX_PATH)),
        ] {
            for kind in ["file", "directory", "symlink"] {
                let error = download(kind, hostile, "/to").unwrap_err();
                assert!(
                    matches!(error, DownloadError::Destination(_)),
                    "{hostile:?}: {error}"
                );
            }
        }
        let plain = download("directory", "/srv//a/./b/", "").unwrap();
        assert_eq!(plain.subject(), Some("/srv/a/b"));
    }

    #[test]
    fn each_kind_is_checked_for_what_it_needs() {
        let text = download("fifo", "/x", "").unwrap_err().to_string();
        assert_eq!(text, "Not a valid file type! fifo");
        for link in ["", "a\0"] {
            let error = download("symlink", "/x", link).unwrap_err();
            assert_eq!(error, DownloadError::LinkSource(link.to_owned()));
        }
        let file = download("file", "/srv/x", "").unwrap();
        assert_eq!(file.environments(), ["production"]);
        assert_eq!(file.files().len(), 1);
        assert!(
            download("directory", "/srv", "")
                .unwrap()
                .files()
                .is_empty()
        );
    }

    #[test]
    fn a_file_that_could_not_be_had_is_left_to_the_process_that_may_find_it_there() {
        let download = download("file", "/srv/x", "").unwrap();
        let missing = BTreeMap::from([(PathBuf::from("0"), "no source".to_owned())]);
        let place = Place {
            staging: Path::new("/staging"),
            shell: Path::new("/bin/sh"),
            agent: Path::new("/agent"),
            kind: Kind::NonBlocking,
            missing: &missing,
            node: &Node::example(),
        };
        let launch = download.launch(&place);
        assert_eq!(launch.program, Path::new("/agent"));
        assert_eq!(launch.arguments, ["module", "file", "download"]);
        let work: serde_json::Value = serde_json::from_slice(&launch.delivery.stdin).unwrap();
        assert_eq!(work["entries"][0]["kind"]["file"]["missing"], "no source");
        assert_eq!(work["entries"][0]["kind"]["file"]["from"], "/staging/0");
    }
}
