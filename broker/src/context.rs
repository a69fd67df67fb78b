//! What all sessions share, over QUIC and over WebSocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{Current, Derived};
use pcp::{Certname, Goodbye, GoodbyeCode};
use pcp_mesh::SessionId;
use tokio::sync::mpsc;
use tokio_rustls::rustls::ServerConfig;

use crate::access_log::AccessLog;
use crate::authorize::Rules;
use crate::budget::Budget;
use crate::content::Relay;
use crate::counts::Counts;
use crate::gate::Gate;
use crate::input::Input;
use crate::listener::Server;
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::refusals::Refusals;
use crate::tally::Tally;
use crate::version::Version;

/// How connections over TCP are accepted, made anew when our certificates are replaced.
pub(crate) type Tls = Derived<Arc<ServerConfig>>;

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Context {
    /// Whom we trust, as of now.
    pub(crate) identity: Arc<Current>,
    /// How connections are accepted, as of now.
    pub(crate) server: Server,
    /// Everybody who has a session.
    pub(crate) peers: Arc<Peers>,
    /// How many connections each certificate has.
    pub(crate) tally: Arc<Tally>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) access_log: AccessLog,
    /// The broker's own certname.
    pub(crate) certname: Certname,
    /// Product and version.
    pub(crate) software: String,
    pub(crate) rules: Arc<Rules>,
    /// How long a peer that is sent elsewhere may take to hear what is left for it, and we to hear what it
    /// still says: its part of the time that a stop may take.
    pub(crate) last_words: Duration,
    /// The largest body in bytes.
    pub(crate) max_message: usize,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) ids: Arc<SessionIds>,
    pub(crate) budget: Budget,
    pub(crate) relay: Arc<Relay>,
    /// How connections over TCP are accepted, as of now.
    pub(crate) tls: Tls,
    /// Whether WebSocket clients may come in.
    pub(crate) gate: Gate,
    /// The versions of PCP that are spoken over WebSocket.
    pub(crate) versions: Vec<Version>,
    /// How long a WebSocket may be silent.
    pub(crate) websocket_idle: Duration,
    pub(crate) starts: Starts,
    /// Who may read metrics, beside the broker itself.
    pub(crate) metrics_allowlist: Vec<Certname>,
    /// Where the tasks of single messages and files run.
    pub(crate) tasks: daemon::Tasks,
}

impl Context {
    /// Whether whoever has shown this certificate may read metrics.
    pub(crate) fn may_read_metrics(&self, caller: Option<&Certname>) -> bool {
        caller.is_some_and(|certname| {
            *certname == self.certname || self.metrics_allowlist.contains(certname)
        })
    }
}

/// Numbers for sessions, unique in the life of the process.
#[derive(Debug, Default)]
pub(crate) struct SessionIds(AtomicU64);

impl SessionIds {
    pub(crate) fn next(&self) -> SessionId {
        SessionId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Orders the sessions of peers that do not: the later connection supersedes the earlier one.
#[derive(Debug, Default)]
pub(crate) struct Starts(AtomicU64);

impl Starts {
    /// Milliseconds since 1970, and later than every one before.
    pub(crate) fn next_start(&self) -> u64 {
        let now = wall_clock();
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(now.max(last.saturating_add(1)))
            });
        now.max(before.unwrap_or_default().saturating_add(1))
    }
}

/// Whatever ends the session, a panic of its task included: nobody sends to it or asks it any more.
pub(crate) struct Registered<'a> {
    pub(crate) session: SessionId,
    pub(crate) outbox: &'a Outbox,
    pub(crate) relay: &'a Relay,
    pub(crate) peers: &'a Peers,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.outbox.abandon();
        self.relay.remove(self.session);
        self.peers.remove(self.session);
    }
}

/// What a session is told when the driver has ended.
pub(crate) fn stopping() -> Goodbye {
    Goodbye {
        code: GoodbyeCode::GoingAway,
        reason: "the broker is being stopped".to_owned(),
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
