//! What the tests stand on: a CA, brokers that run in this process, and clients of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use identity::{Current, Files, Identity};
use lab_ca::CertificateAuthority;
use pcp::{
    Certname, ClientType, Envelope, Flags, InventoryRequest, InventoryResponse, InventoryUpdate,
    Message, MessageId, MessageType, Target, Uri, body,
};
use pcp_broker::Broker;
use pcp_broker::Version;
use pcp_broker::config::{Config, Transports};
use pcp_client::{Backoff, BrokerAddress, ClientConfig, ClientHandle, Event};
use pcp_mesh::Role;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The limit of the brokers here.
pub(crate) const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// A CA and everything that it has signed.
pub(crate) struct Field {
    pub(crate) ca: CertificateAuthority,
    /// When clients return to their first broker.
    pub(crate) home_after: Option<Duration>,
    dir: TempDir,
}

/// A broker that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where its metrics are read without TLS.
    pub(crate) metrics: Option<SocketAddr>,
    identity: Option<Arc<Current>>,
    stop: CancellationToken,
    tasks: daemon::Tasks,
}

/// A client and its events.
pub(crate) struct Client {
    pub(crate) handle: ClientHandle,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) tasks: daemon::Tasks,
    /// Messages that came while the inventory was waited for.
    pub(crate) aside: Vec<Message>,
}

impl Field {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let ca = CertificateAuthority::create(dir.path(), "Test CA").expect("a CA");
        Self {
            ca,
            home_after: None,
            dir,
        }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The files of a certname; issues a certificate for 127.0.0.1 when there is none.
    pub(crate) fn files(&self, certname: &str) -> Files {
        let ssl = self.ca.ssl_dir(certname);
        if !ssl.cert().exists() {
            let san = ["127.0.0.1".to_owned()];
            self.ca.issue(certname, &san).expect("a certificate");
        }
        let certname = Certname::parse(certname).expect("a certname");
        Files::from_ssldir(&ssl.dir, &certname)
    }

    pub(crate) fn identity(&self, certname: &str) -> Identity {
        Identity::load(&self.files(certname)).expect("an identity")
    }

    /// A broker's configuration: `orch` may control, `compiler-1` and `compiler-2` may link.
    pub(crate) fn config(&self, certname: &str, primaries: &[SocketAddr]) -> Config {
        let name = |name| Certname::parse(name).expect("a certname");
        Config {
            rules: None,
            metrics: pcp_broker::config::Metrics::default(),
            access_log: None,
            content_cache: pcp_broker::config::ContentCache {
                dir: self.path().join(format!("{certname}-content")),
                size: 64 * 1024 * 1024,
                reserve: 0,
            },
            notes: Vec::new(),
            role: if primaries.is_empty() {
                Role::Primary
            } else {
                Role::Compiler
            },
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            primaries: primaries.iter().map(|a| broker_address(*a)).collect(),
            primary_certnames: Vec::new(),
            files: self.files(certname),
            controllers: vec![name("orch")],
            controller_uris: Vec::new(),
            controller_allowlist: Vec::new(),
            brokers: if primaries.is_empty() {
                vec![name("compiler-1"), name("compiler-2")]
            } else {
                Vec::new()
            },
            transports: Transports {
                quic: true,
                websocket: true,
            },
            versions: vec![Version::One, Version::Two],
            websocket_idle: Duration::from_secs(360),
            max_message: MAX_MESSAGE,
            max_connections: 0,
            handshakes_per_second: 2000,
            drain_time: Duration::from_secs(30),
            grace_period: Duration::from_secs(90),
            log: daemon::logs::LogConfig::default(),
        }
    }

    pub(crate) fn primary(&self) -> Running {
        Running::start(self.config("primary", &[]))
    }

    pub(crate) fn compiler(&self, certname: &str, primaries: &[SocketAddr]) -> Running {
        Running::start(self.config(certname, primaries))
    }

    pub(crate) fn client(&self, certname: &str, client_type: &str, broker: &Running) -> Client {
        self.client_with(certname, client_type, broker, &[])
    }

    pub(crate) fn client_with(
        &self,
        certname: &str,
        client_type: &str,
        broker: &Running,
        features: &[&str],
    ) -> Client {
        let brokers = vec![broker_address(broker.address)];
        self.client_of(certname, client_type, brokers, features)
    }

    /// A client that knows several brokers.
    pub(crate) fn client_of(
        &self,
        certname: &str,
        client_type: &str,
        brokers: Vec<BrokerAddress>,
        features: &[&str],
    ) -> Client {
        let mut config = ClientConfig::new(
            brokers,
            Arc::new(Current::fixed(self.identity(certname))),
            ClientType::parse(client_type).expect("a client type"),
            "test/1".to_owned(),
        );
        config.features = features.iter().map(ToString::to_string).collect();
        config.home_after = self.home_after;
        config.backoff = Backoff {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(200),
        };
        let tasks = daemon::Tasks::new();
        let (handle, events) = pcp_client::start(config, &tasks);
        Client {
            handle,
            events,
            tasks,
            aside: Vec::new(),
        }
    }

    /// A client that is connected.
    pub(crate) async fn connected(
        &self,
        certname: &str,
        client_type: &str,
        broker: &Running,
    ) -> Client {
        let mut client = self.client(certname, client_type, broker);
        client.wait_connected().await;
        client
    }
}

impl Running {
    pub(crate) fn start(config: Config) -> Self {
        let broker = Broker::build(config).expect("a broker");
        let address = broker.address();
        let metrics = broker.metrics_address();
        let identity = Some(broker.identity());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let tasks = daemon::Tasks::new();
        tasks.spawn("broker", async move {
            let run = broker.run(async move { stopped.cancelled().await });
            run.await.expect("a broker that listens");
        });
        Self {
            address,
            metrics,
            identity,
            stop,
            tasks,
        }
    }

    /// Something that runs already, under somebody else's care.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            metrics: None,
            identity: None,
            stop: CancellationToken::new(),
            tasks: daemon::Tasks::new(),
        }
    }

    /// Starts a broker as soon as its address is free.
    pub(crate) async fn start_when_free(config: Config) -> Self {
        let free = async {
            while std::net::UdpSocket::bind(config.listen).is_err()
                || std::net::TcpListener::bind(config.listen).is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, free).await.expect("free in time");
        Self::start(config)
    }

    /// What `SIGHUP` does.
    pub(crate) fn look_at_certificates(&self) {
        self.identity.as_ref().expect("ours").check_soon();
    }

    /// Stops it in good order.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        assert!(self.tasks.shutdown(SOON).await, "the broker did not stop");
    }
}

impl Client {
    pub(crate) async fn event(&mut self) -> Event {
        let event = timeout(SOON, self.events.recv()).await;
        event.expect("an event in time").expect("a live client")
    }

    pub(crate) async fn wait_connected(&mut self) {
        loop {
            if let Event::Connected { .. } = self.event().await {
                return;
            }
        }
    }

    /// The next message; nothing else may come before.
    pub(crate) async fn message(&mut self) -> Message {
        match self.event().await {
            Event::Message(message) => message,
            event => panic!("not a message: {event:?}"),
        }
    }

    pub(crate) async fn send(&self, message: &Message) {
        self.handle.send(message.clone()).await.expect("sent");
    }

    /// Sends a message and expects it to come back as this error.
    pub(crate) async fn refused(&mut self, message: &Message, text: &str) {
        self.send(message).await;
        let answer = self.message().await;
        assert_eq!(answer.envelope.message_type.name(), Some("error_message"));
        assert_eq!(answer.envelope.in_reply_to, Some(message.envelope.id));
        assert_eq!(answer.body, format!("\"{text}\""));
    }

    /// Waits until the inventory has (or has not) a client. For controllers.
    pub(crate) async fn wait_present(&mut self, uri: &str, present: bool) {
        let uri: Uri = uri.parse().expect("a URI");
        let query = InventoryRequest {
            query: vec![uri.to_string().parse().expect("a pattern")],
            subscribe: true,
        };
        let mut request = message(&self.handle, "inventory_request", "pcp:///server", 0);
        request.body = serde_json::to_vec(&query).expect("JSON").into();
        self.send(&request).await;
        loop {
            let answer = self.message().await;
            let name = answer.envelope.message_type.name();
            let now = if name == body::inventory_response().name() {
                let response: InventoryResponse =
                    serde_json::from_slice(&answer.body).expect("a response");
                response.uris.contains(&uri)
            } else if name == body::inventory_update().name() {
                let update: InventoryUpdate =
                    serde_json::from_slice(&answer.body).expect("an update");
                update.changes.last().expect("a change").change == 1
            } else {
                self.aside.push(answer);
                continue;
            };
            if now == present {
                break;
            }
        }
        // No more updates, so that only messages follow; the answer to this ends what was on its way.
        let cancel = InventoryRequest {
            query: Vec::new(),
            subscribe: false,
        };
        let mut request = message(&self.handle, "inventory_request", "pcp:///server", 0);
        request.body = serde_json::to_vec(&cancel).expect("JSON").into();
        self.send(&request).await;
        loop {
            let answer = self.message().await;
            if answer.envelope.in_reply_to == Some(request.envelope.id) {
                return;
            }
            if answer.envelope.message_type != body::inventory_update() {
                self.aside.push(answer);
            }
        }
    }
}

/// A message of a client with a body of so many bytes.
pub(crate) fn message(
    sender: &ClientHandle,
    message_type: &'static str,
    target: &str,
    size: usize,
) -> Message {
    let target: Target = target.parse().expect("a target");
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type: MessageType::of(message_type),
            sender: sender.uri().clone(),
            target,
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: (0..=250).cycle().take(size).collect(),
    }
}

pub(crate) fn broker_address(address: SocketAddr) -> BrokerAddress {
    address.to_string().parse().expect("an address")
}
