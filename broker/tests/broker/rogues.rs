//! Peers that do not keep to the protocol: each is dropped or answered, and disturbs nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::message::INLINE_LIMIT;
use pcp::{
    Announcement, ClientType, Digest, ErrorKind, Frame, GoodbyeCode, Hello, LinkFrame, Message,
};
use pcp_broker::config::Config;
use pcp_client::stream::FrameStream;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, SendStream};
use tokio::time::timeout;

use crate::field::{Client, Field, MAX_MESSAGE, Running, SOON, message};

const AGENT: &str = "pcp://node/agent";
pub(crate) const REQUEST: &str = "rpc_non_blocking_request";

/// A peer with a good certificate and bad manners.
pub(crate) struct Rogue {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) frames: FrameStream,
    pub(crate) endpoint: Endpoint,
}

/// How a rogue dials.
pub(crate) fn config(field: &Field, alpn: &[u8]) -> ClientConfig {
    let tls = field.identity("rogue").client_config(&[alpn]);
    let quic = QuicClientConfig::try_from(tls.expect("a TLS configuration"));
    ClientConfig::new(Arc::new(quic.expect("fit for QUIC")))
}

pub(crate) async fn connect(
    field: &Field,
    broker: &Running,
    alpn: &[u8],
) -> (Endpoint, Option<Connection>) {
    let config = config(field, alpn);
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let endpoint = Endpoint::client(any).expect("an endpoint");
    let connecting = endpoint
        .connect_with(config, broker.address, "127.0.0.1")
        .expect("dialled");
    (endpoint, connecting.await.ok())
}

impl Rogue {
    pub(crate) async fn connect(field: &Field, broker: &Running) -> Self {
        let (endpoint, connection) = connect(field, broker, pcp::ALPN).await;
        let connection = connection.expect("a connection");
        let (send, receive) = connection.open_bi().await.expect("a stream");
        Self {
            connection,
            send,
            frames: FrameStream::new(receive, MAX_SESSION_PAYLOAD),
            endpoint,
        }
    }

    async fn welcomed(field: &Field, broker: &Running) -> Self {
        let mut rogue = Self::connect(field, broker).await;
        rogue.hello(ClientType::agent()).await;
        let answer = rogue.frame().await;
        assert!(matches!(answer, Some(Frame::Welcome(_))), "{answer:?}");
        rogue
    }

    pub(crate) async fn hello(&mut self, client_type: ClientType) {
        let hello = Hello {
            client_type,
            software: "rogue/1".to_owned(),
            features: Vec::new(),
            started: 1,
        };
        self.raw(&frame::to_bytes(&Frame::Hello(hello))).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.expect("written");
    }

    /// The next frame, or nothing when the broker has ended it.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let frame = timeout(SOON, self.frames.next()).await;
        frame.expect("an answer in time").ok().flatten()
    }

    /// The broker hangs up, with or without a goodbye.
    pub(crate) async fn is_dropped(&mut self) {
        match self.frame().await {
            None => {}
            Some(Frame::Goodbye(goodbye)) => {
                assert_eq!(goodbye.code, GoodbyeCode::ProtocolError);
            }
            frame => panic!("not dropped: {frame:?}"),
        }
        let closed = timeout(SOON, self.connection.closed()).await;
        closed.expect("closed in time");
    }
}

/// A field where a controller and an agent talk while somebody misbehaves.
pub(crate) struct Peace {
    pub(crate) field: Field,
    pub(crate) primary: Running,
    pub(crate) orchestrator: Client,
    pub(crate) agent: Client,
}

impl Peace {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a broker that is configured in another way.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let field = Field::new();
        let mut config = field.config("primary", &[]);
        change(&mut config);
        let primary = Running::start(config);
        let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
        let agent = field.connected("node", "agent", &primary).await;
        orchestrator.wait_present(AGENT, true).await;
        Self {
            field,
            primary,
            orchestrator,
            agent,
        }
    }

    pub(crate) async fn holds(&mut self) {
        let request = message(&self.orchestrator.handle, REQUEST, AGENT, 1000);
        self.orchestrator.send(&request).await;
        assert_eq!(self.agent.message().await.envelope.id, request.envelope.id);
    }

    pub(crate) async fn welcomed(&self) -> Rogue {
        Rogue::welcomed(&self.field, &self.primary).await
    }
}

#[tokio::test]
async fn garbage_instead_of_a_hello_is_dropped() {
    let mut peace = Peace::new().await;
    let sound = message(&peace.agent.handle, REQUEST, AGENT, 1);
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
        b"\xff\xff\xff\xff\x01",
        b"\x00\x00\x00\x02\x01{}",
        b"\x00\x00\x00\x00\x63",
        &frame::to_bytes(&Frame::Message(sound)),
    ];
    for bytes in garbage {
        let mut rogue = Rogue::connect(&peace.field, &peace.primary).await;
        rogue.raw(bytes).await;
        rogue.is_dropped().await;
        peace.holds().await;
    }
}

#[tokio::test]
async fn a_half_open_hello_holds_nobody_up() {
    let mut peace = Peace::new().await;
    let mut silent = Rogue::connect(&peace.field, &peace.primary).await;
    let mut halfway = Rogue::connect(&peace.field, &peace.primary).await;
    halfway.raw(b"\x00\x00\x10\x00\x01{").await;
    peace.holds().await;
    halfway.is_dropped().await;
    silent.is_dropped().await;
    peace.holds().await;
}

#[tokio::test]
async fn another_protocol_gets_no_connection() {
    let mut peace = Peace::new().await;
    let (_endpoint, connection) = connect(&peace.field, &peace.primary, b"h3").await;
    assert!(connection.is_none());
    peace.holds().await;
}

#[tokio::test]
async fn frames_that_may_not_come_end_the_session() {
    let mut peace = Peace::new().await;
    let link = Frame::Link(LinkFrame::Snapshot {
        epoch: 1,
        last: true,
        clients: vec![Announcement {
            uri: AGENT.parse().expect("a URI"),
            started: u64::MAX,
            connected: true,
        }],
    });
    let too_large_for_the_session = message(&peace.agent.handle, REQUEST, AGENT, INLINE_LIMIT + 1);
    let nonsense: [&[u8]; 5] = [
        &frame::to_bytes(&link),
        &frame::to_bytes(&Frame::Message(too_large_for_the_session)),
        &frame::to_bytes(&Frame::ContentRequest(Digest([0; 32]))),
        b"\xff\xff\xff\xff\x05",
        b"\x00\x00\x00\x04\x05\x01\x00\x00\x00",
    ];
    for bytes in nonsense {
        let mut rogue = peace.welcomed().await;
        rogue.raw(bytes).await;
        rogue.is_dropped().await;
        peace.holds().await;
    }
}

/// A stream of its own with these bytes on it.
pub(crate) async fn uni(rogue: &Rogue, bytes: &[u8]) -> SendStream {
    let mut stream = rogue.connection.open_uni().await.expect("a stream");
    // The broker may stop the stream while we write.
    drop(stream.write_all(bytes).await);
    stream
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_by_name_and_not_read() {
    let mut peace = Peace::new().await;
    let mut rogue = peace.welcomed().await;
    let mut large: Message = message(&peace.agent.handle, REQUEST, AGENT, MAX_MESSAGE + 2000);
    large.envelope.sender = "pcp://rogue/agent".parse().expect("a URI");
    let bytes = frame::to_bytes(&Frame::Message(large.clone()));
    let _stream = uni(&rogue, &bytes[..100_000]).await;
    match rogue.frame().await {
        Some(Frame::Message(answer)) => {
            assert_eq!(answer.envelope.in_reply_to, Some(large.envelope.id));
            let kind = ErrorKind::from_body(&answer.body);
            assert_eq!(kind, Some(ErrorKind::TooLarge));
        }
        frame => panic!("not told: {frame:?}"),
    }
    peace.holds().await;
}

#[tokio::test]
async fn half_sent_and_senseless_messages_cost_only_themselves() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    let mut streams = Vec::new();
    streams.push(uni(&rogue, b"\x00\x00\x00\x10\x05half").await);
    streams.push(uni(&rogue, b"nonsense, and a lot of it, for an envelope").await);
    streams.push(uni(&rogue, b"").await);
    for stream in &mut streams {
        drop(stream.finish());
    }
    // Four streams at a time is all there is: the fifth comes only because the others are done with.
    for _ in 0..5 {
        let opened = timeout(SOON, uni(&rogue, b"\x00\x00\x00\x01\x63?"));
        let mut stream = opened.await.expect("a stream in time");
        drop(stream.finish());
        peace.holds().await;
    }
    assert!(rogue.connection.close_reason().is_none());
}

#[tokio::test]
async fn questions_without_a_question_are_cut() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    for bytes in [&b"what?"[..], b"\xff\xff\xff\xff\x07", b""] {
        let (mut send, mut receive) = rogue.connection.open_bi().await.expect("a stream");
        send.write_all(bytes).await.expect("written");
        drop(send.finish());
        let answer = timeout(SOON, receive.read_to_end(100)).await;
        let answer = answer.expect("an end in time");
        assert!(answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()));
    }
    peace.holds().await;
}

#[tokio::test]
async fn one_that_announces_much_and_sends_nothing_stops_nobody_s_large_messages() {
    let mut peace = Peace::new().await;
    let rogue = peace.welcomed().await;
    let announced = u32::try_from(MAX_MESSAGE).expect("small").to_be_bytes();
    let mut streams = Vec::new();
    for _ in 0..pcp_client::transport::LARGE_MESSAGES {
        let stream = uni(&rogue, &[announced.as_slice(), b"\x05"].concat()).await;
        // All that was sent has arrived when this has, for it is sent last.
        streams.push(stream);
    }
    let (mut ask, mut answer) = rogue.connection.open_bi().await.expect("a stream");
    ask.write_all(b"what?").await.expect("written");
    drop(ask.finish());
    drop(
        timeout(SOON, answer.read_to_end(100))
            .await
            .expect("an end"),
    );

    let result = message(
        &peace.agent.handle,
        "rpc_non_blocking_response",
        "pcp://orch/orchestrator",
        MAX_MESSAGE / 2,
    );
    peace.agent.send(&result).await;
    let got = peace.orchestrator.message().await;
    assert_eq!(got.envelope.id, result.envelope.id);
}
