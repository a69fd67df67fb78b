//! Where certificate, key, CA and CRLs lie, and how far revocation is checked.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use pcp::Certname;

/// The files that make an identity. All are PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, followed by any intermediates that peers lack.
    pub cert: PathBuf,
    /// Its private key: PKCS#1, PKCS#8 or SEC1, not encrypted.
    pub key: PathBuf,
    /// The CA's certificates: root and intermediates, in any order.
    pub ca: PathBuf,
    /// The revocation lists of all CAs of the chain; needed unless `revocation` is `None`.
    pub crl: Option<PathBuf>,
    /// How far revocation is checked.
    pub revocation: Revocation,
}

/// How far revocation is checked: Puppet's `certificate_revocation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revocation {
    /// Every certificate of the chain below the root needs a CRL that does not list it.
    #[default]
    Chain,
    /// Only the peer's own certificate is looked up.
    Leaf,
    /// Revocation is not checked, and no CRL is read.
    None,
}

/// The text is not one of the three words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of \"chain\", \"leaf\", \"none\"")]
pub struct ParseRevocationError(pub String);

impl Files {
    /// The files of `certname` in Puppet's layout, with revocation checked for the whole chain.
    #[must_use]
    pub fn from_ssldir(ssldir: &Path, certname: &Certname) -> Self {
        let pem = format!("{certname}.pem");
        Self {
            cert: ssldir.join("certs").join(&pem),
            key: ssldir.join("private_keys").join(&pem),
            ca: ssldir.join("certs/ca.pem"),
            crl: Some(ssldir.join("crl.pem")),
            revocation: Revocation::Chain,
        }
    }
}

impl FromStr for Revocation {
    type Err = ParseRevocationError;

    fn from_str(text: &str) -> Result<Self, ParseRevocationError> {
        match text {
            "chain" => Ok(Self::Chain),
            "leaf" => Ok(Self::Leaf),
            "none" => Ok(Self::None),
            _ => Err(ParseRevocationError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Revocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Leaf => "leaf",
            Self::None => "none",
        })
    }
}
