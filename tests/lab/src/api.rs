//! The orchestrator's API as any program may call it: JSON over HTTP/1.0 over TLS, one connection a
//! call. Written here in a page so that the lab shares no code with what it tests.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;

/// The longest an answer may take; the slowest call starts a job on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than any answer of the API has in a lab.
const MAX_ANSWER: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The CA's certificates cannot be read.
    #[error("cannot read the CA's certificates")]
    CaFile(#[source] io::Error),
    /// They are not PEM.
    #[error("the CA's certificates are not PEM")]
    CaPem(#[source] pem::Error),
    /// TLS could not be configured, or the handshake failed.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// The connection failed.
    #[error("no answer from {address}")]
    Connection {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The answer is not HTTP.
    #[error("the answer is not HTTP: {0:?}")]
    Http(String),
    /// The body is not JSON.
    #[error("the body of the answer (status {status}) is not JSON: {body:?}")]
    Json {
        /// The status of the answer.
        status: u16,
        /// What came instead.
        body: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Where the API is, and how to get in.
#[derive(Debug)]
pub(crate) struct Api {
    address: SocketAddr,
    token: String,
    tls: Arc<ClientConfig>,
}

impl Api {
    pub(crate) fn new(address: SocketAddr, token: String, ca: &Path) -> Result<Self, ApiError> {
        let mut roots = RootCertStore::empty();
        let text = fs::read(ca).map_err(ApiError::CaFile)?;
        for der in CertificateDer::pem_slice_iter(&text) {
            roots
                .add(der.map_err(ApiError::CaPem)?)
                .map_err(ApiError::Tls)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ApiError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address,
            token,
            tls: Arc::new(tls),
        })
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), ApiError> {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/orchestrator/v1/{path}")
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nX-Authentication: {}\r\n\
             Accept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        let answer = self.exchange(&request)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| ApiError::Http(answer.clone()))?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| ApiError::Http(head.to_owned()))?;
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_str(body).map_err(|source| ApiError::Json {
            status,
            body: body.to_owned(),
            source,
        })?;
        Ok((status, value))
    }

    fn exchange(&self, request: &str) -> Result<String, ApiError> {
        let failed = |source| ApiError::Connection {
            address: self.address,
            source,
        };
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let name = ServerName::from(self.address.ip());
        let session = ClientConnection::new(self.tls.clone(), name).map_err(ApiError::Tls)?;
        let mut stream = StreamOwned::new(session, stream);
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        match (&mut stream).take(MAX_ANSWER).read_to_end(&mut answer) {
            // A server may close without saying goodbye; whether the answer is whole, JSON tells.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failed(error)),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}
