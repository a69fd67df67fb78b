//! Whatever is written is read back, and whatever else is read harms nobody: values, arbitrary
//! bytes, damaged bytes, bytes that end too early, lengths that lie.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be must stop them"
)]

use bytes::Bytes;
use pcp::frame::{self, HEADER, MAX_SESSION_PAYLOAD, max_message_payload};
use pcp::link::CHUNK_BYTES;
use pcp::message::{DEFAULT_MAX_MESSAGE, INLINE_LIMIT, MAX_ENVELOPE};
use pcp::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A text for a person: what has control characters is not read back as it was written.
fn line() -> impl Strategy<Value = String> {
    r"\PC{0,60}"
}

fn certname() -> impl Strategy<Value = Certname> {
    prop_oneof![
        9 => "[A-Za-z0-9_][A-Za-z0-9._:-]{0,40}",
        1 => "[A-Za-z0-9_][A-Za-z0-9._:-]{254}",
    ]
    .prop_map(|text| text.parse().unwrap())
}

fn client_type() -> impl Strategy<Value = ClientType> {
    "[A-Za-z0-9._-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn uri() -> impl Strategy<Value = Uri> {
    (certname(), client_type()).prop_map(|(certname, kind)| Uri::new(certname, kind))
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![Just(Target::Broker), uri().prop_map(Target::Client)]
}

fn id() -> impl Strategy<Value = MessageId> {
    any::<u128>().prop_map(|number| MessageId(uuid::Uuid::from_u128(number)))
}

fn flags() -> impl Strategy<Value = Flags> {
    prop_oneof![Just(Flags::default()), Just(Flags::ACKNOWLEDGES)]
}

prop_compose! {
    fn message()(
        id in id(),
        message_type in "[A-Za-z0-9_.:/-]{1,255}",
        sender in uri(),
        target in target(),
        in_reply_to in option::of(id()),
        hops in any::<u8>(),
        flags in flags(),
        body in vec(any::<u8>(), 0..300),
    ) -> Message {
        let message_type = MessageType::parse(&message_type).unwrap();
        let envelope = Envelope { id, message_type, sender, target, in_reply_to, hops, flags };
        Message { envelope, body: body.into() }
    }
}

fn announcements() -> impl Strategy<Value = Vec<Announcement>> {
    let one = (uri(), any::<u64>(), any::<bool>());
    let one = one.prop_map(|(uri, started, connected)| Announcement {
        uri,
        started,
        connected,
    });
    vec(one, 0..20)
}

fn link_frame() -> impl Strategy<Value = LinkFrame> {
    (any::<u64>(), 0..3, announcements()).prop_map(|(epoch, kind, list)| match kind {
        0 => LinkFrame::Delta {
            epoch,
            changes: list,
        },
        last => LinkFrame::Snapshot {
            epoch,
            last: last == 1,
            clients: list,
        },
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let texts = vec(".{0,20}", 0..4);
    let code = any::<u32>().prop_map(GoodbyeCode::from);
    let content_error = prop_oneof![
        Just(ContentErrorCode::NotFound),
        Just(ContentErrorCode::Unavailable),
        Just(ContentErrorCode::Busy),
        Just(ContentErrorCode::Unauthorized),
    ];
    prop_oneof![
        (client_type(), line(), texts.clone(), any::<u64>()).prop_map(
            |(client_type, software, features, started)| Frame::Hello(Hello {
                client_type,
                software,
                features,
                started
            })
        ),
        (certname(), line(), texts, any::<u64>(), any::<u64>()).prop_map(
            |(broker, software, features, max_message, server_time)| Frame::Welcome(Welcome {
                broker,
                software,
                features,
                max_message,
                server_time
            })
        ),
        (line(), any::<u32>())
            .prop_map(|(reason, seconds)| Frame::Retry(Retry { reason, seconds })),
        (code, line()).prop_map(|(code, reason)| Frame::Goodbye(Goodbye { code, reason })),
        message().prop_map(Frame::Message),
        link_frame().prop_map(Frame::Link),
        any::<[u8; 32]>().prop_map(|digest| Frame::ContentRequest(Digest(digest))),
        any::<u64>().prop_map(Frame::ContentHeader),
        (content_error, line())
            .prop_map(|(code, message)| Frame::ContentError(ContentError { code, message })),
    ]
}

/// Reads as many frames as there are, and what the end of the stream means.
fn read(bytes: &[u8], limit: usize) -> Result<Vec<Frame>, FrameError> {
    let mut reader = FrameReader::new(limit);
    reader.buffer().extend_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    reader.finish()?;
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_are_read_back_however_they_arrive(
        frames in vec(any_frame(), 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut writer = FrameWriter::default();
        frames.iter().for_each(|frame| writer.push(frame));
        let bytes = writer.take();
        prop_assert!(writer.is_empty());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut reader = FrameReader::new(MAX_SESSION_PAYLOAD);
        let mut read = Vec::new();
        for piece in cuts.windows(2) {
            reader.buffer().extend_from_slice(&bytes[piece[0]..piece[1]]);
            while let Some(frame) = reader.next_frame().unwrap() {
                read.push(frame);
            }
        }
        prop_assert_eq!(read, frames);
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_stream_that_ends_at_any_byte_of_a_frame_is_incomplete(frame in any_frame()) {
        let bytes = frame::to_bytes(&frame);
        for end in 1..bytes.len() {
            prop_assert_eq!(
                read(&bytes[..end], MAX_SESSION_PAYLOAD),
                Err(FrameError::Incomplete)
            );
        }
    }

    #[test]
    fn a_frame_cut_short_under_an_honest_length_never_becomes_the_same_frame(frame in any_frame()) {
        let bytes = frame::to_bytes(&frame);
        for end in HEADER..bytes.len() {
            let mut short = bytes[..end].to_vec();
            let length = u32::try_from(end - HEADER).unwrap();
            short[..4].copy_from_slice(&length.to_be_bytes());
            prop_assert_ne!(read(&short, MAX_SESSION_PAYLOAD), Ok(vec![frame.clone()]));
        }
    }

    #[test]
    fn arbitrary_bytes_harm_nobody(bytes in vec(any::<u8>(), 0..400), kind in 0..12_u8) {
        drop(read(&bytes, 200));
        drop(Message::decode(Bytes::from(bytes.clone())));
        let length = u32::try_from(bytes.len()).unwrap();
        let framed = [&length.to_be_bytes()[..], &[kind], &bytes].concat();
        drop(read(&framed, MAX_SESSION_PAYLOAD));
    }

    #[test]
    fn a_damaged_frame_harms_nobody(
        frame in any_frame(),
        place in any::<prop::sample::Index>(),
        damage in 1..=255_u8,
    ) {
        let mut bytes = frame::to_bytes(&frame).to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= damage;
        // What is still read is a value that can be written.
        for frame in read(&bytes, MAX_SESSION_PAYLOAD).unwrap_or_default() {
            let again = frame::to_bytes(&frame);
            prop_assert_eq!(read(&again, MAX_SESSION_PAYLOAD), Ok(vec![frame]));
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_by_the_header_alone(
        limit in 0..100_000_usize,
        beyond in 1..1_000_000_u32,
        kind in any::<u8>(),
    ) {
        let announced = u32::try_from(limit).unwrap() + beyond;
        let mut reader = FrameReader::new(limit);
        reader.buffer().extend_from_slice(&announced.to_be_bytes());
        reader.buffer().extend_from_slice(&[kind]);
        let room = reader.buffer().capacity();
        let announced = usize::try_from(announced).unwrap();
        prop_assert_eq!(reader.next_frame(), Err(FrameError::TooLarge { announced, limit }));
        prop_assert_eq!(reader.buffer().capacity(), room);
    }

    #[test]
    fn a_message_takes_no_more_bytes_than_it_says(message in message()) {
        let written = frame::to_bytes(&Frame::Message(message.clone())).len() - HEADER;
        prop_assert_eq!(written, message.size());
        prop_assert!(written - message.body.len() <= MAX_ENVELOPE);
        prop_assert!(written <= max_message_payload(message.body.len()));
    }

    #[test]
    fn ids_that_are_counted_differ(life in 0..1_u64 << 48, number in 0..1_u64 << 62) {
        let id = MessageId::numbered(life, number);
        prop_assert_eq!(id.0.get_version_num(), 8);
        prop_assert_ne!(id, MessageId::numbered(life ^ 1, number));
        prop_assert_ne!(id, MessageId::numbered(life, number ^ 1));
    }

    #[test]
    fn announcements_are_split_into_lists_that_fit_a_frame(
        some in announcements(),
        copies in 1..200_usize,
    ) {
        let all: Vec<Announcement> = std::iter::repeat_n(some, copies).flatten().collect();
        let chunks = LinkFrame::chunks(all.clone());
        for changes in chunks.clone() {
            prop_assert!(!changes.is_empty());
            let frame = Frame::Link(LinkFrame::Delta { epoch: 1, changes });
            let payload = frame::to_bytes(&frame).len() - HEADER;
            prop_assert!(payload <= CHUNK_BYTES + 9);
        }
        prop_assert_eq!(chunks.concat(), all);
    }

    #[test]
    fn addresses_are_read_back(uri in uri(), target in target()) {
        prop_assert_eq!(uri.to_string().parse(), Ok(uri.clone()));
        prop_assert_eq!(target.to_string().parse(), Ok(target.clone()));
        let pattern: UriPattern = uri.to_string().parse().unwrap();
        prop_assert!(pattern.matches(&uri));
        prop_assert_eq!(pattern.exact(), Some(uri.clone()));
        let json = serde_json::to_string(&(&uri, &target)).unwrap();
        prop_assert_eq!(serde_json::from_str::<(Uri, Target)>(&json).unwrap(), (uri, target));
    }

    #[test]
    fn any_text_is_an_address_that_reads_the_same_or_none(
        text in prop_oneof![".{0,40}", "pcp://[a-z*/.:-]{0,12}", "pcp://.{0,20}/.{0,20}"],
    ) {
        if let Ok(uri) = text.parse::<Uri>() {
            prop_assert_eq!(uri.to_string(), text.clone());
        }
        if let Ok(target) = text.parse::<Target>() {
            prop_assert_eq!(target.to_string(), text.clone());
        }
        if let Ok(pattern) = text.parse::<UriPattern>() {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn digests_are_read_back(digest in any::<[u8; 32]>(), text in "[0-9a-fA-F+é]{60,66}") {
        prop_assert_eq!(Digest(digest).to_string().parse(), Ok(Digest(digest)));
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), text.to_lowercase());
        }
    }
}

proptest! {
    #[test]
    fn any_body_of_an_error_message_is_a_known_kind_or_none(
        bytes in vec(any::<u8>(), 0..60), text in "\"(Could not decode message|Not connected|\\PC{0,20})\"?",
    ) {
        for body in [bytes.as_slice(), text.as_bytes()] {
            if let Some(kind) = ErrorKind::from_body(body) {
                prop_assert_eq!(kind.body().to_vec(), body);
            }
        }
        let kind = ErrorKind::Undecodable;
        prop_assert_eq!(ErrorKind::from_body(&kind.body()), Some(kind));
    }
}

#[test]
fn the_limits_fit_into_each_other() {
    const {
        assert!(INLINE_LIMIT + HEADER <= MAX_SESSION_PAYLOAD);
        assert!(CHUNK_BYTES + 9 <= MAX_SESSION_PAYLOAD);
        assert!(frame::MAX_CONTROL <= MAX_SESSION_PAYLOAD);
    }
    assert!(u32::try_from(max_message_payload(DEFAULT_MAX_MESSAGE)).is_ok());
}
