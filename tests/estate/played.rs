//! Services of the estate that a test plays itself: HTTPS that demands a certificate of the stack's
//! CA, and answers what the test says.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::stack::Stack;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Request {
    /// Method and path: `GET /some/path?query`.
    pub(crate) line: String,
    pub(crate) body: String,
}

/// What is answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Piece by piece, as they are made.
    pub(crate) body: Box<dyn Iterator<Item = String>>,
}

impl Answer {
    /// 200 with JSON.
    pub(crate) fn json(value: &Value) -> Self {
        Self::text(200, value.to_string())
    }

    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            body: Box::new([text.into()].into_iter()),
        }
    }
}

/// Serves for as long as the test runs. Gives the address.
pub(crate) fn play(
    stack: &Stack,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (tls, answer) = (Arc::new(tls(stack)), Arc::new(answer));
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let (tls, answer) = (Arc::clone(&tls), Arc::clone(&answer));
            // Whoever does not finish a request, or has no certificate, gets no answer.
            thread::spawn(move || serve(tls, connection, &*answer).ok());
        }
    });
    format!("https://localhost:{port}")
}

fn serve(
    tls: Arc<ServerConfig>,
    connection: TcpStream,
    answer: &dyn Fn(&Request) -> Answer,
) -> io::Result<()> {
    let session = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(session, connection));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    let answer = answer(&Request { line, body });
    // The end of the connection is the end of the answer.
    let head = format!(
        "HTTP/1.1 {} Played\r\nConnection: close\r\n\r\n",
        answer.status
    );
    let mut stream = io::BufWriter::with_capacity(64 << 10, stream.into_inner());
    stream.write_all(head.as_bytes())?;
    for piece in answer.body {
        stream.write_all(piece.as_bytes())?;
    }
    let mut stream = stream.into_inner()?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn tls(stack: &Stack) -> ServerConfig {
    let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
        let text = fs::read(path).expect("certificates");
        let all = CertificateDer::pem_slice_iter(&text);
        all.map(|der| der.expect("PEM")).collect()
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(Path::new(stack.value("CA_CERTS"))) {
        roots.add(certificate).expect("a CA");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let name = stack.value("PRIMARY");
    let key = stack.ssl_dir().join(format!("private_keys/{name}.pem"));
    let chain = certificates(&stack.ssl_dir().join(format!("certs/{name}.pem")));
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).expect("a key"))
        .expect("a certificate with its key")
}
