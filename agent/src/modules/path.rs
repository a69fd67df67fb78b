//! Names and paths of files in a request: hostile until parsed, component by component.

use std::fmt;
use std::path::PathBuf;

/// The longest name of a file on Linux.
const MAX_COMPONENT: usize = 255;

/// The longest path below a staging directory, well within Linux's 4096 for the whole path.
const MAX_PATH: usize = 2048;

/// The least parts of a support file's path: module, mount and file.
const MIN_COMPONENTS: usize = 3;

/// A path that stays below the directory that it is joined to: `module/mount/path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelativePath(String);

/// What is wrong with a name or path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPath {
    /// It, or a part of it, is empty.
    Empty,
    /// A part is `.` or `..`.
    Dots,
    /// It has a character that no file name has.
    Character,
    /// It is too long.
    TooLong,
    /// It has too few parts to be a support file.
    TooShort,
}

impl RelativePath {
    /// Parses the path of a support file.
    ///
    /// # Errors
    /// [`InvalidPath`] when it could lead anywhere else, or is no such path.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        if text.len() > MAX_PATH {
            return Err(InvalidPath::TooLong);
        }
        let mut components = 0;
        for component in text.split('/') {
            Self::component(component)?;
            components += 1;
        }
        if components < MIN_COMPONENTS {
            return Err(InvalidPath::TooShort);
        }
        Ok(Self(text.to_owned()))
    }

    /// Checks one name.
    ///
    /// # Errors
    /// [`InvalidPath`] when it cannot be the plain name of a file.
    pub fn component(text: &str) -> Result<&str, InvalidPath> {
        match text {
            "" => Err(InvalidPath::Empty),
            "." | ".." => Err(InvalidPath::Dots),
            _ if text.len() > MAX_COMPONENT => Err(InvalidPath::TooLong),
            _ if text.contains('/') || text.chars().any(char::is_control) => {
                Err(InvalidPath::Character)
            }
            _ => Ok(text),
        }
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path, to be joined to a directory.
    #[must_use]
    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a part of it is empty",
            Self::Dots => "it has a part \".\" or \"..\"",
            Self::Character => "it has a control character, or '/' where no path is allowed",
            Self::TooLong => "it is too long",
            Self::TooShort => "a support file is named MODULE/MOUNT/PATH",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for text in [
            "",
            "/",
            "/etc/passwd",
            "a",
            "a/b",
            "a//b",
            "a/b/",
            "../a/b",
            "a/../b/c",
            "a/./b/c",
            "a/b/..",
            "a/b/c\0",
            "a/b/c\n",
            "./a/b",
        ] {
            assert!(RelativePath::parse(text).is_err(), "{text:?}");
        }
        for text in ["", ".", "..", "a/b", "a\0", "\u{7f}", &"x".repeat(256)] {
            assert!(RelativePath::component(text).is_err(), "{text:?}");
        }
        for text in [
            "a/b/c",
            "mod/files/deep/er/x.tar.gz",
            "mod/lib/...",
            "m/f/ä ö",
        ] {
            assert!(RelativePath::parse(text).is_ok(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_never_leaves_its_directory(text in "[a./\\x00\\-]{0,12}|.{0,20}") {
            if let Ok(path) = RelativePath::parse(&text) {
                let path = path.to_path_buf();
                prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))));
                let joined = Path::new("/base").join(&path);
                prop_assert_eq!(joined.to_string_lossy(), format!("/base/{text}"));
            }
        }
    }
}
