//! A session over WebSocket: an existing peer that speaks PCP 1 or 2, or one of our own that cannot
//! use UDP. It is let in by the same rules as a session over QUIC, and is for driver and mesh the same.

pub(crate) mod dialled;
mod gateway;
mod goodbye;
mod open;
mod read;
mod write;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcp::websocket::Side;
use pcp::{Certname, Goodbye, GoodbyeCode, Uri};
use pcp_client::transport::LINK_IDLE_TIMEOUT;
use pcp_client::websocket::{WebSocketFault, WebSocketReader, WebSocketWriter};
use pcp_mesh::SessionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Registered, stopping};
use crate::gate::ALL_CONTROLLERS_LOST;
use crate::gate::Door;
use crate::http::Upgraded;
use crate::input::{Input, Whereabouts};
use crate::outbox::Outbox;
use crate::peers::{self, Line, Peer};
use crate::version::Version;
use goodbye::close;
use open::Opened;

/// How long the end may take: our close frame out, the peer's in.
const FAREWELL: Duration = Duration::from_secs(2);

type Reader = WebSocketReader<ReadHalf<TlsStream<TcpStream>>>;

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The peer closed it in good order.
    Left(String),
    /// The connection was lost, or the peer broke the protocol.
    Lost(WebSocketFault),
    /// The peer sent what is wrong in this session: with what code to close it.
    Refused { code: u16, reason: &'static str },
    /// We have closed it.
    Closed,
    /// The peer takes nothing any more.
    Stuck,
    /// The driver has ended, and the process is about to.
    Stopping,
}

/// What the halves of an open session need.
struct Session<'a> {
    id: SessionId,
    uri: &'a Uri,
    address: SocketAddr,
    version: Version,
    context: &'a Arc<Context>,
    outbox: &'a Arc<Outbox>,
}

/// Serves a connection to its end. `request` is held until it has been let in.
pub(crate) async fn serve(
    upgraded: Box<Upgraded>,
    context: Arc<Context>,
    request: OwnedSemaphorePermit,
) {
    let address = upgraded.address;
    let opened = match Box::pin(open::open(upgraded, &context)).await {
        Ok(opened) => Box::new(opened),
        Err(error) => {
            let refusals = &context.refusals;
            refusals.connection(error.cause(), error.who(), address, &error);
            return;
        }
    };
    drop(request);
    serve_opened(opened, &context).await;
}

/// Serves a session to its end.
async fn serve_opened<S>(opened: Box<Opened<S>>, context: &Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (session, uri, address) = (opened.session, opened.uri.clone(), opened.address);
    tracing::info!(
        %uri,
        %address,
        session = session.0,
        software = %opened.software,
        "connected"
    );
    let reason = match run(opened, context).await {
        End::Left(reason) => reason,
        End::Lost(error) => daemon::error_chain(&error),
        End::Refused { reason, .. } => reason.to_owned(),
        End::Closed => "closed by this broker".to_owned(),
        End::Stuck => "the peer takes nothing any more".to_owned(),
        End::Stopping => "this broker is being stopped".to_owned(),
    };
    tracing::info!(%uri, session = session.0, %reason, "disconnected");
    // Without a driver there is nobody to tell.
    drop(Box::pin(context.inputs.send(Input::Closed { session })).await);
}

async fn run<S>(opened: Box<Opened<S>>, context: &Arc<Context>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Opened {
        session,
        uri,
        started,
        software,
        version,
        mut reader,
        mut writer,
        mut native,
        outbox,
        address,
        certificates,
        identity,
        counted: _counted,
    } = *opened;
    let registered = Registered {
        session,
        outbox: &outbox,
        relay: &context.relay,
        peers: &context.peers,
    };
    let cut = CancellationToken::new();
    let peer = Peer {
        uri: uri.clone(),
        address,
        since: SystemTime::now(),
        software: software.into(),
        version,
        outbox: Arc::clone(&outbox),
        line: Line::WebSocket(certificates, cut.clone()),
    };
    context.peers.add(session, peer.clone());
    let input = Input::Client {
        session,
        uri: uri.clone(),
        address: Whereabouts::Fixed(address),
        started,
        outbox: Arc::clone(&outbox),
    };
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
    let this = Session {
        id: session,
        uri: &uri,
        address,
        version,
        context,
        outbox: &outbox,
    };
    let mut end = {
        let mut door = context.gate.watch();
        // Those who are inside leave when the door is shut; nothing else throws them out.
        let shut = async {
            if uri.is_dialled() {
                // It is whom the door waits for.
                std::future::pending::<()>().await;
            }
            if door.wait_for(|door| *door == Door::Shut).await.is_ok() {
                outbox.close(Goodbye {
                    code: GoodbyeCode::Unavailable,
                    reason: ALL_CONTROLLERS_LOST.to_owned(),
                });
            }
            std::future::pending().await
        };
        let asking = async {
            while uri.is_dialled() {
                sleep(LINK_IDLE_TIMEOUT / 3).await;
                outbox.ping();
            }
            std::future::pending().await
        };
        let reading = pin!(this.read(&mut reader, &mut native));
        let writing = pin!(this.write(&mut writer));
        tokio::select! {
            biased;
            end = reading => end,
            end = writing => end,
            () = shut => End::Closed,
            () = asking => End::Closed,
            () = cut.cancelled() => End::Closed,
        }
    };
    if outbox.closed_by_us() && !matches!(end, End::Closed) {
        // The peer has hung up on hearing our goodbye, which is the better reason.
        end = End::Closed;
    }
    drop(registered);
    let last_words = match &end {
        End::Lost(WebSocketFault::Misbehaved(error)) => Some((error.code(), error.to_string())),
        End::Lost(WebSocketFault::Silent(_)) => Some((1001, "Idle Timeout".to_owned())),
        End::Refused { code, reason } => Some((*code, (*reason).to_owned())),
        End::Left(_) => Some((1000, String::new())),
        End::Stopping => Some((1001, stopping().reason)),
        // Said already, or nobody is there to hear it.
        End::Closed | End::Stuck | End::Lost(_) => None,
    };
    if let Some((code, reason)) = last_words {
        close(&mut writer, code, &reason).await;
    }
    Box::pin(farewell(&mut reader, writer)).await;
    end
}

/// Ends the connection so that our last words arrive: closing a socket with unread bytes in it would
/// take them back.
async fn farewell<R, W>(reader: &mut WebSocketReader<R>, mut writer: WebSocketWriter<W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let end = async {
        writer.shutdown().await;
        while reader.next(FAREWELL).await.is_ok() {}
    };
    drop(timeout(FAREWELL, end).await);
}

fn split(
    stream: TlsStream<TcpStream>,
) -> (
    ReadHalf<TlsStream<TcpStream>>,
    WebSocketWriter<WriteHalf<TlsStream<TcpStream>>>,
) {
    let (read, write) = tokio::io::split(stream);
    (read, WebSocketWriter::new(write, Side::Server))
}

/// A broker's own address for its messages.
fn broker_uri(certname: &Certname) -> Uri {
    Uri::new(certname.clone(), pcp::ClientType::server())
}
