//! More at once than a broker takes: whoever is let in is served, whoever is not is told in time, and
//! comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use pcp::{ClientType, Frame, Hello, frame};
use pcp_client::stream::FrameStream;
use pcp_client::transport;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::field::{Field, Running, SOON};
use crate::foreign::{head, tls, upgrade};
use crate::rogues::connect;

/// A broker that begins so many handshakes a second.
fn slow(field: &Field, rate: u32) -> Running {
    let mut config = field.config("primary", &[]);
    config.handshakes_per_second = rate;
    Running::start(config)
}

/// A number of the broker's status page.
async fn status(field: &Field, broker: &Running, name: &str) -> u64 {
    let mut stream = tls(field, None, broker).await.expect("a handshake");
    let request = "GET /status/v1/services HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    head(&mut stream).await;
    let mut body = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut body)).await;
    drop(read.expect("in time"));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let number = &body["broker-service"]["status"][name];
    number.as_u64().expect("a number")
}

/// A connection that says nothing.
async fn silent(broker: &Running) -> TcpStream {
    TcpStream::connect(broker.address).await.expect("connected")
}

#[tokio::test]
async fn more_clients_than_fit_in_the_line_are_turned_away_and_come_in_all_the_same() {
    const RATE: u32 = 8;
    let field = Field::new();
    let names: Vec<_> = (0..60).map(|number| format!("node-{number}")).collect();
    names.iter().for_each(|name| drop(field.files(name)));
    let broker = slow(&field, RATE);
    let begun = Instant::now();
    let mut clients: Vec<_> = names
        .iter()
        .map(|name| field.client(name, "agent", &broker))
        .collect();
    for client in &mut clients {
        client.wait_connected().await;
    }
    let least = (names.len() - 2) / usize::try_from(RATE).expect("small");
    assert!(begun.elapsed().as_secs() >= u64::try_from(least).expect("small") - 1);
    assert!(status(&field, &broker, "turned-away").await > 0);
    assert_eq!(status(&field, &broker, "connections").await, 60);
}

#[tokio::test]
async fn a_websocket_client_is_told_in_how_many_seconds_to_come_back_and_status_pages_stay_open() {
    let field = Field::new();
    field.files("node");
    let broker = slow(&field, 1);
    let mut line = Vec::new();
    let told = async {
        loop {
            // One leaves the line every second.
            for _ in 0..7 {
                line.push(silent(&broker).await);
            }
            let Ok(mut stream) = tls(&field, Some("node"), &broker).await else {
                continue;
            };
            let request = upgrade("/pcp2/agent", "");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let answer = head(&mut stream).await.to_lowercase();
            if answer.starts_with("http/1.1 503 ") {
                return (stream, answer);
            }
        }
    };
    let (mut stream, answer) = timeout(SOON, told).await.expect("told in time");
    let seconds = answer
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "));
    let seconds: u32 = seconds.expect("a time").parse().expect("a number");
    assert!((1..=6).contains(&seconds), "{seconds}");
    let mut rest = vec![0; "the broker takes no clients just now".len()];
    stream.read_exact(&mut rest).await.expect("the text");
    let request = "GET /status/v1/simple HTTP/1.1\r\nHost: b\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

/// A TLS connection from this address of ours.
async fn from(
    field: &Field,
    address: Ipv4Addr,
    broker: &Running,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(address.into(), 0))?;
    let stream = socket.connect(broker.address).await?;
    let config = field.identity("node").client_config(&[]).expect("TLS");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(config).connect(name, stream).await
}

#[tokio::test]
async fn an_address_full_of_half_open_connections_keeps_out_nobody_else() {
    let field = Field::new();
    field.files("node");
    let broker = slow(&field, 100_000);
    let mut half_open = Vec::new();
    for _ in 0..600 {
        half_open.push(silent(&broker).await);
    }
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    let mut there = timeout(SOON, from(&field, elsewhere, &broker))
        .await
        .expect("in time")
        .expect("let in");
    let request = upgrade("/pcp2/agent", "");
    there.write_all(request.as_bytes()).await.expect("sent");
    assert!(head(&mut there).await.starts_with("HTTP/1.1 101 "));
    // Those who say nothing are cut in time, and then their address is let in again.
    let mut first = half_open.swap_remove(0);
    let cut = timeout(SOON, first.read_to_end(&mut Vec::new())).await;
    drop(cut.expect("cut in time"));
    let again = async {
        loop {
            if let Ok(stream) = from(&field, Ipv4Addr::LOCALHOST, &broker).await {
                return stream;
            }
        }
    };
    let mut here = timeout(SOON, again).await.expect("let in again, in time");
    here.write_all(request.as_bytes()).await.expect("sent");
    let answer = head(&mut here).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

#[tokio::test]
async fn a_certificate_has_so_many_connections_and_is_asked_to_come_back() {
    let field = Field::new();
    let broker = field.primary();
    let mut open = Vec::new();
    for _ in 0..16 {
        let (endpoint, connection) = connect(&field, &broker, pcp::ALPN).await;
        let connection = connection.expect("a connection");
        // Without a stream nothing is said, and the broker waits for the hello.
        open.push((endpoint, connection));
    }
    let say_hello = async || {
        let (_endpoint, connection) = connect(&field, &broker, pcp::ALPN).await;
        let connection = connection.expect("a connection");
        let (mut send, receive) = connection.open_bi().await.expect("a stream");
        let hello = Frame::Hello(Hello {
            client_type: ClientType::agent(),
            software: "rogue/1".to_owned(),
            features: Vec::new(),
            started: 1,
        });
        let hello = frame::to_bytes(&hello);
        send.write_all(&hello).await.expect("written");
        let mut frames = FrameStream::new(receive, frame::MAX_SESSION_PAYLOAD);
        let answer = timeout(SOON, frames.next()).await.expect("in time");
        answer.expect("a frame").expect("an answer")
    };
    match say_hello().await {
        Frame::Retry(retry) => assert_eq!(retry.seconds, 60, "{}", retry.reason),
        frame => panic!("not asked to come back: {frame:?}"),
    }
    let _other = field.connected("node", "agent", &broker).await;
    assert_eq!(status(&field, &broker, "crowded-out").await, 1);
    for (_, connection) in open {
        connection.close(transport::CLOSED, b"");
    }
    let welcomed = async { while !matches!(say_hello().await, Frame::Welcome(_)) {} };
    timeout(SOON, welcomed).await.expect("room again, in time");
}
