//! The wire, pinned: each kind of frame as the bytes that every version must write and read.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be must stop them"
)]

use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::*;

fn vectors() -> Vec<(&'static str, Frame, String)> {
    let uri = |text: &str| text.parse::<Uri>().unwrap();
    let id = |number: u128| MessageId(uuid::Uuid::from_u128(number));
    let request = Message {
        envelope: Envelope {
            id: id(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            message_type: MessageType::of("x"),
            sender: uri("pcp://c/orchestrator"),
            target: Target::Client(uri("pcp://n/agent")),
            in_reply_to: None,
            hops: 2,
            flags: Flags::ACKNOWLEDGES,
        },
        body: "{}".into(),
    };
    let mut answer = request.clone();
    answer.envelope.in_reply_to = Some(id(1));
    answer.envelope.flags = Flags::default();
    answer.envelope.hops = 0;
    answer.envelope.target = Target::Broker;
    answer.body = "".into();
    let client = |uri, connected| Announcement {
        uri,
        started: 0x0102,
        connected,
    };
    vec![
        (
            "hello",
            Frame::Hello(Hello {
                client_type: "agent".parse().unwrap(),
                software: "a/1".to_owned(),
                features: vec!["content".to_owned()],
                started: 5,
            }),
            control(
                "01",
                r#"{"client_type":"agent","software":"a/1","features":["content"],"started":5}"#,
            ),
        ),
        (
            "welcome",
            Frame::Welcome(Welcome {
                broker: "primary".parse().unwrap(),
                software: "b/1".to_owned(),
                features: vec![],
                max_message: 64,
                server_time: 7,
            }),
            control(
                "02",
                r#"{"broker":"primary","software":"b/1","features":[],"max_message":64,"server_time":7}"#,
            ),
        ),
        (
            "retry",
            Frame::Retry(Retry {
                reason: "storm".to_owned(),
                seconds: 9,
            }),
            control("03", r#"{"reason":"storm","seconds":9}"#),
        ),
        (
            "goodbye",
            Frame::Goodbye(Goodbye {
                code: GoodbyeCode::Superseded,
                reason: "new".to_owned(),
            }),
            control("04", r#"{"code":4000,"reason":"new"}"#),
        ),
        (
            "goodbye with a code of the future",
            Frame::Goodbye(Goodbye {
                code: GoodbyeCode::Unknown(4711),
                reason: String::new(),
            }),
            control("04", r#"{"code":4711,"reason":""}"#),
        ),
        (
            "message to a client",
            Frame::Message(request),
            framed(
                "05",
                &[
                    "01 01 02",
                    "00112233445566778899aabbccddeeff",
                    "17",
                    &hex(b"http://puppetlabs.com/x"),
                    "01 63 0c",
                    &hex(b"orchestrator"),
                    "01 6e 05",
                    &hex(b"agent"),
                    "7b7d",
                ],
            ),
        ),
        (
            "message to the broker in reply",
            Frame::Message(answer),
            framed(
                "05",
                &[
                    "01 80 00",
                    "00112233445566778899aabbccddeeff",
                    "00000000000000000000000000000001",
                    "17",
                    &hex(b"http://puppetlabs.com/x"),
                    "01 63 0c",
                    &hex(b"orchestrator"),
                    "00 00",
                ],
            ),
        ),
        (
            "snapshot part",
            Frame::Link(LinkFrame::Snapshot {
                epoch: 3,
                last: false,
                clients: vec![client(uri("pcp://n/agent"), true)],
            }),
            framed(
                "06",
                &[
                    "01 0000000000000003",
                    "01 0000000000000102 01 6e 05",
                    &hex(b"agent"),
                ],
            ),
        ),
        (
            "last and empty snapshot part",
            Frame::Link(LinkFrame::Snapshot {
                epoch: 3,
                last: true,
                clients: vec![],
            }),
            framed("06", &["02 0000000000000003"]),
        ),
        (
            "delta",
            Frame::Link(LinkFrame::Delta {
                epoch: 4,
                changes: vec![
                    client(uri("pcp://n/agent"), false),
                    client(uri("pcp://m/agent"), true),
                ],
            }),
            framed(
                "06",
                &[
                    "03 0000000000000004",
                    "00 0000000000000102 01 6e 05",
                    &hex(b"agent"),
                    "01 0000000000000102 01 6d 05",
                    &hex(b"agent"),
                ],
            ),
        ),
        (
            "content request",
            Frame::ContentRequest(Digest([0xab; 32])),
            framed("07", &[&"ab".repeat(32)]),
        ),
        (
            "content header",
            Frame::ContentHeader(0x0001_0203),
            framed("08", &["0000000000010203"]),
        ),
        (
            "content error",
            Frame::ContentError(ContentError {
                code: ContentErrorCode::NotFound,
                message: "no".to_owned(),
            }),
            control("09", r#"{"code":"not-found","message":"no"}"#),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a header before the parts of a payload, all in hexadecimal digits and blanks.
fn framed(kind: &str, parts: &[&str]) -> String {
    let payload: String = parts.concat().replace(' ', "");
    format!("{:08x}{kind}{payload}", payload.len() / 2)
}

fn control(kind: &str, json: &str) -> String {
    framed(kind, &[&hex(json.as_bytes())])
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::try_from(pair.iter().fold(0, |all, digit| all * 16 + digit)).unwrap())
        .collect()
}

fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut reader = FrameReader::new(MAX_SESSION_PAYLOAD);
    reader.buffer().extend_from_slice(bytes);
    reader.next_frame()
}

#[test]
fn every_frame_is_written_as_these_bytes() {
    for (name, frame, expected) in vectors() {
        assert_eq!(hex(&frame::to_bytes(&frame)), expected, "{name}");
    }
}

#[test]
fn every_frame_is_read_from_these_bytes() {
    for (name, frame, expected) in vectors() {
        assert_eq!(read(&bytes(&expected)), Ok(Some(frame)), "{name}");
    }
}

#[test]
fn control_frames_may_gain_keys_and_lack_features() {
    let hello = control(
        "01",
        r#"{"client_type":"agent","software":"a/9","started":5,"mood":"good"}"#,
    );
    let Ok(Some(Frame::Hello(hello))) = read(&bytes(&hello)) else {
        panic!("a hello expected");
    };
    assert_eq!((hello.started, hello.features), (5, vec![]));
}

#[test]
fn texts_for_a_person_begin_no_lines_of_their_own() {
    let hello = control(
        "01",
        r#"{"client_type":"agent","software":"a\nINFO ok\u001b[2K","started":5}"#,
    );
    let Ok(Some(Frame::Hello(hello))) = read(&bytes(&hello)) else {
        panic!("a hello expected");
    };
    assert_eq!(hello.software, "a\u{fffd}INFO ok\u{fffd}[2K");
    let goodbye = control("04", r#"{"code":1000,"reason":"bye\r\n"}"#);
    let Ok(Some(Frame::Goodbye(goodbye))) = read(&bytes(&goodbye)) else {
        panic!("a goodbye expected");
    };
    assert_eq!(goodbye.reason, "bye\u{fffd}\u{fffd}");
}

#[test]
fn what_is_not_a_frame_is_refused_with_its_fault() {
    let message = |parts: &[&str]| framed("05", parts);
    let id = "00".repeat(16);
    let kind = format!("01{}", hex(b"x"));
    let sender = "016301 64";
    for (name, hex, fault) in [
        (
            "kind 0",
            framed("00", &[]),
            "frame kind 0 is not known here",
        ),
        (
            "kind 10",
            framed("0a", &["00"]),
            "frame kind 10 is not known here",
        ),
        (
            "empty hello",
            framed("01", &[]),
            "a hello frame is malformed",
        ),
        (
            "hello of a bad client type",
            control("01", r#"{"client_type":"a/b","software":"","started":1}"#),
            "a hello frame is malformed",
        ),
        (
            "negative start",
            control(
                "01",
                r#"{"client_type":"agent","software":"","started":-1}"#,
            ),
            "a hello frame is malformed",
        ),
        (
            "control frame above its limit",
            control(
                "03",
                &format!(r#"{{"reason":"{}","seconds":1}}"#, "x".repeat(8200)),
            ),
            "a retry frame is malformed",
        ),
        (
            "short digest",
            framed("07", &["00"]),
            "a content request frame is malformed",
        ),
        (
            "long digest",
            framed("07", &[&"00".repeat(33)]),
            "a content request frame is malformed",
        ),
        (
            "short size",
            framed("08", &["00"]),
            "a content header frame is malformed",
        ),
        (
            "long size",
            framed("08", &[&"00".repeat(9)]),
            "a content header frame is malformed",
        ),
        (
            "envelope of version 2",
            message(&["020000", &id]),
            "a message frame is malformed: envelope version 2 is not known here",
        ),
        (
            "message without type",
            message(&["010000", &id, "00", sender, "0000"]),
            "a message frame is malformed: the message type is malformed",
        ),
        (
            "message without sender",
            message(&["010000", &id, &kind, "0000", "0000"]),
            "a message frame is malformed: an address of the envelope is malformed",
        ),
        (
            "target without client type",
            message(&["010000", &id, &kind, sender, "016300"]),
            "a message frame is malformed: an address of the envelope is malformed",
        ),
        (
            "sender that is not text",
            message(&["010000", &id, &kind, "01ff0164", "0000"]),
            "a message frame is malformed: a text of the envelope is not UTF-8",
        ),
        (
            "certname of dots",
            message(&["010000", &id, &kind, "022e2e0164", "0000"]),
            "a message frame is malformed: an address of the envelope is malformed",
        ),
        (
            "text beyond the end",
            message(&["010000", &id, "ff78"]),
            "a message frame is malformed: the message ends inside its envelope",
        ),
        (
            "link frame of kind 9",
            framed("06", &["09 0000000000000001"]),
            "a link frame is malformed: envelope version 9 is not known here",
        ),
        (
            "announcement without end",
            framed("06", &["03 0000000000000001 01 00"]),
            "a link frame is malformed: the message ends inside its envelope",
        ),
        (
            "announcement of nobody",
            framed("06", &["03 0000000000000001 01 0000000000000001 0000"]),
            "a link frame is malformed: an address of the envelope is malformed",
        ),
    ] {
        let error = read(&bytes(&hex.replace(' ', ""))).expect_err(name);
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let chain = format!("{error}{}", cause.unwrap_or_default());
        assert_eq!(chain, fault, "{name}");
    }
}

#[test]
fn addresses_that_are_none_say_why() {
    let long = "a".repeat(256);
    for (text, fault) in [
        ("", UriError::Scheme),
        ("PCP://a/agent", UriError::Scheme),
        ("http://a/agent", UriError::Scheme),
        ("pcp://a", UriError::Form),
        ("pcp:///agent", UriError::Certname),
        ("pcp://.a/agent", UriError::Certname),
        ("pcp://-a/agent", UriError::Certname),
        ("pcp://a b/agent", UriError::Certname),
        ("pcp://é/agent", UriError::Certname),
        (&format!("pcp://{long}/agent"), UriError::Certname),
        ("pcp://a/", UriError::ClientType),
        ("pcp://a/b/c", UriError::ClientType),
        (&format!("pcp://a/{}", &long[..65]), UriError::ClientType),
        ("pcp://*/agent", UriError::Wildcard),
        ("pcp://a/*", UriError::Wildcard),
    ] {
        assert_eq!(text.parse::<Uri>(), Err(fault), "{text}");
    }
    assert_eq!("pcp:///server".parse(), Ok(Target::Broker));
    assert_eq!("pcp:///agent".parse::<Target>(), Err(UriError::Certname));
    assert_eq!(
        "pcp://web*/agent".parse::<UriPattern>(),
        Err(UriError::Certname)
    );
}

#[test]
fn the_bodies_of_brokers_are_as_pcp_2_has_them() {
    let request = r#"{"query":["pcp://*/agent","pcp://c/*"],"subscribe":true}"#;
    let parsed: InventoryRequest = serde_json::from_str(request).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), request);
    let parsed: InventoryRequest = serde_json::from_str(r#"{"query":[]}"#).unwrap();
    assert!(!parsed.subscribe);
    let update = r#"{"changes":[{"client":"pcp://a/agent","change":-1}]}"#;
    let parsed: InventoryUpdate = serde_json::from_str(update).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), update);
    assert_eq!(&ErrorKind::NotConnected.body()[..], br#""Not connected.""#);
    assert_eq!(
        ErrorKind::from_body(br#""Not connected.""#),
        Some(ErrorKind::NotConnected)
    );
    assert_eq!(ErrorKind::from_body(b"Not connected."), None);
    let names = [
        body::inventory_request(),
        body::inventory_response(),
        body::inventory_update(),
        body::error_message(),
    ]
    .map(|name| name.as_str().to_owned());
    let expected = ["request", "response", "update"].map(|n| format!("inventory_{n}"));
    for (name, expected) in names
        .iter()
        .zip(expected.into_iter().chain(["error_message".into()]))
    {
        assert_eq!(*name, format!("http://puppetlabs.com/{expected}"));
    }
}

#[test]
fn bodies_are_never_printed() {
    let message = Message {
        envelope: Envelope {
            id: MessageId::numbered(1, 1),
            message_type: MessageType::of("x"),
            sender: "pcp://a/agent".parse().unwrap(),
            target: Target::Broker,
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: "hunter2".into(),
    };
    assert!(!format!("{message:?}").contains("hunter2"));
    assert!(format!("{message:?}").contains("body_bytes: 7"));
}
