//! What stands between a client and a broker: a relay that lets TCP through and UDP only while it is
//! open, as a firewall would; and a proxy that speaks CONNECT.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A relay in front of a broker, on one port of UDP and TCP. It ends with its tasks.
pub(crate) struct Valve {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicBool>,
    /// Clients are to appear at other ports.
    moved: Arc<AtomicBool>,
    tasks: daemon::Tasks,
}

impl Valve {
    /// A relay that lets UDP through or not.
    pub(crate) async fn new(broker: SocketAddr, open: bool) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind(ANY).await.expect("a port");
            let address = tcp.local_addr().expect("an address");
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().expect("an address");
        let open = Arc::new(AtomicBool::new(open));
        let moved = Arc::new(AtomicBool::new(false));
        let tasks = daemon::Tasks::new();
        let stop = tasks.shutdown_token();
        let (passes, moves, inner) = (Arc::clone(&open), Arc::clone(&moved), tasks.clone());
        tasks.spawn("valve-udp", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = relay_udp(Arc::new(udp), broker, &passes, &moves, &inner) => {}
            }
        });
        let (stop, inner) = (tasks.shutdown_token(), tasks.clone());
        tasks.spawn("valve-tcp", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = relay_tcp(tcp, broker, &inner) => {}
            }
        });
        Self {
            address,
            open,
            moved,
            tasks,
        }
    }

    /// From now on each client comes from another port, as behind a router that was started again.
    pub(crate) fn move_clients(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    /// Lets UDP through, or not any more.
    pub(crate) fn open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.tasks.shutdown_token().cancel();
    }
}

async fn relay_udp(
    front: Arc<UdpSocket>,
    broker: SocketAddr,
    open: &Arc<AtomicBool>,
    moved: &AtomicBool,
    tasks: &daemon::Tasks,
) {
    let mut back: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut packet = vec![0; 65536];
    while let Ok((length, client)) = front.recv_from(&mut packet).await {
        if !open.load(Ordering::Relaxed) {
            continue;
        }
        if moved.swap(false, Ordering::Relaxed) {
            back.clear();
        }
        let socket = match back.get(&client) {
            Some(socket) => Arc::clone(socket),
            None => {
                let socket = Arc::new(UdpSocket::bind(ANY).await.expect("a socket"));
                socket.connect(broker).await.expect("connected");
                back.insert(client, Arc::clone(&socket));
                let (stop, answers) = (tasks.shutdown_token(), Arc::clone(&socket));
                let (front, open) = (Arc::clone(&front), Arc::clone(open));
                tasks.spawn("valve-back", async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = answer(&answers, &front, client, &open) => {}
                    }
                });
                socket
            }
        };
        drop(socket.send(&packet[..length]).await);
    }
}

/// What the broker sends to one client.
async fn answer(broker: &UdpSocket, front: &UdpSocket, client: SocketAddr, open: &AtomicBool) {
    let mut packet = vec![0; 65536];
    loop {
        // An error is a port on which nobody listens just now.
        let Ok(length) = broker.recv(&mut packet).await else {
            continue;
        };
        if open.load(Ordering::Relaxed) {
            drop(front.send_to(&packet[..length], client).await);
        }
    }
}

async fn relay_tcp(front: TcpListener, broker: SocketAddr, tasks: &daemon::Tasks) {
    while let Ok((mut client, _)) = front.accept().await {
        let stop = tasks.shutdown_token();
        tasks.spawn("valve-connection", async move {
            let Ok(mut server) = TcpStream::connect(broker).await else {
                return;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                done = copy_bidirectional(&mut client, &mut server) => drop(done),
            }
        });
    }
}

/// A proxy that wants a name and a password, and connects to one address alone.
pub(crate) struct PlayedProxy {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    tasks: daemon::Tasks,
}

impl PlayedProxy {
    pub(crate) async fn new(allowed: SocketAddr, authorization: &'static str) -> Self {
        let listener = TcpListener::bind(ANY).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let tasks = daemon::Tasks::new();
        let (stop, inner) = (tasks.shutdown_token(), tasks.clone());
        let counted = Arc::clone(&connections);
        tasks.spawn("proxy", async move {
            loop {
                let client = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted.expect("a connection").0,
                };
                let (stop, counted) = (inner.shutdown_token(), Arc::clone(&counted));
                inner.spawn("proxy-connection", async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = proxied(client, allowed, authorization, &counted) => {}
                    }
                });
            }
        });
        Self {
            address,
            connections,
            tasks,
        }
    }
}

impl Drop for PlayedProxy {
    fn drop(&mut self) {
        self.tasks.shutdown_token().cancel();
    }
}

async fn proxied(
    mut client: TcpStream,
    allowed: SocketAddr,
    authorization: &str,
    connections: &AtomicUsize,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("text");
    let named = head.lines().any(|line| {
        let wanted = format!("proxy-authorization: {authorization}");
        line.eq_ignore_ascii_case(&wanted)
    });
    let refusal = if !head.starts_with("CONNECT ") {
        "405 Method Not Allowed"
    } else if !named {
        "407 Proxy Authentication Required"
    } else if !head.starts_with(&format!("CONNECT {allowed} ")) {
        "403 Forbidden"
    } else {
        let mut server = TcpStream::connect(allowed).await.expect("the broker");
        connections.fetch_add(1, Ordering::Relaxed);
        let agreed = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        agreed.await.expect("written");
        drop(copy_bidirectional(&mut client, &mut server).await);
        return;
    };
    let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    drop(client.write_all(answer.as_bytes()).await);
}
