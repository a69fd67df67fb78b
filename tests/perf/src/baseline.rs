//! Bare quinn, set up as the broker sets it up, and doing nothing else: what the transport alone
//! costs on this machine in this minute. The server is a process of its own, so that its memory and
//! CPU time can be read as a broker's are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use identity::{Files, Identity, TlsVersions};
use lab::Lab;
use pcp::Certname;
use pcp_client::transport::{self, SOCKET_BUFFER};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime};
use tokio::sync::Mutex;

/// The protocol that both ends speak.
const ALPN: &[u8] = b"pxp-perf";

/// The sizes of a message and of its acknowledgement in bytes: those of limits in the design.
pub(crate) const MESSAGE: usize = 500;
pub(crate) const ACKNOWLEDGEMENT: usize = 50;

/// The certname that the server shows; it is for 127.0.0.1.
const SERVER: &str = "primary";

/// What the server knows of its clients.
#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<Vec<SendStream>>,
    acknowledged: AtomicUsize,
}

/// The server, in this process: prints its port, then for each line of standard input sends one
/// message to every client and prints how long the acknowledgements took. Ends with its input.
pub(crate) async fn serve(ssldir: &Path) -> Result<()> {
    let files = Files::from_ssldir(ssldir, &Certname::parse(SERVER)?);
    let tls = Identity::load(&files)?.server_config(&[ALPN], TlsVersions::Tls13)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut settings = transport::common();
    settings
        .max_concurrent_bidi_streams(4_u32.into())
        .mtu_discovery_config(None);
    config.transport_config(Arc::new(settings));
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let (socket, _) = transport::bind(address, Some(SOCKET_BUFFER))?;
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(config),
        socket,
        Arc::new(TokioRuntime),
    )?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", endpoint.local_addr()?.port())?;
    let shared = Arc::new(Shared::default());
    let tasks = daemon::Tasks::new();
    let (lines, mut asked) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || lines.blocking_send(()).is_err() {
                return;
            }
        }
    });
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let incoming = incoming.context("the endpoint has closed")?;
                let shared = Arc::clone(&shared);
                tasks.spawn("perf-client", async move {
                    // A client that goes away ends its task, and nothing else.
                    drop(client(incoming, &shared).await);
                });
            }
            line = asked.recv() => match line {
                Some(()) => writeln!(stdout, "{}", fan_out(&shared).await?.as_secs_f64())?,
                None => return Ok(()),
            },
        }
    }
}

async fn client(incoming: quinn::Incoming, shared: &Shared) -> Result<()> {
    let connection = incoming.await?;
    let (send, mut receive) = connection.accept_bi().await?;
    let mut hello = [0; 1];
    receive.read_exact(&mut hello).await?;
    let mut message = [0; MESSAGE];
    if hello == *b"e" {
        let mut send = send;
        loop {
            receive.read_exact(&mut message).await?;
            send.write_all(&message).await?;
        }
    }
    shared.streams.lock().await.push(send);
    let mut acknowledgement = [0; ACKNOWLEDGEMENT];
    loop {
        receive.read_exact(&mut acknowledgement).await?;
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

async fn fan_out(shared: &Shared) -> Result<Duration> {
    let start = Instant::now();
    let mut streams = shared.streams.lock().await;
    let wanted = shared.acknowledged.load(Ordering::Relaxed) + streams.len();
    for stream in streams.iter_mut() {
        stream.write_all(&[1; MESSAGE]).await?;
    }
    while shared.acknowledged.load(Ordering::Relaxed) < wanted {
        tokio::task::yield_now().await;
    }
    Ok(start.elapsed())
}

/// A server that runs in a process of its own.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--bare-quinn-server")
            .arg(lab.ssl_dir(SERVER)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the baseline")?;
        let stdin = child.stdin.take().context("no input")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let port = line.trim().parse().context("the baseline gives no port")?;
        Ok(Self {
            child,
            stdin,
            stdout,
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Seconds from the first message to the last acknowledgement.
    pub(crate) fn fan_out(&mut self) -> Result<f64> {
        writeln!(self.stdin)?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        line.trim().parse().context("the baseline has failed")
    }

    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin);
        self.child.wait()?;
        Ok(())
    }
}

/// Clients of one certificate in this process, as many as wanted.
#[derive(Debug)]
pub(crate) struct Clients {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    connections: Vec<Connection>,
}

impl Clients {
    pub(crate) fn new(server: &Server, identity: &Identity) -> Result<Self> {
        let tls = identity.client_config(&[ALPN])?;
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport::client(
            &pcp::ClientType::agent(),
            false,
        )));
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let (socket, _) = transport::bind(any, Some(SOCKET_BUFFER))?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            endpoint,
            config,
            address: server.address,
            connections: Vec::new(),
        })
    }

    /// Connects one after the other until there are so many, each acknowledging what it gets.
    pub(crate) async fn connect(&mut self, count: usize, tasks: &daemon::Tasks) -> Result<()> {
        while self.connections.len() < count {
            let (connection, send, receive) = self.open(b'a').await?;
            tasks.spawn("perf-acknowledge", async move {
                drop(acknowledge(send, receive).await);
            });
            self.connections.push(connection);
        }
        Ok(())
    }

    /// Sends messages to the server, which sends them back, with so many under way at a time.
    pub(crate) async fn echo(&self, messages: usize, at_once: usize) -> Result<()> {
        ensure!(at_once > 0, "something must be under way");
        let (connection, mut send, mut receive) = self.open(b'e').await?;
        let mut message = [1; MESSAGE];
        for sent in 0..messages + at_once {
            if sent < messages {
                send.write_all(&message).await?;
            }
            if sent >= at_once {
                receive.read_exact(&mut message).await?;
            }
        }
        connection.close(transport::CLOSED, b"");
        Ok(())
    }

    async fn open(&self, hello: u8) -> Result<(Connection, SendStream, RecvStream)> {
        let connecting =
            self.endpoint
                .connect_with(self.config.clone(), self.address, "localhost")?;
        let connection = connecting.await?;
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&[hello]).await?;
        Ok((connection, send, receive))
    }
}

async fn acknowledge(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        receive.read_exact(&mut message).await?;
        send.write_all(&[2; ACKNOWLEDGEMENT]).await?;
    }
}
