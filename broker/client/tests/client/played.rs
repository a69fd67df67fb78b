//! A broker that does exactly what a test tells it, on bare quinn.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use identity::{Current, Files, Identity, TlsVersions};
use lab_ca::CertificateAuthority;
use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::message::INLINE_LIMIT;
use pcp::{
    Certname, ClientType, Envelope, Flags, Frame, Hello, Message, MessageId, MessageType, Target,
    Uri, Welcome,
};
use pcp_client::content::{self, ContentQuery};
use pcp_client::stream::{self, FrameStream};
use pcp_client::{BrokerAddress, ClientConfig, transport};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, SendStream, ServerConfig, TokioRuntime};
use tempfile::TempDir;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// The limit that the played broker announces.
pub(crate) const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// A CA, and where its certificates lie.
pub(crate) struct Ground {
    dir: TempDir,
    ca: CertificateAuthority,
}

/// A listening socket.
pub(crate) struct Played {
    certname: Certname,
    endpoint: Endpoint,
    address: SocketAddr,
}

/// A session that was welcomed.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    frames: FrameStream,
    send: SendStream,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let ca = CertificateAuthority::create(dir.path(), "Test CA").expect("a CA");
        Self { dir, ca }
    }

    fn identity(&self, certname: &str, san: &[&str]) -> Identity {
        assert!(self.dir.path().is_dir());
        let san: Vec<String> = san.iter().map(ToString::to_string).collect();
        let ssl = self.ca.issue(certname, &san).expect("a certificate");
        let certname = Certname::parse(certname).expect("a certname");
        Identity::load(&Files::from_ssldir(&ssl.dir, &certname)).expect("an identity")
    }

    fn current(&self, certname: &str) -> Current {
        let ssl = self.ca.issue(certname, &[]).expect("a certificate");
        let certname = Certname::parse(certname).expect("a certname");
        Current::load(Files::from_ssldir(&ssl.dir, &certname)).expect("an identity")
    }

    pub(crate) fn revoke(&self, certname: &str) {
        self.ca.revoke(certname).expect("revoked");
    }

    pub(crate) fn config(
        &self,
        certname: &str,
        client_type: &str,
        brokers: &[&Played],
    ) -> ClientConfig {
        ClientConfig::new(
            brokers.iter().map(|broker| broker.address()).collect(),
            Arc::new(self.current(certname)),
            ClientType::parse(client_type).expect("a client type"),
            "test/1".to_owned(),
        )
    }

    pub(crate) fn broker(&self, certname: &str) -> Played {
        self.broker_for(certname, &["127.0.0.1"])
    }

    pub(crate) fn broker_for(&self, certname: &str, san: &[&str]) -> Played {
        let identity = self.identity(certname, san);
        let tls = identity.server_config(&[pcp::ALPN], TlsVersions::Tls13);
        let quic = QuicServerConfig::try_from(tls.expect("a TLS configuration"));
        let mut config = ServerConfig::with_crypto(Arc::new(quic.expect("fit for QUIC")));
        config.transport_config(Arc::new(transport::common()));
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let (socket, _) = transport::bind(any, None).expect("a socket");
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        );
        let endpoint = endpoint.expect("an endpoint");
        Played {
            certname: Certname::parse(certname).expect("a certname"),
            address: endpoint.local_addr().expect("an address"),
            endpoint,
        }
    }
}

impl Played {
    fn address(&self) -> BrokerAddress {
        self.address.to_string().parse().expect("an address")
    }

    /// Takes the next client and welcomes it.
    pub(crate) async fn welcome(&self) -> Peer {
        self.answer(&Frame::Welcome(Welcome {
            broker: self.certname.clone(),
            software: "played/1".to_owned(),
            features: Vec::new(),
            max_message: u64::try_from(MAX_MESSAGE).expect("fits"),
            server_time: 0,
        }))
        .await
    }

    /// Waits until all connections that were closed are over for the clients, too.
    pub(crate) async fn all_closed(&self) {
        let closed = self.endpoint.wait_idle();
        timeout(SOON, closed).await.expect("closed in time");
    }

    /// Takes the next client, which does not want us.
    pub(crate) async fn fail(&self) {
        let incoming = self.endpoint.accept().await.expect("an endpoint");
        assert!(incoming.await.is_err(), "the handshake succeeded");
    }

    /// Takes the next client and answers its hello.
    pub(crate) async fn answer(&self, answer: &Frame) -> Peer {
        let taken = timeout(SOON, async {
            let incoming = self.endpoint.accept().await.expect("an endpoint");
            let connection = incoming.await.expect("a handshake");
            let (send, receive) = connection.accept_bi().await.expect("a stream");
            let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
            let Some(Frame::Hello(hello)) = frames.next().await.expect("a frame") else {
                panic!("the first frame is no hello");
            };
            let mut peer = Peer {
                connection,
                hello,
                frames,
                send,
            };
            peer.send(answer).await;
            peer
        });
        taken.await.expect("a client in time")
    }
}

impl Peer {
    /// Sends a frame, a large message on its own stream.
    pub(crate) async fn send(&mut self, frame: &Frame) {
        match frame {
            Frame::Message(message) if message.size() > INLINE_LIMIT => {
                let sent = stream::send_message(&self.connection, message.clone());
                sent.await.expect("sent");
            }
            frame => self.raw(&frame::to_bytes(frame)).await,
        }
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.expect("written");
    }

    pub(crate) async fn raw_uni(&mut self, bytes: &[u8]) {
        let mut stream = self.connection.open_uni().await.expect("a stream");
        stream.write_all(bytes).await.expect("written");
        stream.finish().expect("open");
    }

    /// The next frame of the session stream.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let frame = timeout(SOON, self.frames.next()).await;
        frame.expect("a frame in time").expect("a frame")
    }

    /// The next message, wherever it comes.
    pub(crate) async fn message(&mut self) -> Message {
        tokio::select! {
            frame = self.frames.next() => match frame.expect("a frame") {
                Some(Frame::Message(message)) => message,
                frame => panic!("no message: {frame:?}"),
            },
            stream = self.connection.accept_uni() => {
                let stream = stream.expect("a stream");
                stream::read_message(stream, MAX_MESSAGE).await.expect("a message")
            }
        }
    }

    /// The next question for a file.
    pub(crate) async fn query(&self) -> ContentQuery {
        let (send, receive) = self.connection.accept_bi().await.expect("a stream");
        content::question(send, receive).await.expect("a question")
    }
}

/// A message with a body of so many bytes.
pub(crate) fn message(sender: &Uri, size: usize) -> Message {
    Message {
        envelope: Envelope {
            id: MessageId(uuid::Uuid::new_v4()),
            message_type: MessageType::of("rpc_non_blocking_response"),
            sender: sender.clone(),
            target: Target::Broker,
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: vec![b'x'; size].into(),
    }
}
