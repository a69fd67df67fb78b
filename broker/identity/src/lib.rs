//! Puppet certificates: from an ssldir to TLS configurations and the certname of a verified peer.
//!
//! The only crate that builds rustls configurations, so that one place decides who is trusted:
//! [`Files`] say where the certificates lie, [`Identity`] is what was found there and checked, and
//! the configurations it makes verify every peer's chain, revocation and name. [`Current`] holds an
//! identity that can be replaced while the process runs.
//!
//! One crypto provider (aws-lc-rs) is passed explicitly; the process default is never used.

mod error;
mod files;
mod identity;
mod trust;
mod verify;

use arc_swap::ArcSwap;
use pcp::Certname;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

pub use error::{IdentityError, NameError};
pub use files::{Files, ParseRevocationError, Revocation};
pub use identity::{Identity, TlsVersions};

/// The identity in use. Whoever opens connections asks for it each time and thereby follows a
/// replacement; connections that stand keep the one they were made with.
#[derive(Debug)]
pub struct Current(ArcSwap<Identity>);

impl Current {
    /// Begins with `identity`.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self(ArcSwap::from_pointee(identity))
    }

    /// The identity as of now.
    #[must_use]
    pub fn get(&self) -> Arc<Identity> {
        self.0.load_full()
    }

    /// Uses `identity` from now on.
    pub fn replace(&self, identity: Identity) {
        self.0.store(Arc::new(identity));
    }
}

/// Whose certificate a peer has shown: the CN of the first certificate. Only meaningful for the
/// chain of a finished handshake, which has been verified.
///
/// # Errors
/// When there is no certificate, or its subject does not have exactly one CN that is a certname.
pub fn peer_certname(certs: &[CertificateDer<'_>]) -> Result<Certname, IdentityError> {
    let leaf = certs.first().ok_or(IdentityError::NoPeerCertificate)?;
    identity::common_name(leaf).map_err(IdentityError::PeerName)
}

#[cfg(test)]
mod tests;
