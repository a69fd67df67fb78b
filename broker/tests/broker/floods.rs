//! Peers over QUIC that want more than their share, below the session and inside it. What they can take
//! is bounded, and nobody else notices.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pcp::{ClientType, Digest, ErrorKind, Frame, GoodbyeCode, Message, frame};
use pcp_client::Event;
use pcp_client::stream::FrameStream;
use pcp_client::transport::LARGE_MESSAGES;
use quinn::{Endpoint, TransportConfig, VarInt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::field::{MAX_MESSAGE, SOON, message};
use crate::rogues::{Peace, REQUEST, Rogue, config, uni};

/// The smallest datagram with which a connection may begin.
const FIRST: usize = 1200;

/// The code of a stream that is given up.
const GIVEN_UP: VarInt = VarInt::from_u32(9);

/// Another address of this host.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn socket(address: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind((address, 0)).await.expect("a socket")
}

/// A packet with a long header: of this version, from this id of the sender, in so many bytes.
fn long_header(version: u32, sender: [u8; 8], size: usize) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend_from_slice(&version.to_be_bytes());
    packet.push(8);
    packet.extend_from_slice(&[7; 8]);
    packet.push(8);
    packet.extend_from_slice(&sender);
    packet.resize(size, 0);
    packet
}

/// The first packets of so many connections, as a client with a good certificate sends them.
async fn first_packets(peace: &Peace, count: usize) -> Vec<Vec<u8>> {
    let catcher = socket(Ipv4Addr::LOCALHOST).await;
    let address = catcher.local_addr().expect("an address");
    let config = config(&peace.field, pcp::ALPN);
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let endpoint = Endpoint::client(any).expect("an endpoint");
    let mut packets: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut dialling = Vec::new();
    let mut buffer = [0; 2048];
    while packets.len() < count {
        let known = packets.len();
        let connecting = endpoint.connect_with(config.clone(), address, "127.0.0.1");
        dialling.push(connecting.expect("dialled"));
        while packets.len() == known {
            let received = timeout(SOON, catcher.recv(&mut buffer)).await;
            let size = received.expect("in time").expect("received");
            let packet = &buffer[..size];
            let destination = &packet[6..6 + usize::from(packet[5])];
            packets
                .entry(destination.to_vec())
                .or_insert_with(|| packet.to_vec());
        }
    }
    packets.into_values().collect()
}

/// Whatever has come back, in bytes.
fn came_back(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    let mut bytes = 0;
    while let Ok(size) = socket.try_recv(&mut buffer) {
        bytes += size;
    }
    bytes
}

/// Asks for a file that nobody has, and gives the answer.
async fn ask(rogue: &Rogue, digest: Digest) -> Frame {
    let (mut send, receive) = rogue.connection.open_bi().await.expect("a stream");
    let question = frame::to_bytes(&Frame::ContentRequest(digest));
    send.write_all(&question).await.expect("written");
    drop(send.finish());
    let mut frames = FrameStream::new(receive, 1024);
    let answer = timeout(SOON, frames.next()).await.expect("in time");
    answer.expect("a frame").expect("an answer")
}

#[tokio::test]
async fn half_open_handshakes_from_one_address_keep_out_nobody_and_draw_no_flood() {
    let mut peace = Peace::with(|config| config.handshakes_per_second = 100_000).await;
    let packets = first_packets(&peace, 700).await;
    let flood = socket(ELSEWHERE).await;
    let mut sent = 0;
    for packet in &packets {
        let to = flood.send_to(packet, peace.primary.address).await;
        sent += to.expect("sent");
    }
    peace.holds().await;
    let other = peace.field.connected("other", "agent", &peace.primary);
    timeout(SOON, other).await.expect("let in, in time");
    peace.holds().await;
    assert!(came_back(&flood) <= 3 * sent);
}

#[tokio::test]
async fn the_same_first_packet_again_and_again_is_one_handshake() {
    let mut peace = Peace::new().await;
    let packets = first_packets(&peace, 1).await;
    let flood = socket(ELSEWHERE).await;
    let mut sent = 0;
    for _ in 0..2000 {
        let to = flood.send_to(&packets[0], peace.primary.address).await;
        sent += to.expect("sent");
    }
    peace.holds().await;
    assert!(came_back(&flood) < sent);
}

#[tokio::test]
async fn unknown_versions_are_answered_with_less_than_they_sent_and_short_ones_not_at_all() {
    let mut peace = Peace::new().await;
    let flood = socket(ELSEWHERE).await;
    flood
        .connect(peace.primary.address)
        .await
        .expect("connected");
    let mut buffer = [0; 2048];
    for round in 0..200_u64 {
        let sender = round.to_be_bytes();
        let short = long_header(0x1a2a_3a4a, [0xff; 8], 100);
        flood.send(&short).await.expect("sent");
        let whole = long_header(0x1a2a_3a4a, sender, FIRST);
        flood.send(&whole).await.expect("sent");
        let answer = timeout(SOON, flood.recv(&mut buffer)).await;
        let size = answer.expect("in time").expect("received");
        assert!(size < 100, "{size} bytes");
        assert_eq!(buffer[1..5], [0; 4], "a list of versions");
        assert_eq!(buffer[6..14], sender, "for the whole one");
    }
    peace.holds().await;
}

#[tokio::test]
async fn noise_and_packets_of_no_connection_are_answered_with_less_than_they_sent() {
    let mut peace = Peace::new().await;
    let flood = socket(ELSEWHERE).await;
    let mut random = fastrand::Rng::with_seed(4);
    let mut sent = 0;
    for round in 0..3000 {
        let mut packet = vec![0; random.usize(1..1400)];
        random.fill(&mut packet);
        if round % 2 == 0 {
            // As of a connection that there was.
            packet[0] = 0x40 | packet[0] & 0x3f;
        }
        let to = flood.send_to(&packet, peace.primary.address).await;
        sent += to.expect("sent");
    }
    peace.holds().await;
    assert!(came_back(&flood) < sent);
}

#[tokio::test]
async fn keep_alives_without_a_session_keep_nothing_alive() {
    let mut peace = Peace::new().await;
    let mut config = config(&peace.field, pcp::ALPN);
    let mut lively = TransportConfig::default();
    lively.keep_alive_interval(Some(Duration::from_secs(1)));
    config.transport_config(Arc::new(lively));
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let endpoint = Endpoint::client(any).expect("an endpoint");
    let connecting = endpoint.connect_with(config, peace.primary.address, "127.0.0.1");
    let connection = connecting.expect("dialled").await.expect("a connection");
    peace.holds().await;
    let closed = timeout(SOON, connection.closed()).await;
    closed.expect("closed in time");
}

#[tokio::test]
async fn a_second_hello_ends_the_session() {
    let mut peace = Peace::new().await;
    let mut rogue = peace.welcomed().await;
    rogue.hello(ClientType::agent()).await;
    rogue.is_dropped().await;
    peace.holds().await;
}

#[tokio::test]
async fn an_agent_that_calls_itself_a_broker_is_refused() {
    let mut peace = Peace::new().await;
    let mut rogue = Rogue::connect(&peace.field, &peace.primary).await;
    rogue.hello(ClientType::server()).await;
    match rogue.frame().await {
        Some(Frame::Goodbye(goodbye)) => assert_eq!(goodbye.code, GoodbyeCode::Unauthorized),
        frame => panic!("not refused: {frame:?}"),
    }
    peace.holds().await;
}

#[tokio::test]
async fn a_session_that_is_reset_inside_a_frame_is_over() {
    let mut peace = Peace::new().await;
    let mut rogue = peace.welcomed().await;
    rogue.raw(b"\x00\x00\x20\x00\x05half").await;
    rogue.send.reset(GIVEN_UP).expect("reset");
    rogue.is_dropped().await;
    peace.holds().await;
}

#[tokio::test]
async fn one_that_reads_nothing_is_soon_busy_and_stops_nobody() {
    let mut peace = Peace::new().await;
    let _deaf = peace.welcomed().await;
    // Its queue here, and what QUIC takes for it there: a few megabytes.
    let most = MAX_MESSAGE / 10_000;
    for _ in 0..most {
        let request = message(
            &peace.orchestrator.handle,
            REQUEST,
            "pcp://rogue/agent",
            10_000,
        );
        peace.orchestrator.send(&request).await;
        peace.holds().await;
        if let Ok(Event::Message(answer)) = peace.orchestrator.events.try_recv() {
            assert_eq!(ErrorKind::from_body(&answer.body), Some(ErrorKind::Busy));
            return;
        }
    }
    panic!("never busy");
}

#[tokio::test]
async fn one_that_stops_our_stream_loses_its_session() {
    let mut peace = Peace::new().await;
    let mut rogue = peace.welcomed().await;
    rogue.frames.stop(GIVEN_UP);
    let request = message(&peace.orchestrator.handle, REQUEST, "pcp://rogue/agent", 10);
    // The broker notices when it writes.
    peace.orchestrator.send(&request).await;
    let closed = timeout(SOON, rogue.connection.closed()).await;
    closed.expect("closed in time");
    peace.holds().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_wait_until_others_are_done_with() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    let mut streams = Vec::new();
    for _ in 0..LARGE_MESSAGES {
        streams.push(uni(&rogue, b"\x00\x00\x10\x00\x05").await);
    }
    // All that was sent has arrived when this has, for it is sent last.
    ask(&rogue, Digest([0; 32])).await;
    let mut next = Box::pin(rogue.connection.open_uni());
    assert!(timeout(Duration::ZERO, &mut next).await.is_err());
    peace.holds().await;
    streams[0].reset(GIVEN_UP).expect("reset");
    let next = timeout(SOON, next).await.expect("a stream in time");
    next.expect("a stream");
}

#[tokio::test]
async fn streams_that_are_opened_and_given_up_cost_nothing() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    for round in 0..1000 {
        let opened = timeout(SOON, rogue.connection.open_uni()).await;
        let mut stream = opened.expect("in time").expect("a stream");
        if round % 2 == 0 {
            drop(stream.write_all(b"\x00\x00").await);
        }
        stream.reset(GIVEN_UP).expect("reset");
    }
    peace.holds().await;
    assert!(rogue.connection.close_reason().is_none());
}

#[tokio::test]
async fn questions_for_files_that_nobody_has_are_answered_and_hold_nobody_up() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    for round in 0..200 {
        let answer = ask(&rogue, Digest([round; 32])).await;
        assert!(matches!(answer, Frame::ContentError(_)), "{answer:?}");
        if round % 50 == 0 {
            peace.holds().await;
        }
    }
    peace.holds().await;
}

/// The memory of this process, in which the broker runs, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("a line").parse().expect("a number")
}

/// So many peers, one after the other, that begin much and finish nothing.
async fn beginners(peace: &mut Peace, count: usize, piece: usize) {
    let announced = u32::try_from(MAX_MESSAGE).expect("fits");
    let mut begun = announced.to_be_bytes().to_vec();
    begun.push(5);
    begun.resize(piece, 1);
    for _ in 0..count {
        let mut rogue = peace.welcomed().await;
        rogue.raw(b"\x00\x00\xff\x00\x05half").await;
        let mut streams = Vec::new();
        for _ in 0..LARGE_MESSAGES {
            streams.push(uni(&rogue, &begun).await);
        }
        // All that was sent has arrived when this has, for it is sent last.
        ask(&rogue, Digest([0; 32])).await;
        // A connection that is closed while much waits to be sent may not get to say so. The broker can.
        rogue.send.reset(GIVEN_UP).expect("reset");
        rogue.is_dropped().await;
        // Until then its own end, in this process, keeps what it has not sent.
        let over = timeout(SOON, rogue.endpoint.wait_idle());
        over.await.expect("over in time");
        peace.holds().await;
    }
}

#[tokio::test]
async fn what_is_begun_and_never_finished_is_forgotten_with_its_peer() {
    let mut peace = Peace::new().await;
    let (count, piece) = (40, 400 * 1024);
    // The first ones make room in which those that follow find theirs.
    beginners(&mut peace, 10, piece).await;
    let settled = resident();
    beginners(&mut peace, count, piece).await;
    let grown = resident().saturating_sub(settled);
    let kept = u64::try_from(count * piece / 1024).expect("fits");
    assert!(
        grown < kept,
        "{grown} KiB, and one stream in four kept would be {kept}"
    );
}

#[tokio::test]
async fn datagrams_are_not_taken() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    assert_eq!(rogue.connection.max_datagram_size(), None);
    peace.holds().await;
}

#[tokio::test]
async fn one_that_changes_its_address_again_and_again_keeps_one_session() {
    let mut peace = Peace::new().await;
    let mut rogue = peace.welcomed().await;
    let sound = message(
        &peace.agent.handle,
        "rpc_blocking_response",
        "pcp://orch/orchestrator",
        10,
    );
    for _ in 0..20 {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let socket = std::net::UdpSocket::bind(address).expect("a socket");
        rogue.endpoint.rebind(socket).expect("rebound");
        let mut answer: Message = sound.clone();
        answer.envelope.sender = "pcp://rogue/agent".parse().expect("a URI");
        rogue.raw(&frame::to_bytes(&Frame::Message(answer))).await;
        let got = peace.orchestrator.message().await;
        assert_eq!(got.envelope.sender.certname().as_str(), "rogue");
        peace.holds().await;
    }
    assert!(rogue.connection.close_reason().is_none());
}
