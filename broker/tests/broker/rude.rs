//! Peers over TCP that do not keep to TLS, HTTP or WebSocket: each is refused, closed or cut, and
//! disturbs nobody.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::field::{Field, MAX_MESSAGE, Running, SOON};
use crate::foreign::{Foreign, head, tls, upgrade};

/// A controller and an agent of PCP 2 that go on talking while somebody misbehaves.
struct Peace {
    field: Field,
    broker: Running,
    controller: Foreign,
    agent: Foreign,
}

impl Peace {
    async fn new() -> Self {
        let field = Field::new();
        let broker = field.primary();
        Self {
            controller: Foreign::two(&field, "orch", "orchestrator", &broker).await,
            agent: Foreign::two(&field, "node", "agent", &broker).await,
            field,
            broker,
        }
    }

    async fn holds(&mut self) {
        let id = self
            .controller
            .send("rpc_blocking_request", "pcp://node/agent", &json!({"a": 1}))
            .await;
        assert_eq!(self.agent.message().await.id, id);
    }

    /// A WebSocket on which the test writes bare bytes.
    async fn rude(&self) -> TlsStream<TcpStream> {
        let mut stream = self.tls().await;
        let request = upgrade("/pcp2/agent", "");
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        stream
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        let connected = tls(&self.field, Some("rude"), &self.broker).await;
        connected.expect("a handshake")
    }
}

/// Reads to the end of the connection.
async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Cut, or closed in good order.
    drop(
        timeout(SOON, stream.read_to_end(&mut bytes))
            .await
            .expect("an end in time"),
    );
    bytes
}

/// A client's frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).expect("short")),
        length => {
            frame.push(0xff);
            frame.extend_from_slice(&u64::try_from(length).expect("fits").to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Writes these bytes on a WebSocket and expects a close frame with this code.
async fn is_closed(peace: &mut Peace, bytes: &[u8], code: u16) {
    let mut rude = peace.rude().await;
    // The broker may hang up while we write.
    drop(rude.write_all(bytes).await);
    let answer = rest(&mut rude).await;
    assert_eq!(answer.first(), Some(&0x88), "no close frame: {answer:?}");
    assert_eq!(answer[2..4], code.to_be_bytes(), "{bytes:?}");
    peace.holds().await;
}

#[tokio::test]
async fn a_frame_that_is_not_masked() {
    is_closed(&mut Peace::new().await, b"\x81\x02{}", 1002).await;
}

#[tokio::test]
async fn a_frame_with_a_reserved_bit() {
    is_closed(&mut Peace::new().await, &frame(0xc1, b"{}"), 1002).await;
}

#[tokio::test]
async fn an_unknown_kind_of_frame() {
    is_closed(&mut Peace::new().await, &frame(0x83, b"{}"), 1002).await;
}

#[tokio::test]
async fn a_continuation_of_nothing() {
    is_closed(&mut Peace::new().await, &frame(0x80, b"{}"), 1002).await;
}

#[tokio::test]
async fn a_message_inside_a_message() {
    let bytes = [frame(0x01, b"{"), frame(0x81, b"}")].concat();
    is_closed(&mut Peace::new().await, &bytes, 1002).await;
}

#[tokio::test]
async fn a_long_ping_and_a_ping_in_pieces() {
    let mut peace = Peace::new().await;
    is_closed(&mut peace, &frame(0x89, &[b'x'; 126]), 1002).await;
    is_closed(&mut peace, &frame(0x09, b"x"), 1002).await;
}

#[tokio::test]
async fn text_that_is_not_utf8() {
    let mut peace = Peace::new().await;
    is_closed(&mut peace, &frame(0x81, b"\"\xff\""), 1007).await;
    is_closed(&mut peace, &frame(0x88, b"\x03\xe8\xff"), 1007).await;
}

#[tokio::test]
async fn a_frame_that_announces_more_than_the_limit() {
    let mut peace = Peace::new().await;
    let announced = [&b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff"[..], &[0; 4]].concat();
    is_closed(&mut peace, &announced, 1009).await;
}

#[tokio::test]
async fn pieces_that_add_up_to_more_than_the_limit() {
    let mut peace = Peace::new().await;
    let mut bytes = frame(0x01, &vec![b'x'; MAX_MESSAGE]);
    bytes.extend(frame(0x80, &vec![b'x'; 100_000]));
    is_closed(&mut peace, &bytes, 1009).await;
}

#[tokio::test]
async fn a_flood_of_empty_pieces() {
    let mut peace = Peace::new().await;
    let mut bytes = frame(0x01, b"");
    for _ in 0..70_000 {
        bytes.extend(frame(0x00, b""));
    }
    is_closed(&mut peace, &bytes, 1002).await;
}

#[tokio::test]
async fn garbage_after_the_upgrade() {
    let mut peace = Peace::new().await;
    is_closed(&mut peace, b"GET / HTTP/1.1\r\n\r\n", 1002).await;
}

#[tokio::test]
async fn the_wrong_kind_of_message() {
    is_closed(&mut Peace::new().await, &frame(0x82, b"\x01"), 1003).await;
}

#[tokio::test]
async fn a_flood_of_pings_from_one_that_reads_no_answer() {
    let mut peace = Peace::new().await;
    let mut rude = peace.rude().await;
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    for _ in 0..50 {
        drop(timeout(SOON, rude.write_all(&pings)).await.expect("taken"));
        peace.holds().await;
    }
}

#[tokio::test]
async fn those_that_announce_much_and_send_nothing() {
    let mut peace = Peace::new().await;
    let size = u64::try_from(MAX_MESSAGE).expect("fits").to_be_bytes();
    let mut rude = peace.rude().await;
    rude.write_all(&[&b"\x81\xff"[..], &size, &[0; 4]].concat())
        .await
        .expect("sent");
    rude.flush().await.expect("sent");
    let data = json!({"large": "x".repeat(MAX_MESSAGE / 2)});
    let id = peace
        .agent
        .send("rpc_blocking_response", "pcp://orch/orchestrator", &data)
        .await;
    assert_eq!(peace.controller.message().await.id, id);
    peace.holds().await;
}

#[tokio::test]
async fn half_a_handshake_and_half_a_head_are_cut_in_time() {
    let mut peace = Peace::new().await;
    let mut bare = TcpStream::connect(peace.broker.address)
        .await
        .expect("connected");
    bare.write_all(b"\x16\x03\x01\x02").await.expect("sent");
    let mut slow = peace.tls().await;
    slow.write_all(b"GET /pcp2/agent HTTP/1.1\r\nHost: ")
        .await
        .expect("sent");
    let mut silent = peace.tls().await;
    peace.holds().await;
    let mut end = Vec::new();
    drop(
        timeout(SOON, bare.read_to_end(&mut end))
            .await
            .expect("cut in time"),
    );
    rest(&mut slow).await;
    rest(&mut silent).await;
    peace.holds().await;
}

#[tokio::test]
async fn heads_that_are_too_large_or_no_heads() {
    let mut peace = Peace::new().await;
    let long = format!("GET /pcp HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /pcp HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for request in [
        long.as_str(),
        &many,
        "\x01\x02\x03\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = peace.tls().await;
        drop(stream.write_all(request.as_bytes()).await);
        let answer = rest(&mut stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
        peace.holds().await;
    }
}

#[tokio::test]
async fn requests_that_are_no_upgrades_are_answered() {
    let mut peace = Peace::new().await;
    for (request, status) in [
        (
            "GET /pcp2/agent HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 426",
        ),
        (
            "POST /pcp2/agent HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 405",
        ),
        ("GET /nothing HTTP/1.1\r\nHost: b\r\n\r\n", "HTTP/1.1 404"),
        (
            "GET /status/v1/simple HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 200",
        ),
        (
            "GET /status/v1/services HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 200",
        ),
    ] {
        let mut stream = peace.tls().await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = head(&mut stream).await;
        assert!(answer.starts_with(status), "{request}: {answer}");
    }
    peace.holds().await;
}

#[tokio::test]
async fn a_revoked_certificate_gets_no_connection() {
    let field = Field::new();
    field.files("revoked");
    field.ca.revoke("revoked").expect("revoked");
    let broker = field.primary();
    // In TLS 1.3 the client is done before the server has looked: the refusal comes with the answer.
    let mut answer = Vec::new();
    if let Ok(mut stream) = tls(&field, Some("revoked"), &broker).await {
        drop(
            stream
                .write_all(upgrade("/pcp2/agent", "").as_bytes())
                .await,
        );
        answer = rest(&mut stream).await;
    }
    assert!(answer.is_empty(), "{answer:?}");
}
