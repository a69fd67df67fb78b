//! What the broker answers over HTTP: upgrades to WebSocket, its status and metrics, what an operator
//! wants to see, and files by digest for agents that cannot use UDP. Which path means what is decided by [`route`], without any socket.

mod body;
mod plain;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::Identity;
use pcp::{Certname, Digest};
use pcp_client::websocket::{SUBPROTOCOL, accept_key};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::content;
use crate::context::Context;
use crate::gate::Door;
use crate::operator::{self, View};
use crate::version::Version;
use body::Answer;

pub(crate) use plain::serve as serve_metrics;

/// How long a client may take for the head of a request, and between two requests.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// In how many seconds a client may come back to a broker that takes none: what a restart takes.
const SHUT_SECONDS: u32 = 5;

/// Where files are asked for.
const CONTENT: &str = "/content/";

/// A connection whose client is known, as far as it wants to be.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) address: SocketAddr,
    /// The CN of its verified certificate; nothing when it has shown none, or one without a certname.
    pub(crate) certname: Option<Certname>,
    /// Its verified chain.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// By whom it was verified.
    pub(crate) identity: Arc<Identity>,
}

/// A connection that has become a WebSocket.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) stream: TlsStream<TcpStream>,
    /// What came behind the request already.
    pub(crate) early: Bytes,
    pub(crate) address: SocketAddr,
    pub(crate) certname: Option<Certname>,
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) version: Version,
    /// The client type as the path has it, unchecked.
    pub(crate) client_type: String,
}

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    /// A WebSocket of this version, for this client type.
    WebSocket(Version, String),
    Services,
    BrokerService,
    Simple,
    Content(Option<Digest>),
    Metrics,
    /// What an operator wants to see of the running broker.
    Operator(View),
    Unknown,
}

/// An upgrade that was promised to the client.
struct Promised {
    upgrade: OnUpgrade,
    version: Version,
    client_type: String,
}

/// Answers requests until the connection ends, or becomes a WebSocket. When the broker is `busy`, a
/// client is asked to come back in so many seconds instead.
pub(crate) async fn serve(
    peer: Peer,
    context: &Context,
    busy: Option<u32>,
) -> Option<Box<Upgraded>> {
    let Peer {
        stream,
        address,
        certname,
        certificates,
        identity,
    } = peer;
    let promised: Arc<Mutex<Option<Promised>>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let promised = Arc::clone(&promised);
        let caller = certname.as_ref();
        async move {
            Ok::<_, std::convert::Infallible>(
                answer(request, caller, busy, context, &promised).await,
            )
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        let error = daemon::error_chain(&error);
        tracing::debug!(%address, %error, "HTTP connection ended");
    }
    let promised = promised
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()?;
    let upgraded = promised.upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
    Some(Box::new(Upgraded {
        stream: parts.io.into_inner(),
        early: parts.read_buf,
        address,
        certname,
        certificates,
        identity,
        version: promised.version,
        client_type: promised.client_type,
    }))
}

async fn answer(
    mut request: Request<Incoming>,
    caller: Option<&Certname>,
    busy: Option<u32>,
    context: &Context,
    promised: &Mutex<Option<Promised>>,
) -> Response<Answer> {
    let route = route(request.uri().path(), &context.versions);
    tracing::debug!(method = %request.method(), path = request.uri().path(), ?route, "request");
    if route == Route::Unknown {
        return say(StatusCode::NOT_FOUND, "not found");
    }
    if request.method() != Method::GET {
        return say(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    }
    let door = context.gate.door();
    match route {
        Route::WebSocket(version, client_type) => {
            let key = match handshake_key(request.headers()) {
                Ok(key) => key,
                Err(refusal) => return *refusal,
            };
            let shut = matches!(door, Door::Starting | Door::Shut | Door::Stopping);
            if let Some(seconds) = busy.or(shut.then_some(SHUT_SECONDS)) {
                let text = "the broker takes no clients just now";
                let mut response = say(StatusCode::SERVICE_UNAVAILABLE, text);
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                return response;
            }
            let native = version == Version::Two && offers(request.headers(), SUBPROTOCOL);
            let mut response = switch(&key);
            if native {
                response.headers_mut().insert(
                    header::SEC_WEBSOCKET_PROTOCOL,
                    HeaderValue::from_static(SUBPROTOCOL),
                );
            }
            *promised.lock().unwrap_or_else(PoisonError::into_inner) = Some(Promised {
                upgrade: hyper::upgrade::on(&mut request),
                version: if native { Version::Native } else { version },
                client_type,
            });
            response
        }
        Route::Services => json(&serde_json::json!({ "broker-service": service(context) })),
        Route::BrokerService => json(&service(context)),
        Route::Simple if door == Door::Open => say(StatusCode::OK, door.state()),
        Route::Simple => say(StatusCode::SERVICE_UNAVAILABLE, door.state()),
        Route::Content(_) if caller.is_none() => say(
            StatusCode::FORBIDDEN,
            "files are for clients that show a certificate",
        ),
        Route::Content(None) => say(StatusCode::BAD_REQUEST, "not a SHA-256 in hexadecimal"),
        Route::Content(Some(digest)) => match content::for_http(&context.relay, digest).await {
            Ok((file, place)) => Response::new(Answer::content(file, place)),
            Err(error) => say(content::status(error.code), &error.message),
        },
        Route::Metrics if !context.may_read_metrics(caller) => say(
            StatusCode::FORBIDDEN,
            "metrics are for the certnames of `metrics-allowlist`, and for this broker's own",
        ),
        Route::Metrics => metrics(context).await,
        Route::Operator(_) if caller != Some(&context.certname) => say(
            StatusCode::FORBIDDEN,
            "this is for whoever holds this broker's own certificate",
        ),
        Route::Operator(view) => match operator::answer(view, context).await {
            Some(text) => typed(Answer::text(text), "application/json"),
            None => too_busy(),
        },
        Route::Unknown => say(StatusCode::NOT_FOUND, "not found"),
    }
}

async fn metrics(context: &Context) -> Response<Answer> {
    match crate::metrics::text(context).await {
        Some(text) => typed(Answer::text(text), daemon::metrics::CONTENT_TYPE),
        None => too_busy(),
    }
}

fn too_busy() -> Response<Answer> {
    let text = "the broker has too much to do to answer";
    say(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// What a path means, when clients may speak these versions of PCP.
fn route(path: &str, versions: &[Version]) -> Route {
    match path {
        "/status/v1/services" => return Route::Services,
        "/status/v1/services/broker-service" => return Route::BrokerService,
        "/status/v1/simple" | "/status/v1/simple/broker-service" => return Route::Simple,
        "/metrics" => return Route::Metrics,
        operator::CONNECTIONS => return Route::Operator(View::Connections),
        operator::INVENTORY => return Route::Operator(View::Inventory),
        _ => {}
    }
    if let Some(digest) = path.strip_prefix(CONTENT) {
        return Route::Content(digest.parse().ok());
    }
    // The longest first: the original knew PCP 2 by the second name before its version 1.0.
    let routes = [
        ("/pcp2", Version::Two),
        ("/pcp/vNext", Version::Two),
        ("/pcp", Version::One),
    ];
    for (prefix, version) in routes {
        let Some(rest) = path.strip_prefix(prefix) else {
            continue;
        };
        if !rest.is_empty() && !rest.starts_with('/') {
            continue;
        }
        if !versions.contains(&version) {
            return Route::Unknown;
        }
        let client_type = rest.trim_start_matches('/');
        let client_type = if client_type.is_empty() {
            "agent"
        } else {
            client_type
        };
        return Route::WebSocket(version, client_type.to_owned());
    }
    // A pcp-broker dials its controllers here.
    if path == "/server" && versions.contains(&Version::Two) {
        return Route::WebSocket(Version::Two, "server".to_owned());
    }
    Route::Unknown
}

/// The key of a request for a WebSocket, or what is wrong with the request.
fn handshake_key(headers: &HeaderMap) -> Result<String, Box<Response<Answer>>> {
    let has = |name: HeaderName, wanted: &str| {
        headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',')
                    .any(|word| word.trim().eq_ignore_ascii_case(wanted))
            })
        })
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        let mut response = say(
            StatusCode::UPGRADE_REQUIRED,
            "PCP is spoken over WebSocket here",
        );
        let websocket = HeaderValue::from_static("websocket");
        response.headers_mut().insert(header::UPGRADE, websocket);
        return Err(Box::new(response));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let mut response = say(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is needed",
        );
        let version = HeaderValue::from_static("13");
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_VERSION, version);
        return Err(Box::new(response));
    }
    // Sixteen bytes in base64.
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    match key.and_then(|key| key.to_str().ok()) {
        Some(key) if key.len() == 24 => Ok(key.to_owned()),
        _ => Err(Box::new(say(
            StatusCode::BAD_REQUEST,
            "no key for the WebSocket",
        ))),
    }
}

fn offers(headers: &HeaderMap, subprotocol: &str) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .any(|value| {
            value
                .to_str()
                .is_ok_and(|text| text.split(',').any(|word| word.trim() == subprotocol))
        })
}

fn switch(key: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::nothing());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    // Base64 is always a header's value.
    if let Ok(accept) = HeaderValue::from_str(&accept_key(key)) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// One service as the original's status page shows it.
fn service(context: &Context) -> serde_json::Value {
    let counts = &context.counts;
    serde_json::json!({
        "service_version": daemon::VERSION,
        "service_status_version": 1,
        "detail_level": "info",
        "state": context.gate.door().state(),
        "status": {
            "connections": context.peers.len(),
            "handshakes": counts.begun.get(),
            "turned-away": counts.turned_away.get(),
            "crowded-out": counts.crowded_out.get(),
            "distrusted": counts.distrusted.get(),
        },
        "active_alerts": [],
    })
}

fn json(value: &serde_json::Value) -> Response<Answer> {
    typed(Answer::text(value.to_string()), "application/json")
}

fn say(status: StatusCode, text: &str) -> Response<Answer> {
    let text = Answer::text(text.to_owned());
    let mut response = typed(text, "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

fn typed(answer: Answer, kind: &'static str) -> Response<Answer> {
    let mut response = Response::new(answer);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
