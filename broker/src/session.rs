//! One connection, from its first packet to its end: who it is, whether it may be here, and then the
//! pipe between its streams and the driver.

mod open;
mod pipe;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pcp::{Goodbye, GoodbyeCode};
use pcp_client::stream::StreamError;
use pcp_client::transport;
use pcp_client::woken::Woken;
use pcp_mesh::LinkKind;
use quinn::{Incoming, SendStream, WriteError};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::authorize::Kind;
use crate::context::{Context, Registered, stopping};
use crate::drain;
use crate::input::{Exit, Input, Whereabouts};
use crate::peers::{self, Line, Peer};
use crate::places::Place;
use crate::version::Version;
use open::{Opened, open};
use pipe::Pipe;

/// How long we wait at the end until the goodbye has arrived; a peer that is only sent elsewhere has longer.
const FAREWELL: Duration = Duration::from_secs(2);

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

/// Serves a connection to its end. `place` is held until it has said hello.
pub(crate) async fn serve(incoming: Box<Incoming>, context: Arc<Context>, place: Place) {
    let address = incoming.remote_address();
    // Boxed, so that the memory of a handshake is not kept for the life of the session.
    let opened = match Box::pin(open(incoming, &context)).await {
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
    } = unboxed(opened);
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
            started,
            address: Some(Whereabouts::Quic(connection.clone())),
            exit: Exit::Session(Arc::clone(&outbox)),
        },
        Kind::Agent | Kind::Controller => Input::Client {
            session,
            uri: uri.clone(),
            address: Whereabouts::Quic(connection.clone()),
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
    let writing = pin!(pipe.write(&mut send));
    let mut writing = Woken::new(writing);
    let mut end = {
        let reading = pin!(pipe.read(&mut frames, &mut state));
        let streams = pin!(async {
            tokio::select! {
                biased;
                () = pipe.accept_messages() => {}
                () = pipe.accept_queries() => {}
            }
            pending::<()>().await;
        });
        let (mut reading, mut streams) = (Woken::new(reading), Woken::new(streams));
        tokio::select! {
            biased;
            end = &mut reading => end,
            patience = &mut writing => {
                // What the peer had sent before it heard our goodbye counts all the same.
                let rest = async {
                    tokio::select! {
                        biased;
                        _ = &mut reading => {}
                        () = &mut streams => {}
                    }
                };
                drop(timeout(patience, rest).await);
                End::Closed
            }
            () = &mut streams => End::Closed,
        }
    };
    if matches!(end, End::Moving) {
        let letting_go = drain::let_go(session, context, &mut writing);
        Box::pin(letting_go).await;
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

/// What is in the box, without the box: one that is only moved out of is kept as long as its name is known,
/// which here is the life of the session.
#[expect(clippy::boxed_local, reason = "taking the box is what it is for")]
fn unboxed<T>(boxed: Box<T>) -> T {
    *boxed
}

/// The last frame, and the wait until it has arrived.
async fn farewell(send: &mut SendStream, goodbye: Bytes) -> Result<(), WriteError> {
    send.write_chunk(goodbye).await?;
    // Both fail only when the peer is gone already.
    drop(send.finish());
    drop(send.stopped().await);
    Ok(())
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
