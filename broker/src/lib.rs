//! The PCP broker, in the roles primary and compiler: it lets clients in by their certificates,
//! routes messages that it cannot read, and tells other brokers who is connected.
//!
//! Read in this order: [`config`], [`authorize`] (who may what, pure), `listener` (the socket), `ids` (of connections),
//! `admission` (who comes in when, pure), `entrance` (lets them in), `context` (what all sessions share), `session` (one connection), `outbox` (what waits for it), `peers` (who has
//! one, and may not any more), `input` (what happens), `driver` (the only owner of the mesh),
//! `uplink` (a compiler's link to its primaries), `controllers` (those that wait to
//! be dialled), `content` (files on their way). Over TCP: `tcp`
//! (connections), `http` (what is asked), `websocket` (a session of an existing peer). To watch it:
//! `metrics`, `look` (what the driver shows), [`operator`], `refusals`, `access_log`.

mod access_log;
mod admission;
pub mod authorize;
mod budget;
pub mod config;
mod content;
mod context;
mod controllers;
pub mod counts;
pub mod doctor;
mod drain;
mod driver;
mod entrance;
pub mod explain;
mod gate;
pub mod host;
mod http;
mod ids;
mod input;
mod listener;
mod look;
mod metrics;
pub mod operator;
mod outbox;
mod peers;
mod places;
mod refusals;
mod session;
mod tally;
mod tcp;
mod uplink;
mod version;
mod websocket;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::doctor::{Findings, Level};
use daemon::logs::LogFileHandle;
use identity::{Current, Identity, IdentityError};
use pcp::ClientType;
use pcp_client::transport::CLOSED;
use pcp_client::{ClientConfig, Transport, Ways};
use pcp_mesh::{Node, NodeConfig, Role};
use tokio::sync::mpsc;
use tokio::time::timeout;

use access_log::AccessLog;
use authorize::Rules;
use budget::Budget;
use config::Config;
use content::{Cache, Relay};
use context::{Context, SessionIds, Starts};
use controllers::Present;
use counts::Counts;
use driver::Driver;
use entrance::Entrance;
use gate::{Door, Gate};
use host::Host;
use input::{INPUT_QUEUE, Input};
use listener::Bound;
pub use listener::ListenError;
use peers::Peers;
use refusals::Refusals;
use tally::Tally;
use uplink::Expected;
pub use version::Version;

/// How long the rest has after that.
const LAST: Duration = Duration::from_secs(2);

/// A broker that holds its certificates and its socket, and does not answer yet.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    identity: Arc<Current>,
    sockets: Sockets,
    /// Where metrics are read without TLS.
    metrics: Option<TcpListener>,
    access_log: Option<LogFileHandle>,
}

/// What a broker listens on: one port, on UDP, on TCP, or both.
#[derive(Debug)]
struct Sockets {
    address: SocketAddr,
    quic: Option<Bound>,
    tcp: Option<TcpListener>,
}

/// How many ports are tried when any will do, since one that is free on UDP may be taken on TCP.
const ANY_PORT_TRIES: usize = 16;

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The certificates are no good. An operator must change files or configuration.
    #[error("the certificates cannot be used")]
    Identity(#[source] IdentityError),
    /// The access log cannot be opened.
    #[error("cannot open the access log {}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket or its encryption cannot be set up.
    #[error("the broker cannot listen")]
    Listen(#[source] ListenError),
}

/// Why a broker ended that nobody had asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The socket cannot be served.
    #[error("the broker cannot listen")]
    Listen(#[source] ListenError),
    /// There is no thread for the access log.
    #[error("cannot start a thread for the access log")]
    AccessLog(#[source] io::Error),
    /// A task has ended, or panicked, without which there is no broker. The log says which.
    #[error("a part of the broker has failed")]
    Failed,
}

impl Broker {
    /// Loads the certificates and binds the sockets.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(config: Config) -> Result<Self, BuildError> {
        let identity = Current::load(config.files.clone()).map_err(BuildError::Identity)?;
        let identity = Arc::new(identity);
        let sockets = Sockets::bind(&config).map_err(BuildError::Listen)?;
        let access_log = match &config.access_log {
            Some(path) => Some(LogFileHandle::open(path).map_err(|source| {
                let path = path.clone();
                BuildError::AccessLog { path, source }
            })?),
            None => None,
        };
        let metrics = config.metrics.listen.map(bind_metrics).transpose();
        Ok(Self {
            metrics: metrics.map_err(BuildError::Listen)?,
            access_log,
            sockets,
            identity,
            config,
        })
    }

    /// The address that is bound: with port 0 in the configuration, which port it became.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.sockets.address
    }

    /// Where metrics are read without TLS, if anywhere.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// The access log, for whoever hears that it was moved away.
    #[must_use]
    pub fn access_log(&self) -> Option<LogFileHandle> {
        self.access_log.clone()
    }

    /// The identity in use, which follows its files while the broker runs.
    #[must_use]
    pub fn identity(&self) -> Arc<Current> {
        Arc::clone(&self.identity)
    }

    /// Serves until `stop` resolves, or until a part fails without which there is no broker; then
    /// says goodbye to everybody. Must run in a Tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self {
            config,
            identity: current,
            sockets,
            metrics,
            access_log,
        } = self;
        let identity = current.get();
        tracing::info!(
            version = daemon::VERSION,
            role = config::role_name(config.role),
            certname = %identity.certname(),
            listen = %sockets.address,
            quic = config.transports.quic,
            websocket = config.transports.websocket,
            "pcp-broker starts"
        );
        let core = daemon::Tasks::new();
        let sessions = daemon::Tasks::new();
        let uplinks = daemon::Tasks::new();
        let Sockets { address, quic, tcp } = sockets;
        let server = listener::server(&current).map_err(RunError::Listen)?;
        let tls = tcp::server(&current).map_err(RunError::Listen)?;
        let tcp = tcp.map(tokio::net::TcpListener::from_std).transpose();
        let tcp = tcp.map_err(|source| {
            let (protocol, address) = ("TCP", address);
            RunError::Listen(ListenError::Bind {
                protocol,
                address,
                source,
            })
        })?;
        let endpoint = match quic {
            Some(bound) => Some(bound.listen(&server).map_err(RunError::Listen)?),
            None => None,
        };
        warn_of_limits(&config);

        let rules = Arc::new(Rules::of(&config));
        let ids = Arc::new(SessionIds::default());
        let (inputs, queue) = mpsc::channel(INPUT_QUEUE);
        let node = Node::new(node_config(&config, &identity), start_time());
        let refusals = Arc::new(Refusals::default());
        let (access_log, closing) = match access_log.map(AccessLog::start) {
            Some(started) => {
                let (log, closing) = started.map_err(RunError::AccessLog)?;
                (log, Some(closing))
            }
            None => (AccessLog::default(), None),
        };
        let driver = Driver::new(
            node,
            config.role,
            Arc::clone(&rules),
            Arc::clone(&refusals),
            access_log.clone(),
        );
        core.spawn_core("driver", driver.run(queue, core.shutdown_token()));

        let expected = match config.role {
            Role::Compiler => Expected::Primary,
            Role::Primary => Expected::Beside {
                own: identity.certname().clone(),
                primaries: config.primary_certnames.clone().into(),
            },
        };
        let mut handles = Vec::new();
        for primary in &config.primaries {
            let software = daemon::software("pcp-broker");
            let mut client = ClientConfig::new(
                vec![primary.clone()],
                Arc::clone(&current),
                ClientType::server(),
                software,
            );
            client.max_message = config.max_message;
            // A file on its way needs a stream of its own, and so do announcements.
            client.ways = Ways::Only(Transport::Quic);
            let (handle, events) = pcp_client::start(client, &uplinks);
            handles.push(handle.clone());
            let link = uplink::run(
                handle,
                events,
                inputs.clone(),
                Arc::clone(&ids),
                expected.clone(),
            );
            core.spawn("uplink", link);
        }

        let counts = Arc::new(Counts::default());
        let cache = content_cache(&config);
        let relay = Relay::new(handles, cache, Arc::clone(&counts), sessions.clone());
        let relay = Arc::new(relay);
        let peers = Arc::new(Peers::default());
        let guard = peers::guard(
            Arc::clone(&peers),
            Arc::clone(&current),
            inputs.clone(),
            Arc::clone(&counts),
            core.shutdown_token(),
        );
        core.spawn_core("guard", guard);
        let (followed, end) = (Arc::clone(&current), core.shutdown_token());
        core.spawn_core("certificates", async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = followed.follow() => {}
            }
        });

        let gate = Gate::new(if config.controller_uris.is_empty() {
            Door::Open
        } else {
            Door::Starting
        });
        let context = Arc::new(Context {
            identity: current,
            server,
            peers: Arc::clone(&peers),
            tally: Arc::new(Tally::default()),
            counts,
            refusals,
            access_log,
            certname: identity.certname().clone(),
            software: daemon::software("pcp-broker"),
            rules,
            last_words: config.drain_time / 2,
            max_message: config.max_message,
            inputs: inputs.clone(),
            ids,
            budget: Budget::new(config.max_message),
            relay,
            tls,
            gate: gate.clone(),
            versions: config.versions.clone(),
            websocket_idle: config.websocket_idle,
            starts: Starts::default(),
            metrics_allowlist: config.metrics.allowlist.clone(),
            tasks: sessions.clone(),
        });
        dial_controllers(&config, &context, &core, &sessions);
        if let Some(metrics) = metrics {
            let serve = http::serve_metrics(
                metrics,
                Arc::clone(&context),
                sessions.clone(),
                core.shutdown_token(),
            );
            core.spawn_core("metrics-listener", serve);
        }
        let entrance = Entrance::new(
            endpoint.clone(),
            tcp,
            config.handshakes_per_second,
            context,
            sessions.clone(),
        );
        core.spawn_core("entrance", entrance.run(core.shutdown_token()));
        daemon::ready();

        let (failed, cut_off) = (core.shutdown_token(), uplinks.shutdown_token());
        let end = tokio::select! {
            () = stop => Ok(()),
            () = failed.cancelled() => Err(RunError::Failed),
            () = cut_off.cancelled() => Err(RunError::Failed),
        };
        tracing::info!("stopping");
        daemon::stopping();
        gate.set(Door::Stopping);
        drain::run(&peers, &inputs, config.drain_time).await;
        if !sessions.shutdown(config.drain_time / 2).await {
            tracing::warn!("some sessions did not end in time");
        }
        // Without a driver nothing waits any more.
        drop(inputs.send(Input::GiveBack).await);
        uplinks.shutdown(LAST).await;
        core.shutdown(LAST).await;
        if let Some(endpoint) = endpoint {
            endpoint.close(CLOSED, b"the broker is being stopped");
            // Peers that do not answer any more must not hold us up.
            drop(timeout(LAST, endpoint.wait_idle()).await);
        }
        if let Some(closing) = closing {
            // A disk that does not answer must not hold us up.
            let closed = tokio::task::spawn_blocking(move || closing.close());
            drop(timeout(LAST, closed).await);
        }
        tracing::info!("stopped");
        end
    }
}

/// Dials the controllers that wait for it, and opens the door to clients when one is there.
fn dial_controllers(
    config: &Config,
    context: &Arc<Context>,
    core: &daemon::Tasks,
    sessions: &daemon::Tasks,
) {
    if config.controller_uris.is_empty() {
        return;
    }
    let present = Arc::new(Present::new(0));
    let door = controllers::keep_door(
        Arc::clone(context),
        present.subscribe(),
        config.grace_period,
        core.shutdown_token(),
    );
    core.spawn_core("door", door);
    for controller in &config.controller_uris {
        let dialling = controllers::dial(
            controller.clone(),
            Arc::clone(context),
            Arc::clone(&present),
            sessions.shutdown_token(),
        );
        sessions.spawn("controller", dialling);
    }
}

impl Sockets {
    /// Binds the same port on UDP and TCP.
    fn bind(config: &Config) -> Result<Self, ListenError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (quic, address) = if config.transports.quic {
                let bound = Bound::new(config.listen, &config.files.key)?;
                let address = bound.address;
                (Some(bound), address)
            } else {
                (None, config.listen)
            };
            if !config.transports.websocket {
                return Ok(Self {
                    address,
                    quic,
                    tcp: None,
                });
            }
            let tcp = tcp::bind(address).and_then(|tcp| Ok((tcp.local_addr()?, tcp)));
            match tcp {
                Ok((address, tcp)) => {
                    return Ok(Self {
                        address,
                        quic,
                        tcp: Some(tcp),
                    });
                }
                Err(error)
                    if config.listen.port() == 0
                        && tries < ANY_PORT_TRIES
                        && error.kind() == io::ErrorKind::AddrInUse => {}
                Err(source) => {
                    return Err(ListenError::Bind {
                        protocol: "TCP",
                        address,
                        source,
                    });
                }
            }
        }
    }
}

/// The content cache. A broker does its duty without one, so that a directory that cannot be used is told
/// and no reason to stop.
fn content_cache(config: &Config) -> Option<Cache> {
    match Cache::open(&config.content_cache) {
        Ok(cache) => cache,
        Err(error) => {
            tracing::error!(
                dir = %config.content_cache.dir.display(),
                %error,
                "files are passed on without being kept: the content cache cannot be used"
            );
            None
        }
    }
}

/// Binds the address at which metrics are read without TLS.
fn bind_metrics(address: SocketAddr) -> Result<TcpListener, ListenError> {
    tcp::bind(address).map_err(|source| ListenError::Bind {
        protocol: "TCP",
        address,
        source,
    })
}

fn node_config(config: &Config, identity: &Identity) -> NodeConfig {
    let mut node = NodeConfig::new(identity.certname().clone(), config.role);
    if config.max_connections > 0 {
        node.max_clients = config.max_connections;
    }
    node.grace_period = u64::try_from(config.grace_period.as_millis()).unwrap_or(u64::MAX);
    node
}

/// Milliseconds since 1970: keeps what this broker says apart from what it said in its former life.
fn start_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Warns of what this host lacks for the clients that may come.
fn warn_of_limits(config: &Config) {
    let mut findings = Findings::default();
    Host::read().judge(config.expected_clients(), &mut findings);
    for finding in findings.all().iter().filter(|f| f.level != Level::Ok) {
        tracing::warn!(
            subject = %finding.subject,
            found = %finding.found,
            advice = %finding.advice,
            "this host may not suffice"
        );
    }
}
