//! One connection, from its first packet to its end: who it is, whether it may be here, and then the
//! pipe between its streams and the driver.

mod open;
mod pipe;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use identity::Current;
use pcp::{Certname, Goodbye, GoodbyeCode};
use pcp_client::stream::StreamError;
use pcp_client::transport;
use pcp_mesh::{LinkKind, SessionId};
use quinn::{Incoming, SendStream, WriteError};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::authorize::{Kind, Rules};
use crate::budget::Budget;
use crate::content::Relay;
use crate::counts::Counts;
use crate::drain;
use crate::driver::{Exit, Input};
use crate::entrance::Place;
use crate::gate::Gate;
use crate::listener::Server;
use crate::outbox::Outbox;
use crate::peers::{self, Line, Peer, Peers};
use crate::refusals::Refusals;
use crate::tally::Tally;
use crate::tcp::Tls;
use crate::websocket::{Starts, Version};
use open::{Opened, open};
use pipe::Pipe;

/// How long we wait at the end until the goodbye has arrived.
const FAREWELL: Duration = Duration::from_secs(2);

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

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The peer said goodbye, or closed the stream in good order.
    Left(String),
    /// The peer goes to another broker, and waits for our goodbye.
    Moving,
    /// The connection was lost, or the peer broke the protocol.
    Lost(StreamError),
    /// We have said goodbye.
    Closed,
    /// The driver has ended, and the process is about to.
    Stopping,
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

/// Serves a connection to its end. `place` is held until it has said hello.
pub(crate) async fn serve(incoming: Box<Incoming>, context: Arc<Context>, place: Place) {
    let address = incoming.remote_address();
    // Boxed, so that the memory of a handshake is not kept for the life of the session.
    let opened = match Box::pin(open(*incoming, &context)).await {
        Ok(opened) => Box::new(opened),
        Err(error) => {
            let refusals = &context.refusals;
            refusals.connection(error.cause(), error.who(), address, &error);
            return;
        }
    };
    drop(place);
    let session = opened.session;
    let uri = opened.uri.clone();
    tracing::info!(
        %uri,
        %address,
        session = session.0,
        software = %opened.software,
        "connected"
    );
    let reason = match run(opened, &context).await {
        End::Left(reason) => reason,
        End::Moving => "the peer goes to another broker".to_owned(),
        End::Lost(error) => daemon::error_chain(&error),
        End::Closed => "closed by this broker".to_owned(),
        End::Stopping => "this broker is being stopped".to_owned(),
    };
    tracing::info!(%uri, session = session.0, %reason, "disconnected");
    // Without a driver there is nobody to tell.
    drop(Box::pin(context.inputs.send(Input::Closed { session })).await);
}

async fn run(opened: Box<Opened>, context: &Arc<Context>) -> End {
    let Opened {
        session,
        uri,
        kind,
        started,
        software,
        offers_content,
        address,
        identity,
        connection,
        mut state,
        mut frames,
        counted: _counted,
        mut send,
        outbox,
    } = *opened;
    let registered = Registered {
        session,
        outbox: &outbox,
        relay: &context.relay,
        peers: &context.peers,
    };
    let peer = Peer {
        uri: uri.clone(),
        address,
        since: SystemTime::now(),
        software: software.into(),
        version: Version::Native,
        outbox: Arc::clone(&outbox),
        line: Line::Quic(connection.clone()),
    };
    context.peers.add(session, peer.clone());
    if offers_content {
        context.relay.add(session, connection.clone());
    }
    let from_primary = kind == Kind::Broker && context.rules.is_primary(uri.certname());
    let input = match kind {
        Kind::Broker => Input::Link {
            session,
            broker: uri.certname().clone(),
            kind: if from_primary {
                LinkKind::Peer
            } else {
                LinkKind::Down
            },
            address: Some(address),
            exit: Exit::Session(Arc::clone(&outbox)),
        },
        Kind::Agent | Kind::Controller => Input::Client {
            session,
            uri: uri.clone(),
            address,
            started,
            outbox: Arc::clone(&outbox),
        },
    };
    // Boxed, as are the other moments of a session: their room is not kept for its life.
    if Box::pin(context.inputs.send(input)).await.is_err() {
        outbox.close(stopping());
    }

    let in_use = context.identity.get();
    if !Arc::ptr_eq(&identity, &in_use)
        && let Err(why) = peer.recheck(&in_use)
    {
        // Whoever went through all sessions on the change did not find this one yet.
        let expelling = peers::expel(session, &peer, why, &context.inputs, &context.counts);
        Box::pin(expelling).await;
    }
    drop((identity, in_use, peer));

    let receiving = TaskTracker::new();
    let pipe = Pipe {
        receiving: &receiving,
        session,
        uri: &uri,
        from_primary,
        context,
        outbox: &outbox,
        connection: &connection,
    };
    let mut writing = pin!(pipe.write(&mut send));
    let mut end = {
        let mut reading = pin!(pipe.read(&mut frames, &mut state));
        let mut streams = pin!(async {
            tokio::select! {
                biased;
                () = pipe.accept_messages() => {}
                () = pipe.accept_queries() => {}
            }
            pending::<()>().await;
        });
        tokio::select! {
            biased;
            end = &mut reading => end,
            () = &mut writing => {
                // What the peer had sent before it heard our goodbye counts all the same.
                let rest = async {
                    tokio::select! {
                        biased;
                        _ = &mut reading => {}
                        () = &mut streams => {}
                    }
                };
                drop(timeout(FAREWELL, rest).await);
                End::Closed
            }
            () = &mut streams => End::Closed,
        }
    };
    if matches!(end, End::Moving) {
        Box::pin(drain::let_go(session, &context.inputs, &mut writing)).await;
    }
    if matches!(end, End::Left(_) | End::Moving) {
        // What it had sent before its goodbye has arrived, and may not all be read yet.
        receiving.close();
        let rest = async {
            tokio::select! {
                biased;
                () = pipe.accept_messages() => pending().await,
                () = receiving.wait() => {}
            }
        };
        drop(timeout(FAREWELL, rest).await);
    }
    let mut code = transport::CLOSED;
    if outbox.closed_by_us() {
        // The peer has hung up on hearing our goodbye, which is the better reason.
        end = End::Closed;
    } else if let End::Lost(error) = &end
        && error.is_misbehaviour()
    {
        code = transport::MISBEHAVED;
        outbox.close(Goodbye {
            code: GoodbyeCode::ProtocolError,
            reason: daemon::error_chain(error),
        });
        // A courtesy, to a peer that has not earned it.
        drop(timeout(FAREWELL, writing).await);
    }
    drop(registered);
    connection.close(code, b"");
    end
}

/// The last frame, and the wait until it has arrived.
async fn farewell(send: &mut SendStream, goodbye: Bytes) -> Result<(), WriteError> {
    send.write_chunk(goodbye).await?;
    // Both fail only when the peer is gone already.
    drop(send.finish());
    drop(send.stopped().await);
    Ok(())
}

pub(crate) fn stopping() -> Goodbye {
    Goodbye {
        code: GoodbyeCode::GoingAway,
        reason: "the broker is being stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, R>(_: fn(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_session_s_task_is_small_since_there_are_ten_thousand() {
        assert!(size(serve) <= 3072, "{} bytes", size(serve));
    }
}
