//! Existing peers, played from the description of PCP 1 and 2 alone: another implementation of
//! WebSocket, JSON by hand, chunks by hand. Nothing of the broker's own codecs is used here.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use uuid::Uuid;

use crate::field::{Field, Running, SOON};

pub(crate) const PREFIX: &str = "http://puppetlabs.com/";

/// A version of PCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pcp {
    One,
    Two,
}

/// A peer behind its WebSocket.
pub(crate) struct Foreign {
    pub(crate) pcp: Pcp,
    pub(crate) uri: String,
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
}

/// A received message, of either version, in the words of PCP 2.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) message_type: String,
    pub(crate) sender: Option<String>,
    pub(crate) targets: Vec<String>,
    pub(crate) in_reply_to: Option<String>,
    pub(crate) data: Value,
}

/// What came instead of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    /// A close frame.
    With(u16, String),
    /// None.
    Cut,
}

/// A TLS connection with this certificate, or without any.
pub(crate) async fn tls(
    field: &Field,
    certname: Option<&str>,
    broker: &Running,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = match certname {
        Some(certname) => field
            .identity(certname)
            .client_config(&[])
            .expect("a TLS configuration"),
        None => Arc::new(anonymous(field)),
    };
    let stream = TcpStream::connect(broker.address).await?;
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(config).connect(name, stream).await
}

/// A client that knows the CA and shows nothing.
fn anonymous(field: &Field) -> rustls::ClientConfig {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let ca = field.files("orch").ca;
    for certificate in CertificateDer::pem_file_iter(ca).expect("a file") {
        drop(roots.add(certificate.expect("a certificate")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The head of a request that asks for a WebSocket.
pub(crate) fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Reads the head of an answer, and nothing behind it.
pub(crate) async fn head<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await.expect("in time");
        match byte {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

impl Foreign {
    /// Connects; the status line when there is no WebSocket.
    pub(crate) async fn dial(
        field: &Field,
        certname: Option<&str>,
        path: &str,
        broker: &Running,
    ) -> Result<Self, String> {
        let mut stream = tls(field, certname, broker).await.expect("a handshake");
        let request = upgrade(path, "");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = head(&mut stream).await;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head.lines().next().unwrap_or_default().to_owned());
        }
        // The example of RFC 6455.
        let accept = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
        assert!(head.to_lowercase().contains(accept), "{head}");
        let client_type = match path.rsplit('/').next() {
            Some("pcp" | "pcp2" | "") | None => "agent",
            Some(client_type) => client_type,
        };
        Ok(Self {
            pcp: if path == "/pcp" || (path.starts_with("/pcp/") && !path.contains("vNext")) {
                Pcp::One
            } else {
                Pcp::Two
            },
            uri: format!("pcp://{}/{client_type}", certname.unwrap_or_default()),
            socket: WebSocketStream::from_raw_socket(stream, Role::Client, None).await,
        })
    }

    /// A controller or an agent of PCP 2 that is let in.
    pub(crate) async fn two(
        field: &Field,
        certname: &str,
        client_type: &str,
        broker: &Running,
    ) -> Self {
        let path = format!("/pcp2/{client_type}");
        let dialled = Self::dial(field, Some(certname), &path, broker).await;
        dialled.expect("a WebSocket")
    }

    /// A client of PCP 1 that is associated. An agent's path is bare, as the C++ client has it.
    pub(crate) async fn one(
        field: &Field,
        certname: &str,
        client_type: &str,
        broker: &Running,
    ) -> Self {
        let path = match client_type {
            "agent" => "/pcp".to_owned(),
            other => format!("/pcp/{other}"),
        };
        let dialled = Self::dial(field, Some(certname), &path, broker).await;
        let mut client = dialled.expect("a WebSocket");
        let uri = client.uri.clone();
        let response = client.associate(&uri).await.expect("an answer");
        assert_eq!(response["success"], true, "{response}");
        client
    }

    /// Sends an associate_request in this name and gives the answer's data.
    pub(crate) async fn associate(&mut self, sender: &str) -> Result<Value, Closed> {
        let id = Uuid::new_v4().to_string();
        let envelope = envelope(&id, "associate_request", &["pcp:///server"], sender);
        self.binary(chunks(&envelope, None)).await;
        let answer = self.receive().await?;
        assert_eq!(answer.message_type, format!("{PREFIX}associate_response"));
        assert_eq!(answer.sender.as_deref(), Some("pcp:///server"));
        assert_eq!(answer.data["id"], id.as_str());
        Ok(answer.data)
    }

    pub(crate) async fn text(&mut self, text: impl Into<String>) {
        let sent = self.socket.send(Message::text(text.into())).await;
        sent.expect("sent");
    }

    pub(crate) async fn binary(&mut self, bytes: Vec<u8>) {
        let sent = self.socket.send(Message::binary(bytes)).await;
        sent.expect("sent");
    }

    /// Sends a message in the client's version; gives its id.
    pub(crate) async fn send(&mut self, name: &str, target: &str, data: &Value) -> String {
        let sender = self.uri.clone();
        self.send_as(&sender, name, target, data).await
    }

    pub(crate) async fn send_as(
        &mut self,
        sender: &str,
        name: &str,
        target: &str,
        data: &Value,
    ) -> String {
        let id = Uuid::new_v4().to_string();
        match self.pcp {
            Pcp::One => {
                let envelope = envelope(&id, name, &[target], sender);
                self.binary(chunks(&envelope, Some(data.to_string().as_bytes())))
                    .await;
            }
            Pcp::Two => {
                let message = json!({
                    "id": id, "message_type": format!("{PREFIX}{name}"),
                    "target": target, "sender": sender, "data": data,
                });
                self.text(message.to_string()).await;
            }
        }
        id
    }

    /// What comes next: a message, or the end.
    pub(crate) async fn receive(&mut self) -> Result<Received, Closed> {
        loop {
            let frame = timeout(SOON, self.socket.next()).await.expect("in time");
            match frame {
                Some(Ok(Message::Text(text))) if self.pcp == Pcp::Two => {
                    return Ok(of_text(&text));
                }
                Some(Ok(Message::Binary(bytes))) if self.pcp == Pcp::One => {
                    return Ok(of_chunks(&bytes));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err(Closed::With(close.code.into(), close.reason.to_string()));
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(Closed::Cut),
                Some(Ok(other)) => panic!("not of this version: {other:?}"),
            }
        }
    }

    pub(crate) async fn message(&mut self) -> Received {
        self.receive().await.expect("a message")
    }

    /// How the broker ends it.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.receive().await {
                return closed;
            }
        }
    }

    /// An error in answer to a message.
    pub(crate) async fn refused(&mut self, id: &str, text: &str) {
        let error = self.message().await;
        assert_eq!(error.message_type, format!("{PREFIX}error_message"));
        match self.pcp {
            Pcp::Two => {
                assert_eq!(error.data, json!(text));
                assert_eq!(error.in_reply_to.as_deref(), Some(id));
                assert_eq!(error.sender, None);
                assert!(error.targets.is_empty());
            }
            Pcp::One => {
                assert_eq!(error.data, json!({"id": id, "description": text}));
                assert_eq!(error.sender.as_deref(), Some("pcp:///server"));
            }
        }
    }

    /// The connected clients that match, by an inventory query.
    pub(crate) async fn inventory(&mut self, query: &[&str], subscribe: bool) -> Vec<String> {
        let mut data = json!({ "query": query });
        if subscribe {
            data["subscribe"] = json!(true);
        }
        let id = self.send("inventory_request", "pcp:///server", &data).await;
        loop {
            let answer = self.message().await;
            if answer.message_type == format!("{PREFIX}inventory_response") {
                assert_eq!(answer.in_reply_to.as_deref(), Some(id.as_str()));
                assert_eq!(answer.sender.as_deref(), Some("pcp:///server"));
                let uris = answer.data["uris"].as_array().expect("a list").iter();
                return uris
                    .map(|uri| uri.as_str().expect("a URI").to_owned())
                    .collect();
            }
        }
    }

    /// The next update of the inventory.
    pub(crate) async fn changes(&mut self) -> Vec<(String, i64)> {
        let update = self.message().await;
        assert_eq!(update.message_type, format!("{PREFIX}inventory_update"));
        let changes = update.data["changes"].as_array().expect("a list").iter();
        changes
            .map(|change| {
                let client = change["client"].as_str().expect("a URI").to_owned();
                (client, change["change"].as_i64().expect("a number"))
            })
            .collect()
    }

    /// Asks until the inventory has (or has not) a client.
    pub(crate) async fn wait_present(&mut self, uri: &str, present: bool) {
        let wait = async {
            while self
                .inventory(&[uri], false)
                .await
                .contains(&uri.to_owned())
                != present
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, wait).await.expect("in time");
    }

    /// Nothing comes, as far as the broker has anything to say before it answers a question. For
    /// controllers.
    pub(crate) async fn hears_nothing(&mut self) {
        let id = self
            .send("inventory_request", "pcp:///server", &json!({"query": []}))
            .await;
        let answer = self.message().await;
        assert_eq!(
            answer.in_reply_to.as_deref(),
            Some(id.as_str()),
            "{answer:?}"
        );
    }

    /// Leaves in good order, and is gone.
    pub(crate) async fn leave(mut self) {
        self.socket.close(None).await.expect("closed");
        let gone = async { while let Some(Ok(_)) = self.socket.next().await {} };
        timeout(SOON, gone).await.expect("in time");
    }

    /// Sends a ping and waits for its answer.
    pub(crate) async fn ping(&mut self) {
        let payload = b"are you there?".to_vec();
        let sent = self
            .socket
            .send(Message::Ping(payload.clone().into()))
            .await;
        sent.expect("sent");
        loop {
            let frame = timeout(SOON, self.socket.next()).await.expect("in time");
            match frame.expect("open").expect("a frame") {
                Message::Pong(got) => {
                    assert_eq!(*got, *payload);
                    return;
                }
                Message::Text(_) | Message::Binary(_) => {}
                other => panic!("no pong: {other:?}"),
            }
        }
    }
}

/// The envelope of PCP 1.
pub(crate) fn envelope(id: &str, name: &str, targets: &[&str], sender: &str) -> Value {
    json!({
        "id": id, "message_type": format!("{PREFIX}{name}"), "targets": targets,
        "expires": "2026-01-01T00:00:00.000Z", "sender": sender,
    })
}

/// A frame of PCP 1.
pub(crate) fn chunks(envelope: &Value, data: Option<&[u8]>) -> Vec<u8> {
    let mut frame = vec![1];
    let envelope = envelope.to_string();
    for (kind, content) in [(1, Some(envelope.as_bytes())), (2, data)] {
        let Some(content) = content else { continue };
        frame.push(kind);
        let length = i32::try_from(content.len()).expect("short");
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(content);
    }
    frame
}

fn of_text(text: &str) -> Received {
    let message: Value = serde_json::from_str(text).expect("JSON");
    let keys = message.as_object().expect("an object").keys();
    for key in keys {
        let known = [
            "id",
            "message_type",
            "target",
            "sender",
            "in_reply_to",
            "data",
        ];
        assert!(known.contains(&key.as_str()), "{key}");
    }
    let field = |key: &str| message[key].as_str().map(str::to_owned);
    Received {
        id: field("id").expect("an id"),
        message_type: field("message_type").expect("a type"),
        sender: field("sender"),
        targets: field("target").into_iter().collect(),
        in_reply_to: field("in_reply_to"),
        data: message["data"].clone(),
    }
}

fn of_chunks(frame: &[u8]) -> Received {
    assert_eq!(frame[0], 1);
    let mut rest = &frame[1..];
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(rest[1..5].try_into().expect("four bytes"));
        let end = 5 + usize::try_from(length).expect("not negative");
        parts.push((rest[0] & 0x0f, &rest[5..end]));
        rest = &rest[end..];
    }
    let (1, envelope) = parts[0] else {
        panic!("no envelope first");
    };
    let envelope: Value = serde_json::from_slice(envelope).expect("JSON");
    for key in ["id", "message_type", "expires", "targets", "sender"] {
        assert!(!envelope[key].is_null(), "{key} is missing");
    }
    let data = parts.iter().find(|(kind, _)| *kind == 2);
    let data = data.map_or(Value::Null, |(_, data)| {
        serde_json::from_slice(data)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(data).into_owned()))
    });
    let targets = envelope["targets"].as_array().expect("a list").iter();
    Received {
        id: envelope["id"].as_str().expect("an id").to_owned(),
        message_type: envelope["message_type"]
            .as_str()
            .expect("a type")
            .to_owned(),
        sender: envelope["sender"].as_str().map(str::to_owned),
        targets: targets
            .map(|target| target.as_str().expect("a URI").to_owned())
            .collect(),
        in_reply_to: envelope["in-reply-to"].as_str().map(str::to_owned),
        data,
    }
}
