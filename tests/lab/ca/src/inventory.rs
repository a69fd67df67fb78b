//! What the CA has issued, one line a certificate: `SERIAL CERTNAME valid|revoked`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::{CaError, ssldir};

/// Serials 1 and 2 are those of root and intermediate.
const FIRST_SERIAL: u64 = 3;

/// One issued certificate.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) serial: u64,
    pub(crate) certname: String,
    pub(crate) revoked: bool,
}

/// All issued certificates, in the order of their serials.
#[derive(Debug, Default)]
pub(crate) struct Inventory(Vec<Entry>);

impl Inventory {
    /// Reads the file; none means that nothing was issued yet.
    pub(crate) fn read(path: &Path) -> Result<Self, CaError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let parse = |line: &str| {
            let mut words = line.split(' ');
            Some(Entry {
                serial: words.next()?.parse().ok()?,
                certname: words.next()?.to_owned(),
                revoked: words.next()? == "revoked",
            })
        };
        ssldir::read(path)?
            .lines()
            .enumerate()
            .map(|(index, line)| {
                parse(line).ok_or_else(|| CaError::Inventory {
                    path: path.to_owned(),
                    line: index + 1,
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), CaError> {
        let mut text = String::new();
        for entry in &self.0 {
            let state = if entry.revoked { "revoked" } else { "valid" };
            // Writing to a string cannot fail.
            writeln!(text, "{} {} {state}", entry.serial, entry.certname).unwrap_or_default();
        }
        ssldir::write(path, &text)
    }

    pub(crate) fn next_serial(&self) -> u64 {
        self.0
            .last()
            .map_or(FIRST_SERIAL, |entry| entry.serial.saturating_add(1))
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        self.0.push(entry);
    }

    /// Marks all certificates of a certname; false when there is none.
    pub(crate) fn revoke(&mut self, certname: &str) -> bool {
        let mut found = false;
        for entry in self.0.iter_mut().filter(|e| e.certname == certname) {
            entry.revoked = true;
            found = true;
        }
        found
    }

    pub(crate) fn revoked(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(|entry| entry.revoked)
    }

    pub(crate) fn certnames(&self) -> BTreeSet<&str> {
        self.0.iter().map(|entry| &*entry.certname).collect()
    }
}
