//! Puppet certificates: from an ssldir to TLS configurations and the certname of a verified peer.
//!
//! The only crate that builds rustls configurations, so that one place decides who is trusted:
//! [`Files`] say where the certificates lie, [`Identity`] is what was found there and checked, and
//! the configurations it makes verify every peer's chain, revocation and name. [`Current`] is the
//! identity in use: it follows the files while the process runs.
//!
//! One crypto provider (aws-lc-rs) is passed explicitly; the process default is never used.

mod contents;
mod current;
mod error;
mod files;
mod identity;
mod pem;
mod remember;
mod trust;
mod verify;

use pcp::Certname;
use rustls_pki_types::CertificateDer;

pub use current::{CHECK_INTERVAL, Changes, Current, Derived, EXPIRY_WARNING_DAYS, Reload};
pub use error::{IdentityError, NameError};
pub use files::{Files, ParseRevocationError, Revocation};
pub use identity::{Distrust, Identity, PeerRole, TlsVersions};

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
