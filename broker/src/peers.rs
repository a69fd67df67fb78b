//! Everybody who has a session here: who they are, and how to cut them off when their certificate is
//! not trusted any more. Sessions come and go by themselves; this is the list of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use identity::{Current, Distrust, Identity, PeerRole};
use pcp::{GoodbyeCode, Uri};
use pcp_client::transport;
use pcp_mesh::SessionId;
use quinn::Connection;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::counts::Counts;
use crate::input::Input;
use crate::outbox::Outbox;
use crate::version::Version;

/// How often peers are looked at although no file has changed: their own time may be over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// How long a peer that is cut off has to take its goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many chains are verified before others get their turn: some milliseconds.
const VERIFIED_AT_ONCE: usize = 32;

/// One peer with a session.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Who it is, by its certificate and its hello.
    pub(crate) uri: Uri,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Since when.
    pub(crate) since: SystemTime,
    /// What it runs, as it says.
    pub(crate) software: Box<str>,
    /// Which language it speaks.
    pub(crate) version: Version,
    /// What waits for it.
    pub(crate) outbox: Arc<Outbox>,
    /// Its way to us.
    pub(crate) line: Line,
}

/// The connection of a peer.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// QUIC.
    Quic(Connection),
    /// WebSocket: the chain that the peer has shown, and what ends its task.
    WebSocket(Arc<[CertificateDer<'static>]>, CancellationToken),
}

/// All peers with a session.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<HashMap<SessionId, Peer>>);

impl Peers {
    pub(crate) fn add(&self, session: SessionId, peer: Peer) {
        self.lock().insert(session, peer);
    }

    pub(crate) fn remove(&self, session: SessionId) {
        let mut peers = self.lock();
        peers.remove(&session);
        // After a storm the list does not stay as large as it ever was.
        if peers.len() < peers.capacity() / 4 {
            peers.shrink_to_fit();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A copy of the list, in no particular order.
    pub(crate) fn all(&self) -> Vec<(SessionId, Peer)> {
        let peers = self.lock();
        peers.iter().map(|(id, peer)| (*id, peer.clone())).collect()
    }

    /// Never held over an await; a map is whole at every step.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Whether the peer's certificate is still good.
    pub(crate) fn recheck(&self, identity: &Identity) -> Result<(), Distrust> {
        let now = SystemTime::now();
        match &self.line {
            Line::Quic(connection) => {
                let chain = transport::peer_certificates(connection);
                identity.recheck(&chain, PeerRole::Client, now)
            }
            Line::WebSocket(chain, _) => identity.recheck(chain, PeerRole::Client, now),
        }
    }

    /// Cuts its connection.
    fn cut(&self) {
        match &self.line {
            Line::Quic(connection) => connection.close(transport::CLOSED, b""),
            Line::WebSocket(_, cut) => cut.cancel(),
        }
    }
}

/// Cuts off whoever is not trusted by new certificates or revocation lists, until the shutdown.
pub(crate) async fn guard(
    peers: Arc<Peers>,
    identity: Arc<Current>,
    inputs: mpsc::Sender<Input>,
    counts: Arc<Counts>,
    shutdown: CancellationToken,
) {
    let mut changes = identity.changes();
    loop {
        let identity = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            new = changes.next() => new,
            () = sleep(SWEEP_INTERVAL) => identity.get(),
        };
        let mut distrusted = Vec::new();
        for (number, (session, peer)) in peers.all().into_iter().enumerate() {
            if number % VERIFIED_AT_ONCE == VERIFIED_AT_ONCE - 1 {
                yield_now().await;
            }
            if let Err(why) = peer.recheck(&identity) {
                expel(session, &peer, why, &inputs, &counts).await;
                distrusted.push(peer);
            }
        }
        if distrusted.is_empty() {
            continue;
        }
        sleep(FAREWELL).await;
        for peer in distrusted {
            peer.cut();
        }
    }
}

/// Ends a session for good: what it still sends is not looked at.
pub(crate) async fn expel(
    session: SessionId,
    peer: &Peer,
    why: Distrust,
    inputs: &mpsc::Sender<Input>,
    counts: &Counts,
) {
    let connected = peer.since.elapsed().unwrap_or_default().as_secs();
    tracing::warn!(
        uri = %peer.uri,
        address = %peer.address,
        session = session.0,
        connected,
        reason = %why,
        "peer is not trusted any more"
    );
    counts.distrusted.add();
    let close = Input::Close {
        session,
        code: GoodbyeCode::Unauthorized,
        reason: why.to_string(),
    };
    // Without a driver the process is about to end.
    drop(inputs.send(close).await);
}
