//! A WebSocket server that is not ours, and speaks what a test lets it: an original broker, or a
//! controller that brokers dial.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use identity::{Files, Identity, TlsVersions};
use pcp_client::websocket::accept_key;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use uuid::Uuid;

use crate::field::{Field, SOON};
use crate::foreign::PREFIX;

/// A listening server with a certificate of the field's CA.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    files: Files,
    failed: Notify,
}

/// A client that has come.
pub(crate) struct Guest {
    /// The certname of its certificate.
    pub(crate) certname: String,
    /// Which path it asked for.
    pub(crate) path: String,
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Served {
    pub(crate) async fn new(field: &Field, certname: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(field, certname, listener)
    }

    /// The same at an address where one has been before.
    pub(crate) async fn at(field: &Field, certname: &str, address: SocketAddr) -> Self {
        let free = async {
            loop {
                if let Ok(listener) = TcpListener::bind(address).await {
                    return listener;
                }
                tokio::task::yield_now().await;
            }
        };
        let listener = timeout(SOON, free).await.expect("free in time");
        Self::on(field, certname, listener)
    }

    fn on(field: &Field, certname: &str, listener: TcpListener) -> Self {
        Self {
            address: listener.local_addr().expect("an address"),
            listener,
            files: field.files(certname),
            failed: Notify::new(),
        }
    }

    /// Somebody has not taken our certificate.
    pub(crate) async fn failed_handshake(&self) {
        timeout(SOON, self.failed.notified())
            .await
            .expect("in time");
    }

    /// Takes connections until one asks for a WebSocket.
    pub(crate) async fn guest(&self) -> Guest {
        let taken = timeout(SOON, async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                if let Some(guest) = self.upgrade(stream).await {
                    return guest;
                }
            }
        });
        taken.await.expect("a guest in time")
    }

    async fn upgrade(&self, stream: TcpStream) -> Option<Guest> {
        let identity = Identity::load(&self.files).expect("an identity");
        let tls = identity
            .server_config(&[], TlsVersions::Tls12And13)
            .expect("a TLS configuration");
        let accepted = TlsAcceptor::from(tls).accept(stream).await;
        let Ok(mut stream) = accepted else {
            self.failed.notify_one();
            return None;
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certname = identity::peer_certname(shown)
            .expect("a certname")
            .to_string();
        let head = crate::foreign::head(&mut stream).await;
        let path = head.split(' ').nth(1)?.to_owned();
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then(|| value.trim().to_owned())
        })?;
        // It knows no subprotocol, and says nothing about it.
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(&key)
        );
        stream.write_all(answer.as_bytes()).await.expect("sent");
        Some(Guest {
            certname,
            path,
            socket: WebSocketStream::from_raw_socket(stream, Role::Server, None).await,
        })
    }
}

impl Guest {
    /// Sends a message of PCP 2, whose sender and target may be missing; gives its id.
    pub(crate) async fn send(
        &mut self,
        sender: Option<&str>,
        name: &str,
        target: Option<&str>,
        data: &Value,
    ) -> String {
        let id = Uuid::new_v4().to_string();
        let mut message = json!({
            "id": id, "message_type": format!("{PREFIX}{name}"), "data": data,
        });
        if let Some(sender) = sender {
            message["sender"] = json!(sender);
        }
        if let Some(target) = target {
            message["target"] = json!(target);
        }
        let sent = self.socket.send(Message::text(message.to_string())).await;
        sent.expect("sent");
        id
    }

    /// The next message as JSON; nothing when the guest leaves. Pings are answered on the way.
    pub(crate) async fn receive(&mut self) -> Option<Value> {
        loop {
            let frame = timeout(SOON, self.socket.next()).await.expect("in time");
            match frame? {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).expect("JSON"));
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {
                    self.socket.flush().await.expect("flushed");
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(other) => panic!("not of PCP 2: {other:?}"),
            }
        }
    }

    /// Answers the ping with which a client finds out that it may stay.
    pub(crate) async fn let_in(&mut self) {
        let frame = timeout(SOON, self.socket.next()).await.expect("in time");
        assert!(matches!(frame, Some(Ok(Message::Ping(_)))), "{frame:?}");
        self.socket.flush().await.expect("flushed");
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        self.socket.close(Some(frame)).await.expect("closed");
    }
}
