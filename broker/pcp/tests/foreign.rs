//! PCP 1, PCP 2 and WebSocket's frames over bytes: what is written is read back, however it is cut;
//! what a peer announces is told before memory is taken; and nothing that comes in makes them panic.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be must stop them"
)]

use bytes::{Bytes, BytesMut};
use pcp::websocket::{Incoming, Opcode, Reader, Side, UNANNOUNCED, WebSocketError, push_frame};
use pcp::*;
use proptest::collection::vec;
use proptest::prelude::*;

const LIMIT: usize = 200_000;

fn uri() -> impl Strategy<Value = Uri> {
    ("[a-z0-9_][a-z0-9._-]{0,40}", "[a-z]{1,20}")
        .prop_map(|(name, kind)| format!("pcp://{name}/{kind}").parse().unwrap())
        .prop_filter("brokers are all one to their clients", |uri: &Uri| {
            !uri.client_type().is_server()
        })
}

prop_compose! {
    fn message()(
        id in any::<u128>(),
        kind in "[A-Za-z0-9_.:/-]{1,100}",
        sender in uri(),
        target in uri(),
        text in "\\PC{0,80}",
    ) -> Message {
        Message {
            envelope: Envelope {
                id: MessageId(uuid::Uuid::from_u128(id)),
                message_type: MessageType::parse(&kind).unwrap(),
                sender,
                target: Target::Client(target),
                in_reply_to: None,
                hops: 0,
                flags: Flags::default(),
            },
            body: serde_json::to_vec(&text).unwrap().into(),
        }
    }
}

/// All that is read when the bytes come in pieces of this size.
fn read(side: Side, bytes: &[u8], piece: usize) -> Result<Vec<Incoming>, WebSocketError> {
    let mut reader = Reader::new(side, LIMIT);
    let mut all = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        reader.buffer().extend_from_slice(piece);
        while let Some(incoming) = reader.next_incoming()? {
            if let Incoming::Announced(bytes) = incoming {
                assert!(bytes > UNANNOUNCED && bytes <= LIMIT);
                reader.grant();
            } else {
                all.push(incoming);
            }
        }
    }
    Ok(all)
}

proptest! {
    #[test]
    fn both_versions_read_back_what_was_written(message in message()) {
        let sender = message.envelope.sender.clone();
        let (head, tail) = v2::encode(&message.envelope, true);
        let text = Bytes::from([head.as_bytes(), &message.body, tail.as_bytes()].concat());
        prop_assert_eq!(v2::decode(&text).unwrap().judge(&sender), Judged::Message(message.clone()));
        let (head, body) = v1::encode(&message);
        let frame = Bytes::from([head, body].concat());
        prop_assert_eq!(v1::decode(&frame).unwrap().judge(&sender), Judged::Message(message));
    }

    #[test]
    fn a_message_cut_short_is_none(message in message(), cut in any::<prop::sample::Index>()) {
        let (head, tail) = v2::encode(&message.envelope, true);
        let text = [head.as_bytes(), &message.body, tail.as_bytes()].concat();
        prop_assert!(v2::decode(&Bytes::copy_from_slice(&text[..cut.index(text.len())])).is_err());
        let (head, body) = v1::encode(&message);
        // Without its data chunk it would be a message, too.
        let frame = [&head[..], &body].concat();
        let end = cut.index(frame.len());
        prop_assert!(end == head.len() - 5 || v1::decode(&Bytes::copy_from_slice(&frame[..end])).is_err());
    }

    #[test]
    fn arbitrary_bytes_harm_nobody(bytes in vec(any::<u8>(), 0..300), piece in 1..50usize) {
        let frame = Bytes::from(bytes.clone());
        drop((v1::decode(&frame), v2::decode(&frame)));
        drop(v1::decode(&Bytes::from([&[1u8, 1, 0, 0][..], &bytes].concat())));
        drop((read(Side::Server, &bytes, piece), read(Side::Client, &bytes, piece)));
    }

    #[test]
    fn frames_are_read_back_however_they_are_cut(
        payloads in vec((any::<u8>(), 0..70_000usize).prop_map(|(byte, size)| vec![byte; size]), 1..4),
        piece in 1..9000usize,
        mask in any::<[u8; 4]>(),
    ) {
        for (side, mask) in [(Side::Server, Some(mask)), (Side::Client, None)] {
            let mut out = BytesMut::new();
            for payload in &payloads {
                push_frame(&mut out, Opcode::Ping, &[b"a", b"b"], mask);
                push_frame(&mut out, Opcode::Binary, &[payload], mask);
            }
            let expected: Vec<Incoming> = payloads.iter().flat_map(|payload| [
                Incoming::Ping("ab".into()),
                Incoming::Binary(Bytes::copy_from_slice(payload)),
            ]).collect();
            prop_assert_eq!(read(side, &out, piece).unwrap(), expected);
        }
    }
}

#[test]
fn what_is_above_the_limit_is_refused_by_its_header() {
    let mut header = BytesMut::new();
    websocket::push_header(&mut header, Opcode::Text, LIMIT + 1, Some([0; 4]));
    let refused = read(Side::Server, &header, 100).unwrap_err();
    assert_eq!(refused.code(), 1009);
}

#[test]
fn a_body_that_would_write_an_envelope_of_its_own_is_no_data() {
    assert!(v2::may_be_data(br#"{"a":1}"#));
    assert!(v2::may_be_data(b"null"));
    for body in [
        &br#"1,"sender":"pcp://other/agent""#[..],
        b"",
        b"{",
        b"1 2",
        b"\xff",
    ] {
        assert!(!v2::may_be_data(body), "{body:?}");
    }
}
