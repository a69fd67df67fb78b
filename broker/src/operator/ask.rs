//! Asking the broker that runs on this host, as its own certificate's holder.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use identity::{Identity, IdentityError};
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{CONNECTIONS, Client, Connection, INVENTORY};
use crate::config::Config;

/// How long the whole answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most bytes of an answer: some hundred thousand rows.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Why the running broker gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The broker of this configuration has no TCP port.
    #[error(
        "this broker cannot be asked: `transports` has no websocket, and it answers over TCP only"
    )]
    NoTcp,
    /// Our own certificates cannot be used.
    #[error("the certificates cannot be used")]
    Identity(#[source] IdentityError),
    /// Nobody listens.
    #[error("no broker answers on {address}: is pcp-broker running, and with this configuration?")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever listens is not this broker, or does not take our certificate.
    #[error("what listens on {address} is not the broker of this configuration")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// What TLS said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the broker's answer broke off")]
    Broken(#[source] hyper::Error),
    /// It was too slow.
    #[error("the broker gave no answer in {s} s", s = DEADLINE.as_secs())]
    TimedOut,
    /// It said no.
    #[error("the broker refused: {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// It is another version of the product, or none.
    #[error("the broker's answer cannot be read: is it of this version?")]
    Unreadable(#[source] serde_json::Error),
    /// It never ended.
    #[error("the broker's answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

/// Everybody who is connected to the running broker.
///
/// # Errors
/// [`AskError`].
pub async fn connections(config: &Config) -> Result<Vec<Connection>, AskError> {
    ask(config, CONNECTIONS).await
}

/// Every client that the running broker knows.
///
/// # Errors
/// [`AskError`].
pub async fn inventory(config: &Config) -> Result<Vec<Client>, AskError> {
    ask(config, INVENTORY).await
}

async fn ask<T: DeserializeOwned>(config: &Config, path: &str) -> Result<T, AskError> {
    let answer = timeout(DEADLINE, fetch(config, path)).await;
    let (status, body) = answer.unwrap_or(Err(AskError::TimedOut))?;
    if status == StatusCode::OK {
        serde_json::from_slice(&body).map_err(AskError::Unreadable)
    } else {
        let text = String::from_utf8_lossy(&body).into_owned();
        Err(AskError::Refused { status, text })
    }
}

async fn fetch(config: &Config, path: &str) -> Result<(StatusCode, Vec<u8>), AskError> {
    if !config.transports.websocket {
        return Err(AskError::NoTcp);
    }
    let identity = Identity::load(&config.files).map_err(AskError::Identity)?;
    let tls = identity.client_config_to_ourselves();
    let tls = tls.map_err(AskError::Identity)?;
    let address = here(config.listen);
    let connect = |source| AskError::Connect { address, source };
    let stream = TcpStream::connect(address).await.map_err(connect)?;
    let refused = |source| AskError::Tls { address, source };
    let name = ServerName::from(address.ip());
    let connector = TlsConnector::from(tls);
    let stream = connector.connect(name, stream).await.map_err(refused)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(AskError::Broken)?;
    let request = Request::get(path)
        .header(header::HOST, identity.certname().as_str())
        .body(String::new());
    let asked = async {
        // A path and a certname are always parts of a request.
        let request = request.unwrap_or_default();
        let response = sender.send_request(request).await;
        let response = response.map_err(AskError::Broken)?;
        let status = response.status();
        Ok((status, whole(response.into_body()).await?))
    };
    let mut asked = std::pin::pin!(asked);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(AskError::Broken(error)),
        },
    }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, AskError> {
    let mut whole = Vec::new();
    loop {
        let mut pinned = std::pin::Pin::new(&mut body);
        let frame = std::future::poll_fn(|context| pinned.as_mut().poll_frame(context)).await;
        let Some(frame) = frame else { return Ok(whole) };
        if let Ok(data) = frame.map_err(AskError::Broken)?.into_data() {
            if whole.len().saturating_add(data.len()) > MAX_ANSWER {
                return Err(AskError::TooLong);
            }
            whole.extend_from_slice(&data);
        }
    }
}

/// Where a broker that listens there is reached from its own host.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
