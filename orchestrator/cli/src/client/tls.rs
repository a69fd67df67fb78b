//! TLS to the orchestrator: the CA certificates that were named, and no others.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::{ConfigError, Failure};

/// HTTP/2 where the server has it, else HTTP/1.1.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A configuration that trusts the certificates of `ca_file`, or nobody.
///
/// # Errors
/// When the file cannot be read or holds no CA certificate.
pub(super) fn configuration(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let roots = ca_file
        .map(roots)
        .transpose()?
        .unwrap_or_else(RootCertStore::empty);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn roots(ca_file: &Path) -> Result<RootCertStore, ConfigError> {
    let unusable = || ConfigError::CaForm {
        path: ca_file.to_owned(),
    };
    let pem = std::fs::read(ca_file).map_err(|source| ConfigError::CaRead {
        path: ca_file.to_owned(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.map_err(|_| unusable())?)
            .map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        Err(unusable())
    } else {
        Ok(roots)
    }
}
