//! What can be wrong with the files of an identity, or with a peer's certificate.

use std::io;
use std::path::PathBuf;

use rustls_pki_types::pem;

/// A fault of our own files, or a peer that cannot be named. Each names the file it is about.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{path} is not valid PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: pem::Error,
    },
    /// A file holds no block of the kind that is wanted from it.
    #[error("{path} holds no {what}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A certificate cannot be parsed.
    #[error("{path} holds a certificate that cannot be read")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// A certificate of the CA cannot be a trust anchor.
    #[error("{path} holds a CA certificate that cannot be trusted")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: webpki::Error,
    },
    /// A revocation list cannot be parsed.
    #[error("{path} holds a revocation list that cannot be read")]
    Crl {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: webpki::Error,
    },
    /// Revocation is to be checked, but no CRL file is named.
    #[error("revocation is to be checked, but no file of revocation lists is configured")]
    NoCrl,
    /// The private key is of a kind that cannot be used.
    #[error("{path} holds a private key that cannot be used")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key do not belong together.
    #[error("the private key {key} does not belong to the certificate {cert}")]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Our certificate's time is over.
    #[error("the certificate {path} expired: it ended {ended}")]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When it ended.
        ended: String,
    },
    /// Our certificate's time has not begun; often a clock that is behind.
    #[error("the certificate {path} is not valid yet: it begins {begins}")]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// When it begins.
        begins: String,
    },
    /// The certificate that replaces ours names somebody else, and sessions stand in our name.
    #[error("the certificate {path} names {found}; this process runs as {expected}: restart it")]
    OtherCertname {
        /// The certificate's file.
        path: PathBuf,
        /// Whom it names.
        found: pcp::Certname,
        /// Who we are.
        expected: pcp::Certname,
    },
    /// By the new CA and CRLs nothing can be said of our own certificate, nor of our peers'.
    #[error("by the new CA and revocation lists our own certificate cannot be verified")]
    OwnUnknown(#[source] rustls::Error),
    /// rustls refused the configuration.
    #[error("cannot build the TLS configuration")]
    Configuration(#[source] rustls::Error),
    /// The peer has shown no certificate.
    #[error("the peer has shown no certificate")]
    NoPeerCertificate,
    /// The peer's certificate does not name it.
    #[error("the peer's certificate does not say who it is")]
    PeerName(#[source] NameError),
}

/// Why a certificate does not name its owner.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is not a certificate.
    #[error("not an X.509 certificate")]
    Parse(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// The subject has no CN, or more than one.
    #[error("the subject \"{0}\" does not have exactly one CN")]
    CommonName(String),
    /// The CN is no certname.
    #[error("the CN {common_name:?} is no certname")]
    Certname {
        /// The CN.
        common_name: String,
        /// What is wrong with it.
        #[source]
        source: pcp::UriError,
    },
}
