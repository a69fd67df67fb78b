//! One service of the estate over HTTPS, with our certificate: which address answers, how long it is
//! waited for, how often it is asked again, and what an answer that is none is called.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::Identity;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::counts::counts;

/// How long a connection may take. A host that is up answers within the first second or two.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may stay silent. PuppetDB thinks for seconds over a large estate; Puppet Server
/// may wait as long for one of its interpreters.
const SILENCE: Duration = Duration::from_secs(60);

/// How often all addresses are tried before the caller is told.
const ROUNDS: u32 = 3;

/// What has taken longer than this is not tried once more: the caller waits for it, too. With it, one
/// silent service costs one [`SILENCE`] and not one a round.
const RETRY_WITHIN: Duration = Duration::from_secs(10);

/// The pause after the first round; each further one is twice as long. Random up to this, so that
/// what failed together does not come back together.
const PAUSE: Duration = Duration::from_millis(400);

/// How much of a text that explains an error is kept: the texts of PuppetDB name every field that
/// there is.
const MAX_REASON: usize = 2000;

/// How much of an answer that is an error is read.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// No clock that was heard of is so far ahead.
const UNKNOWN: i64 = i64::MAX;

/// The one service that has a list of certnames.
pub(crate) const PUPPETDB: &str = "PuppetDB";

/// How an error of TLS begins that the other side has found.
const ALERT: &str = "received fatal alert";

/// A service that is asked over HTTPS.
pub(crate) struct Service {
    /// What people call it, such as `PuppetDB`.
    name: &'static str,
    addresses: Vec<Url>,
    /// The address that answered last, where the next request begins.
    preferred: AtomicUsize,
    identity: Source,
    /// Where the host of the addresses is, whatever its name resolves to.
    at: Option<(String, SocketAddr)>,
    /// How many seconds the clock of whoever answered last is ahead of ours; [`UNKNOWN`] before.
    ahead: AtomicI64,
    /// The client that was made for an identity. Made anew when that has been replaced.
    client: Mutex<Option<(Arc<Identity>, Client)>>,
}

/// Gives the identity as of now.
pub(crate) type Source = Arc<dyn Fn() -> Arc<Identity> + Send + Sync>;

/// Why a service gave no useful answer. Can be cloned: several may have waited for the one answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceError {
    /// There was no answer at all.
    #[error("{service} cannot be reached at {address}: {reason}")]
    Unreachable {
        service: &'static str,
        address: String,
        reason: String,
    },
    /// Our certificate is not good enough.
    #[error("{service} at {address} refuses the certificate of {certname}: {reason}")]
    Refused {
        service: &'static str,
        address: String,
        certname: String,
        reason: String,
    },
    /// The answer is an error. What it means depends on what was asked.
    #[error("{service} at {address} answered with status {status}: {reason}")]
    Status {
        service: &'static str,
        address: String,
        status: u16,
        reason: String,
        /// What the answer says, when it says it as Puppet's services do.
        fault: Option<Box<Fault>>,
    },
    /// The answer is not what such a service answers.
    #[error("the answer of {service} at {address} cannot be used: {reason}")]
    Answer {
        service: &'static str,
        address: String,
        reason: String,
    },
}

/// An error as Puppet's services explain one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    pub(crate) msg: String,
    #[serde(default)]
    pub(crate) details: Value,
}

/// An answer whose status is a success, and who gave it.
#[derive(Debug)]
pub(crate) struct Answer {
    service: &'static str,
    address: String,
    response: Response,
}

impl Service {
    /// A service at these addresses, the preferred one first.
    pub(crate) fn new(name: &'static str, addresses: Vec<Url>, identity: Source) -> Self {
        Self {
            name,
            addresses,
            preferred: AtomicUsize::new(0),
            at: None,
            ahead: AtomicI64::new(UNKNOWN),
            identity,
            client: Mutex::new(None),
        }
    }

    /// The same, with a host name of the addresses that is not resolved.
    pub(crate) fn at(self, host: &str, address: SocketAddr) -> Self {
        Self {
            at: Some((host.to_owned(), address)),
            ..self
        }
    }

    /// Asks: `path` is below the address and may have a query; `prepare` adds what else there is.
    /// Only for requests that may be repeated.
    ///
    /// # Errors
    /// [`ServiceError`] for everything but a success.
    pub(crate) async fn ask(
        &self,
        method: &Method,
        path: &str,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, ServiceError> {
        let mut last = None;
        let begun = Instant::now();
        for round in 0..ROUNDS {
            if round > 0 {
                if !is_worth_a_retry(begun) {
                    break;
                }
                let longest = PAUSE.saturating_mul(1 << (round - 1));
                tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
            }
            let first = self.preferred.load(Ordering::Relaxed);
            for step in 0..self.addresses.len() {
                let index = (first + step) % self.addresses.len();
                let Some(address) = self.addresses.get(index) else {
                    continue;
                };
                let asked = Instant::now();
                let answer = self.once(address, method, path, &prepare).await;
                let outcome = answer
                    .as_ref()
                    .map_or_else(ServiceError::outcome, |_| "answered");
                counts().asked(self.name, outcome, asked.elapsed());
                match answer {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(error) if error.may_pass() => last = Some(error),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last.unwrap_or_else(|| ServiceError::Unreachable {
            service: self.name,
            address: "no address".to_owned(),
            reason: "none is configured".to_owned(),
        }))
    }

    async fn once(
        &self,
        address: &Url,
        method: &Method,
        path: &str,
        prepare: &impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, ServiceError> {
        let identity = (self.identity)();
        let certname = identity.certname().to_string();
        let client = self.client(address, identity)?;
        let url = format!("{}{path}", address.as_str().trim_end_matches('/'));
        let request = prepare(client.request(method.clone(), url));
        let sent = request.send().await;
        let response = sent.map_err(|error| self.no_answer(address, &certname, &error))?;
        if let Some(time) = server_time(&response) {
            let ahead = time.as_second() - jiff::Timestamp::now().as_second();
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        let answer = Answer {
            service: self.name,
            address: shown(address),
            response,
        };
        answer.successful(certname).await
    }

    /// How many seconds the clock of whoever answered last is ahead of ours, when that was told.
    pub(crate) fn ahead(&self) -> Option<i64> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        (ahead != UNKNOWN).then_some(ahead)
    }

    fn no_answer(&self, address: &Url, certname: &str, error: &reqwest::Error) -> ServiceError {
        let reason = reason(error);
        let (service, address) = (self.name, shown(address));
        // A server that does not like a certificate says so in TLS, before any HTTP.
        if reason.contains(ALERT) {
            return ServiceError::Refused {
                service,
                address,
                certname: certname.to_owned(),
                reason,
            };
        }
        ServiceError::Unreachable {
            service,
            address,
            reason,
        }
    }

    fn client(&self, address: &Url, identity: Arc<Identity>) -> Result<Client, ServiceError> {
        let failed = |reason: String| ServiceError::Unreachable {
            service: self.name,
            address: shown(address),
            reason,
        };
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((with, client)) = kept.as_ref()
            && Arc::ptr_eq(with, &identity)
        {
            return Ok(client.clone());
        }
        let tls = identity
            .client_config(&[b"http/1.1"])
            .map_err(|error| failed(daemon::error_chain(&error)))?;
        let mut builder = Client::builder();
        if let Some((host, address)) = &self.at {
            builder = builder.resolve(host, *address);
        }
        let client = builder
            .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
            .https_only(true)
            // A redirect would take our certificate to whoever it names; and a proxy of the
            // environment has no business between the parts of an estate.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(daemon::software("pxp-orchestrator"))
            .build()
            .map_err(|error| failed(reason(&error)))?;
        *kept = Some((identity, client.clone()));
        Ok(client)
    }
}

impl Answer {
    /// Nothing but a success is one.
    async fn successful(mut self, certname: String) -> Result<Self, ServiceError> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        let mut body = Vec::new();
        // What can be read of it explains more than that it could not be read.
        while let Ok(Some(chunk)) = self.response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ERROR_BODY {
                break;
            }
        }
        let fault: Option<Box<Fault>> = serde_json::from_slice(&body).ok();
        let reason = match &fault {
            Some(fault) => shorten(&fault.msg),
            None => shorten(String::from_utf8_lossy(&body).trim()),
        };
        let (service, address) = (self.service, self.address);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ServiceError::Refused {
                service,
                address,
                certname,
                reason,
            });
        }
        Err(ServiceError::Status {
            service,
            address,
            status: status.as_u16(),
            reason,
            fault,
        })
    }

    /// The next piece of the body; nothing at its end.
    ///
    /// # Errors
    /// When the connection ends in the middle.
    pub(crate) async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, ServiceError> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| ServiceError::Unreachable {
            service: self.service,
            address: self.address.clone(),
            reason: reason(&error),
        })
    }

    /// The whole body, which may have at most `limit` bytes.
    ///
    /// # Errors
    /// When it has more, or the connection ends in the middle.
    pub(crate) async fn body(mut self, limit: usize) -> Result<Vec<u8>, ServiceError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(chunk.as_ref());
            if body.len() > limit {
                return Err(self.unusable(format!("it has more than {limit} bytes")));
            }
        }
        Ok(body)
    }

    /// The body as JSON of at most `limit` bytes.
    ///
    /// # Errors
    /// When it is not that, or not there.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(
        self,
        limit: usize,
    ) -> Result<T, ServiceError> {
        let unusable = {
            let (service, address) = (self.service, self.address.clone());
            move |reason| ServiceError::Answer {
                service,
                address,
                reason,
            }
        };
        let body = self.body(limit).await?;
        serde_json::from_slice(&body).map_err(|error| unusable(format!("no such JSON: {error}")))
    }

    /// What came is not what such a service answers.
    pub(crate) fn unusable(&self, reason: impl Into<String>) -> ServiceError {
        ServiceError::Answer {
            service: self.service,
            address: self.address.clone(),
            reason: reason.into(),
        }
    }
}

impl ServiceError {
    /// What the metrics call it.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Status { .. } => "error",
            Self::Answer { .. } => "unusable",
        }
    }

    /// The error, and for a certificate that is refused what its operator can do.
    pub(crate) fn with_remedy(&self) -> String {
        let Self::Refused {
            service,
            certname,
            reason,
            ..
        } = self
        else {
            return self.to_string();
        };
        let remedy = if reason.contains(ALERT) {
            format!("is {certname} revoked, or of a CA that {service} does not know?")
        } else if *service == PUPPETDB {
            // Who may ask stands in a file, which is read once.
            format!("add the line {certname} to PuppetDB's certificate-allowlist and restart it")
        } else {
            format!("let the rules of {service} permit {certname}")
        };
        format!("{self} ({remedy})")
    }

    /// Whether another try, or another address, may help.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => matches!(status, 502..=504),
            Self::Refused { .. } | Self::Answer { .. } => false,
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Whether what began then, and has failed, may be tried once more.
pub(crate) fn is_worth_a_retry(begun: Instant) -> bool {
    begun.elapsed() < RETRY_WITHIN
}

/// The time of the server, as its answer says.
fn server_time(response: &Response) -> Option<jiff::Timestamp> {
    let date = response
        .headers()
        .get(reqwest::header::DATE)?
        .to_str()
        .ok()?;
    let time = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(time.timestamp())
}

/// An address as messages show it.
fn shown(address: &Url) -> String {
    address.as_str().trim_end_matches('/').to_owned()
}

/// What lies behind an error of the client, without the URL, which stands beside it.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() && !error.is_connect() {
        return format!("no answer within {} seconds", SILENCE.as_secs());
    }
    let mut cause = std::error::Error::source(error);
    let mut texts: Vec<String> = Vec::new();
    while let Some(error) = cause {
        let text = error.to_string();
        // Wrapping errors often repeat what they wrap.
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    if texts.is_empty() {
        return error.to_string();
    }
    texts.join(": ")
}

/// A text of a server, as much of it as is useful.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
