//! A broker that does exactly what a test tells it, on bare quinn, with a controller behind it.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use identity::{Files, Identity, TlsVersions};
use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::message::{DEFAULT_MAX_MESSAGE, INLINE_LIMIT};
use pcp::{
    Certname, ContentError, ContentErrorCode, Digest, Envelope, Flags, Frame, Message, MessageId,
    MessageType, Target, Uri, Welcome,
};
use pcp_client::stream::{self, FrameStream};
use pcp_client::{content, transport};
use pxp::MessageKind;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, SendStream, ServerConfig, TokioRuntime};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::Digest as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A listening broker, and the files that it can give.
pub(crate) struct Broker {
    endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    files: Arc<Shelf>,
}

#[derive(Default)]
struct Shelf {
    content: Mutex<HashMap<Digest, Vec<u8>>>,
    /// Files whose size is told and of which no byte ever comes.
    stuck: Mutex<HashSet<Digest>>,
    questions: AtomicUsize,
}

/// A session with an agent.
pub(crate) struct Peer {
    connection: Connection,
    send: SendStream,
    messages: mpsc::Receiver<Message>,
    tasks: daemon::Tasks,
    agent: Uri,
    /// How long an answer is waited for.
    pub(crate) patience: Duration,
}

/// An answer of the agent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kind: String,
    pub(crate) envelope: Envelope,
    pub(crate) body: Value,
}

impl Broker {
    pub(crate) fn start(ssl: &lab_ca::SslDir) -> Self {
        let certname = Certname::parse("broker").unwrap();
        let identity = Identity::load(&Files::from_ssldir(&ssl.dir, &certname)).unwrap();
        let tls = identity
            .server_config(&[pcp::ALPN], TlsVersions::Tls13)
            .unwrap();
        let quic = QuicServerConfig::try_from(tls).unwrap();
        let mut config = ServerConfig::with_crypto(Arc::new(quic));
        config.transport_config(Arc::new(transport::common()));
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let (socket, _) = transport::bind(any, None).unwrap();
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        Self {
            address: endpoint.local_addr().unwrap(),
            endpoint,
            files: Arc::default(),
        }
    }

    /// Has a file to give; its digest.
    pub(crate) fn has(&self, content: &[u8]) -> Digest {
        let digest = Digest(sha2::Sha256::digest(content).into());
        self.lies(digest, content);
        digest
    }

    /// Gives this content for a digest, right or wrong.
    pub(crate) fn lies(&self, digest: Digest, content: &[u8]) {
        self.files
            .content
            .lock()
            .unwrap()
            .insert(digest, content.to_vec());
    }

    /// How often a file was asked for.
    /// Has the file, but never gets round to sending it.
    pub(crate) fn withholds(&self, digest: Digest) {
        self.files.stuck.lock().unwrap().insert(digest);
    }

    pub(crate) fn questions(&self) -> usize {
        self.files.questions.load(Ordering::SeqCst)
    }

    /// Lets somebody in who only wants to see whether it can come in.
    pub(crate) async fn shake_hands(&self) {
        let incoming = self.endpoint.accept().await.expect("an endpoint");
        let connection = incoming.await.expect("a handshake");
        connection.closed().await;
    }

    /// Takes the next agent.
    pub(crate) async fn welcome(&self) -> Peer {
        let taken = timeout(SOON, async {
            let incoming = self.endpoint.accept().await.expect("an endpoint");
            let connection = incoming.await.expect("a handshake");
            let (send, receive) = connection.accept_bi().await.expect("a stream");
            let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
            let hello = frames.next().await.expect("a frame");
            assert!(matches!(hello, Some(Frame::Hello(_))), "{hello:?}");
            (connection, send, frames)
        });
        let (connection, mut send, frames) = taken.await.expect("an agent in time");
        let welcome = Frame::Welcome(Welcome {
            broker: Certname::parse("broker").unwrap(),
            software: "played/1".to_owned(),
            features: Vec::new(),
            max_message: u64::try_from(DEFAULT_MAX_MESSAGE).unwrap(),
            server_time: 0,
        });
        send.write_all(&frame::to_bytes(&welcome))
            .await
            .expect("written");
        let tasks = daemon::Tasks::new();
        let (sender, messages) = mpsc::channel(256);
        tasks.spawn("small", small(frames, sender.clone()));
        tasks.spawn("large", large(connection.clone(), sender));
        tasks.spawn(
            "content",
            give(connection.clone(), Arc::clone(&self.files), tasks.clone()),
        );
        Peer {
            connection,
            send,
            messages,
            tasks,
            agent: "pcp://node/agent".parse().unwrap(),
            patience: SOON,
        }
    }
}

async fn small(mut frames: FrameStream, sender: mpsc::Sender<Message>) {
    while let Ok(Some(frame)) = frames.next().await {
        if let Frame::Message(message) = frame {
            sender.send(message).await.ok();
        }
    }
}

async fn large(connection: Connection, sender: mpsc::Sender<Message>) {
    while let Ok(stream) = connection.accept_uni().await {
        if let Ok(message) = stream::read_message(stream, DEFAULT_MAX_MESSAGE).await {
            sender.send(message).await.ok();
        }
    }
}

async fn give(connection: Connection, files: Arc<Shelf>, tasks: daemon::Tasks) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let files = Arc::clone(&files);
        tasks.spawn("file", async move {
            let query = content::question(send, receive).await.expect("a question");
            files.questions.fetch_add(1, Ordering::SeqCst);
            if files.stuck.lock().unwrap().contains(&query.digest) {
                let (nothing, _kept) = tokio::io::duplex(1);
                query.found(1, nothing).await.ok();
                return;
            }
            let content = files.content.lock().unwrap().get(&query.digest).cloned();
            match content {
                Some(content) => {
                    let size = u64::try_from(content.len()).unwrap();
                    query.found(size, content.as_slice()).await.ok();
                }
                None => {
                    let error = ContentError {
                        code: ContentErrorCode::Unauthorized,
                        message: "not for you".to_owned(),
                    };
                    query.refuse(error).await.ok();
                }
            }
        });
    }
}

impl Peer {
    /// Sends a request of the controller `orchestrator`, which acknowledges outcomes.
    pub(crate) async fn request(&mut self, kind: MessageKind, body: &str) -> MessageId {
        self.request_of(
            "pcp://orchestrator/orchestrator",
            Flags::ACKNOWLEDGES,
            kind,
            body,
        )
        .await
    }

    pub(crate) async fn request_of(
        &mut self,
        sender: &str,
        flags: Flags,
        kind: MessageKind,
        body: &str,
    ) -> MessageId {
        let id = MessageId(uuid::Uuid::new_v4());
        let message = Message {
            envelope: Envelope {
                id,
                message_type: MessageType::of(kind.name()),
                sender: sender.parse().unwrap(),
                target: Target::Client(self.agent.clone()),
                in_reply_to: None,
                hops: 1,
                flags,
            },
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        if message.size() > INLINE_LIMIT {
            let sent = stream::send_message(&self.connection, message);
            sent.await.expect("sent");
        } else {
            let bytes = frame::to_bytes(&Frame::Message(message));
            self.send.write_all(&bytes).await.expect("written");
        }
        id
    }

    pub(crate) async fn acknowledge(&mut self, id: &str) {
        let body = format!(r#"{{"transaction_id":"{id}"}}"#);
        self.request(MessageKind::OutcomeAcknowledgement, &body)
            .await;
    }

    /// The next message of the agent.
    pub(crate) async fn answer(&mut self) -> Answer {
        let message = timeout(self.patience, self.messages.recv()).await;
        let message = message.expect("a message in time").expect("a session");
        Answer {
            kind: message
                .envelope
                .message_type
                .name()
                .unwrap_or_default()
                .to_owned(),
            body: serde_json::from_slice(&message.body).expect("JSON"),
            envelope: message.envelope,
        }
    }

    /// The next message, which must be of this kind.
    pub(crate) async fn expect(&mut self, kind: MessageKind) -> Value {
        let answer = self.answer().await;
        assert_eq!(answer.kind, kind.name(), "{}", answer.body);
        answer.body
    }

    /// The next message, which must be the outcome of this transaction.
    pub(crate) async fn outcome(&mut self, id: &str) -> Value {
        let body = self.expect(MessageKind::NonBlockingResponse).await;
        assert_eq!(body["transaction_id"], id);
        body["results"].clone()
    }

    /// The next message, which must be an error of this transaction; its text.
    pub(crate) async fn error(&mut self, id: &str) -> String {
        let (of, text) = self.any_error().await;
        assert_eq!(of, id);
        text
    }

    /// The next message, which must be an error; its transaction and its text.
    pub(crate) async fn any_error(&mut self) -> (String, String) {
        let body = self.expect(MessageKind::Error).await;
        let text = |key: &str| body[key].as_str().expect("a text").to_owned();
        (text("transaction_id"), text("description"))
    }

    /// Asks a blocking question and takes the next message as its answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &mut self,
        module: &str,
        action: &str,
        params: &str,
    ) -> T {
        self.request(
            MessageKind::BlockingRequest,
            &blocking(module, action, params),
        )
        .await;
        let body = self.expect(MessageKind::BlockingResponse).await;
        serde_json::from_value(body["results"].clone()).expect("results")
    }

    /// Asks a question whose answer shows that the agent has sent nothing before it.
    pub(crate) async fn nothing_waits(&mut self) {
        let pong: Value = self.ask("ping", "ping", "{}").await;
        assert_eq!(pong, serde_json::json!({"request_hops": []}));
    }

    /// Asks until the transaction has this status.
    pub(crate) async fn status(&mut self, id: &str, wanted: pxp::Status) -> pxp::StatusResult {
        let params = format!(r#"{{"transaction_id":"{id}"}}"#);
        let asked = timeout(SOON, async {
            loop {
                let result: pxp::StatusResult = self.ask("status", "query", &params).await;
                if result.status == wanted {
                    return result;
                }
            }
        });
        asked.await.expect("the status in time")
    }

    /// The certificate that the agent has shown.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let shown = self.connection.peer_identity().expect("a certificate");
        let shown = shown.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>();
        shown.expect("certificates")[0].to_vec()
    }

    /// Drops the connection without a word.
    pub(crate) async fn drop_connection(self) {
        self.connection.close(0_u32.into(), b"");
        self.tasks.shutdown(SOON).await;
    }
}

pub(crate) fn blocking(module: &str, action: &str, params: &str) -> String {
    format!(r#"{{"transaction_id":"q","module":"{module}","action":"{action}","params":{params}}}"#)
}
