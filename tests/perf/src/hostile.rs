//! What peers take of a broker's memory that have a good certificate and finish nothing, beside as many
//! that only keep still.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::Lab;
use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::message::DEFAULT_MAX_MESSAGE;
use pcp::{ClientType, Digest, Frame, Hello};
use pcp_client::stream::FrameStream;
use pcp_client::transport::{self, LARGE_MESSAGES};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, EndpointConfig, SendStream, TokioRuntime};
use tokio::time::timeout;

use crate::CONTROLLER;
use crate::controller::identity;
use crate::memory::{mib, peak, resident};
use crate::table::Table;

/// How many peers there are, each with a certificate of its own.
const PEERS: u64 = 50;

/// How long the broker may take for anything here.
const SOON: Duration = Duration::from_secs(60);

/// How much of a large message each stream brings: all of them together stay below what a client may have
/// on its way (2 MiB).
const PIECE: usize = 480 * 1024;

/// What a peer does after its hello.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Nothing.
    Still,
    /// Half of the largest frame of a session.
    HalfFrame,
    /// The beginnings of as many messages of the largest size as it may send at a time.
    HalfMessages,
}

/// A peer, and what keeps its streams open.
#[derive(Debug)]
struct Peer {
    connection: Connection,
    _endpoint: Endpoint,
    session: (SendStream, FrameStream),
    streams: Vec<SendStream>,
}

/// Measures each manner with a broker of its own.
pub(crate) async fn measure(table: &mut Table) -> Result<()> {
    let still = taken(Manner::Still).await?;
    for (manner, what, bound) in [
        (
            Manner::HalfFrame,
            "half a frame",
            "128 KiB each: a frame, and room to grow",
        ),
        (
            Manner::HalfMessages,
            "beginnings of large messages",
            "2 MiB each on their way, and 256 MiB for all",
        ),
    ] {
        let taken = taken(manner).await?;
        table.row(
            format!("broker's peak memory for {PEERS} peers: {what}"),
            mib(taken),
            format!("as many that keep still: {}", mib(still)),
            bound,
        );
    }
    Ok(())
}

/// How much more a broker has had at its peak than before, in KiB.
async fn taken(manner: Manner) -> Result<u64> {
    let lab = Lab::builder().controller(CONTROLLER).start();
    let lab = lab.context("cannot start a mesh")?;
    let pid = lab.pid("primary").context("the primary does not run")?;
    let names: Vec<_> = (1..=PEERS)
        .map(|number| format!("rogue-{number}"))
        .collect();
    lab.site().ca().issue_missing(&names)?;
    let before = resident(pid)?;
    let mut peers = Vec::new();
    for name in &names {
        let peer = timeout(SOON, Peer::connect(&lab, name)).await;
        peers.push(peer.context("not welcomed in time")??);
    }
    for peer in &mut peers {
        let behaved = timeout(SOON, peer.behave(manner)).await;
        behaved.context("not taken in time")??;
    }
    let most = peak(pid)?;
    drop(peers);
    Ok(most.saturating_sub(before))
}

impl Peer {
    /// Connects and says hello.
    async fn connect(lab: &Lab, name: &str) -> Result<Self> {
        let tls = identity(lab, name)?.get().client_config(&[pcp::ALPN])?;
        let quic = QuicClientConfig::try_from(tls)?;
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport::client(&ClientType::agent(), false)));
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let (socket, _) = transport::bind(any, None)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        )?;
        let broker = lab.broker_primary().parse()?;
        let connection = endpoint.connect_with(config, broker, "localhost")?.await?;
        let (mut send, receive) = connection.open_bi().await?;
        let hello = Frame::Hello(Hello {
            client_type: ClientType::agent(),
            software: "rogue/1".to_owned(),
            features: Vec::new(),
            started: 1,
        });
        send.write_chunk(frame::to_bytes(&hello)).await?;
        let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
        let answer = frames.next().await?;
        ensure!(matches!(answer, Some(Frame::Welcome(_))), "{answer:?}");
        Ok(Self {
            connection,
            _endpoint: endpoint,
            session: (send, frames),
            streams: Vec::new(),
        })
    }

    /// Misbehaves, and waits until the broker has got all of it.
    async fn behave(&mut self, manner: Manner) -> Result<()> {
        match manner {
            Manner::Still => {}
            Manner::HalfFrame => {
                let half = begun(MAX_SESSION_PAYLOAD, MAX_SESSION_PAYLOAD / 2)?;
                self.session.0.write_all(&half).await?;
            }
            Manner::HalfMessages => {
                let piece = begun(DEFAULT_MAX_MESSAGE, PIECE)?;
                for _ in 0..LARGE_MESSAGES {
                    let mut stream = self.connection.open_uni().await?;
                    stream.write_all(&piece).await?;
                    self.streams.push(stream);
                }
            }
        }
        // It is sent last, and answered when it has been read.
        let (mut send, receive) = self.connection.open_bi().await?;
        let question = frame::to_bytes(&Frame::ContentRequest(Digest([0; 32])));
        send.write_chunk(question).await?;
        send.finish()?;
        let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
        match frames.next().await? {
            Some(Frame::ContentError(_)) => Ok(()),
            answer => bail!("nobody has that file, and yet: {answer:?}"),
        }
    }
}

/// The beginning of a message's frame that announces `size` bytes: so many of them.
fn begun(size: usize, bytes: usize) -> Result<Vec<u8>> {
    let mut frame = u32::try_from(size)?.to_be_bytes().to_vec();
    // The kind of a message.
    frame.push(5);
    frame.resize(frame::HEADER + bytes, 1);
    Ok(frame)
}
