//! Configuration files: HOCON, one file or all `*.conf` of a directory merged in the order of their
//! names. A key that two of them set differently is a fault that names both places, as it is for
//! Puppet's services: nobody should have to know which name sorts last. Everything that is wrong is
//! found in one go and reported with file, line and key: a [`Fault`] each.
//!
//! What may be written is a struct whose fields are all optional (serde, `rename_all =
//! "kebab-case"`); a key that no field stands for is a fault with the nearest known key as a hint.
//! What is meant is made of it by the daemon's own `resolve`, which adds its faults to the same list.

mod decode;
mod faults;
mod places;
mod units;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use hocon::parser::parse_tokens;
use hocon::{
    Config, HoconError, HoconValue, ParseOptions, ResolveOptions, ScalarValue, Token, TokenKind,
};
use serde::de::DeserializeOwned;

pub use faults::{Fault, refuse};
pub use units::{Lasting, Size, UnitError, bytes, duration};

use places::Places;

/// How deeply a file's values may be nested. Ours have six levels.
const MAX_DEPTH: usize = 64;

/// Reads a whole configuration: [`Source::read`] and [`Source::decode`] in one.
///
/// # Errors
/// All faults that were found.
pub fn load<T>(path: &Path, section: Option<&str>) -> Result<T, Vec<Fault>>
where
    T: DeserializeOwned + Default,
{
    let source = Source::read(path)?;
    let mut faults = Vec::new();
    let file = source.decode(section, &mut faults);
    if faults.is_empty() {
        Ok(file)
    } else {
        Err(faults)
    }
}

/// What was read, and where each key stands.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    root: HoconValue,
    places: Places,
}

impl Source {
    /// Reads a file, or all `*.conf` of a directory.
    ///
    /// # Errors
    /// A fault for each file that cannot be read or is not HOCON, and for each key that two files
    /// set differently.
    pub fn read(path: &Path) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut places = Places::default();
        let mut merged: Option<Config> = None;
        for file in files(path).map_err(|fault| vec![fault])? {
            match read_file(&file, &mut places) {
                Ok(config) => {
                    merged = Some(match merged {
                        Some(earlier) => config.with_fallback(&earlier),
                        None => config,
                    });
                }
                Err(fault) => faults.push(fault),
            }
        }
        faults.append(&mut places.conflicts);
        if !faults.is_empty() {
            return Err(faults);
        }
        // A reference may be answered by another file, so they are resolved when all are known.
        let config = merged
            .unwrap_or_else(|| hocon::empty(None))
            .resolve(ResolveOptions::defaults())
            .map_err(|error| vec![syntax(path, &error)])?;
        let root = config
            .keys()
            .into_iter()
            .filter_map(|key| {
                let value = config.get(&faults::quoted(key))?;
                Some((key.to_owned(), value.clone()))
            })
            .collect();
        Ok(Self {
            path: path.to_owned(),
            root: HoconValue::Object(root),
            places,
        })
    }

    /// A file in which nothing is written.
    #[must_use]
    pub fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            root: HoconValue::Object(std::iter::empty().collect()),
            places: Places::default(),
        }
    }

    /// Sets a key to what the command line gave for it, which counts before the file's.
    pub fn set(&mut self, key: &str, value: &str) {
        self.insert(key, scalar(value));
    }

    /// The same for a list.
    pub fn set_list(&mut self, key: &str, values: &[String]) {
        let values = values.iter().map(|value| scalar(value)).collect();
        self.insert(key, HoconValue::Array(values));
    }

    fn insert(&mut self, key: &str, value: HoconValue) {
        if let HoconValue::Object(root) = &mut self.root {
            root.insert(key.to_owned(), value);
        }
        self.places.given(key);
    }

    /// The fault that there is no such file.
    #[must_use]
    pub fn missing(&self) -> Fault {
        Fault::of_file(&self.path, "there is no such file")
    }

    /// The file or directory that was read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole document as a `T`, or one section of it (which may be missing). Unknown keys and
    /// values of a wrong kind are added to `faults` and left out of the result.
    pub fn decode<T>(&self, section: Option<&str>, faults: &mut Vec<Fault>) -> T
    where
        T: DeserializeOwned + Default,
    {
        let prefix: Vec<String> = section.iter().map(|name| (*name).to_owned()).collect();
        let value = match section {
            None => Some(&self.root),
            Some(name) => self.root.as_object().and_then(|root| root.get(name)),
        };
        let Some(value) = value else {
            return T::default();
        };
        let decoded = decode::decode(value, &prefix);
        for wrong in decoded.wrong {
            faults.push(self.place(&wrong.path, wrong.problem, wrong.hint));
        }
        decoded.value.unwrap_or_default()
    }

    /// A fault of a key that is written with dots, found after decoding: `pcp-broker.listen`. It
    /// stands at the key's line, or that of the section it is missing from.
    #[must_use]
    pub fn fault(&self, key: &str, problem: impl Display) -> Fault {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        self.place(&path, problem.to_string(), None)
    }

    /// The keys of the whole document, or of a section that is written with dots, in the order of
    /// their names: for keys that are told about but not decoded.
    #[must_use]
    pub fn keys(&self, section: Option<&str>) -> Vec<String> {
        let parts = section.iter().flat_map(|name| name.split('.'));
        let mut value = Some(&self.root);
        for part in parts {
            value = value
                .and_then(HoconValue::as_object)
                .and_then(|object| object.get(part));
        }
        let mut keys: Vec<String> = value
            .and_then(HoconValue::as_object)
            .into_iter()
            .flat_map(|object| object.keys().cloned())
            .collect();
        keys.sort();
        keys
    }

    fn place(&self, key: &[String], problem: String, hint: Option<String>) -> Fault {
        let place = self.places.nearest(key);
        Fault {
            file: place.map_or_else(|| self.path.clone(), |place| place.file.clone()),
            line: place.and_then(|place| place.line),
            key: faults::dotted(key),
            problem,
            hint,
        }
    }
}

fn scalar(text: &str) -> HoconValue {
    HoconValue::Scalar(ScalarValue::string(text.to_owned()))
}

/// The first of these that is there; the very first, when none is.
#[must_use]
pub fn first_of(places: &[&str]) -> PathBuf {
    let there = places.iter().find(|place| Path::new(place).exists());
    there
        .or(places.first())
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// The files that a configuration consists of: the file itself, or the `*.conf` of a directory, sorted.
///
/// # Errors
/// When the directory cannot be listed, or holds none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Fault> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error: std::io::Error| {
            Fault::of_file(path, format!("cannot be read: {error}"))
        })?;
    let mut files: Vec<PathBuf> = entries;
    files.retain(|file| file.extension().is_some_and(|end| end == "conf"));
    files.sort();
    if files.is_empty() {
        return Err(Fault::of_file(path, "holds no *.conf file"));
    }
    Ok(files)
}

fn read_file(file: &Path, places: &mut Places) -> Result<Config, Fault> {
    let text = fs::read_to_string(file)
        .map_err(|error| Fault::of_file(file, format!("cannot be read: {error}")))?;
    let tokens = hocon::tokenize(&text).map_err(|error| syntax(file, &error.into()))?;
    check_depth(&tokens, file)?;
    let tree = parse_tokens(&tokens).map_err(|error| syntax(file, &error.into()))?;
    places.note(&tree, file);
    let mut options = ParseOptions::defaults().with_resolve_substitutions(false);
    if let Some(dir) = file.parent() {
        options = options.with_base_dir(dir.to_owned());
    }
    hocon::parse_string_with_options(&text, options).map_err(|error| syntax(file, &error))
}

/// Refuses what is nested so deeply that following it could take more stack than there is: the parser
/// calls itself for each level, those that dots in a key make among them.
fn check_depth(tokens: &[Token], file: &Path) -> Result<(), Fault> {
    let (mut depth, mut dots) = (0_usize, 0);
    for token in tokens {
        match token.kind {
            TokenKind::LBrace | TokenKind::LBracket => depth += 1,
            TokenKind::RBrace | TokenKind::RBracket => depth = depth.saturating_sub(1),
            TokenKind::Unquoted => dots += token.value.matches('.').count(),
            _ => {}
        }
        if !matches!(token.kind, TokenKind::Unquoted | TokenKind::QuotedString) {
            dots = 0;
        }
        if depth + dots > MAX_DEPTH {
            let problem = format!("is nested more than {MAX_DEPTH} levels deep");
            return Err(Fault {
                line: u32::try_from(token.line).ok(),
                ..Fault::of_file(file, problem)
            });
        }
    }
    Ok(())
}

/// The parser's error as a fault. It may stand in an included file, which the parser does not name.
fn syntax(file: &Path, error: &HoconError) -> Fault {
    let (line, problem) = match error {
        HoconError::Parse(error) => (Some(error.line), error.message.clone()),
        HoconError::Resolve(error) => (
            Some(error.line),
            format!("{}: {}", error.path, error.message),
        ),
        other => (None, other.to_string()),
    };
    Fault {
        line: line
            .filter(|_| !file.is_dir())
            .and_then(|line| u32::try_from(line).ok()),
        ..Fault::of_file(file, problem)
    }
}

#[cfg(test)]
mod tests;
