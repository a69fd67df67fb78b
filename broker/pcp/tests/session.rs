//! Who may say what when, at both ends of a session.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be must stop them"
)]

use pcp::*;

fn hello(client_type: &str) -> Frame {
    Frame::Hello(Hello {
        client_type: client_type.parse().unwrap(),
        software: "test/1".to_owned(),
        features: vec![],
        started: 1,
    })
}

fn welcome() -> Frame {
    Frame::Welcome(Welcome {
        broker: "primary".parse().unwrap(),
        software: "test/1".to_owned(),
        features: vec![],
        max_message: 1,
        server_time: 2,
    })
}

fn retry() -> Frame {
    Frame::Retry(Retry {
        reason: "busy".to_owned(),
        seconds: 3,
    })
}

fn goodbye() -> Frame {
    Frame::Goodbye(Goodbye {
        code: GoodbyeCode::Normal,
        reason: String::new(),
    })
}

fn message() -> Frame {
    Frame::Message(Message {
        envelope: Envelope {
            id: MessageId::numbered(1, 1),
            message_type: MessageType::of("test"),
            sender: "pcp://a/agent".parse().unwrap(),
            target: Target::Broker,
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: "".into(),
    })
}

fn link() -> Frame {
    Frame::Link(LinkFrame::Delta {
        epoch: 1,
        changes: vec![],
    })
}

fn content() -> [Frame; 3] {
    [
        Frame::ContentRequest(Digest([0; 32])),
        Frame::ContentHeader(0),
        Frame::ContentError(ContentError {
            code: ContentErrorCode::NotFound,
            message: String::new(),
        }),
    ]
}

/// Everything that can stand on a stream.
fn all() -> Vec<Frame> {
    let mut all = vec![
        hello("agent"),
        welcome(),
        retry(),
        goodbye(),
        message(),
        link(),
    ];
    all.extend(content());
    all
}

/// A broker's end after these frames, which it takes.
fn server(before: &[Frame]) -> ServerSession {
    let mut session = ServerSession::default();
    for frame in before {
        session.handle(frame.clone()).unwrap();
    }
    session
}

/// A client's end after these frames, which it takes.
fn client(client_type: &str, before: &[Frame]) -> ClientSession {
    let mut session = ClientSession::new(&client_type.parse().unwrap());
    for frame in before {
        session.handle(frame.clone()).unwrap();
    }
    session
}

/// The frames of `all` that a fresh session of the kind takes, by their places in it.
fn taken<T, E>(handle: impl Fn(Frame) -> Result<T, E>) -> Vec<usize> {
    let all = all().into_iter().enumerate();
    all.filter_map(|(place, frame)| handle(frame).ok().map(|_| place))
        .collect()
}

const HELLO: usize = 0;
const WELCOME: usize = 1;
const RETRY: usize = 2;
const GOODBYE: usize = 3;
const MESSAGE: usize = 4;
const LINK: usize = 5;

#[test]
fn a_broker_takes_nothing_before_hello() {
    assert_eq!(taken(|frame| server(&[]).handle(frame)), [HELLO]);
}

#[test]
fn a_broker_takes_messages_and_goodbye_from_a_client() {
    let open = [hello("agent")];
    assert_eq!(
        taken(|frame| server(&open).handle(frame)),
        [GOODBYE, MESSAGE]
    );
    assert_eq!(
        server(&open).handle(link()),
        Err(PeerMisbehaved::LinkFromClient)
    );
}

#[test]
fn a_broker_takes_link_frames_from_a_broker_too() {
    let open = [hello("server")];
    assert_eq!(
        taken(|frame| server(&open).handle(frame)),
        [GOODBYE, MESSAGE, LINK]
    );
}

#[test]
fn a_broker_takes_nothing_after_goodbye() {
    for client_type in ["agent", "server"] {
        let closed = [hello(client_type), goodbye()];
        assert!(taken(|frame| server(&closed).handle(frame)).is_empty());
    }
}

#[test]
fn a_client_takes_welcome_retry_or_goodbye_first() {
    for client_type in ["agent", "server"] {
        assert_eq!(
            taken(|frame| client(client_type, &[]).handle(frame)),
            [WELCOME, RETRY, GOODBYE]
        );
    }
}

#[test]
fn a_client_takes_messages_and_goodbye_after_welcome() {
    let open = [welcome()];
    assert_eq!(
        taken(|frame| client("agent", &open).handle(frame)),
        [GOODBYE, MESSAGE]
    );
    assert_eq!(
        client("agent", &open).handle(link()),
        Err(PeerMisbehaved::LinkFromClient)
    );
    assert_eq!(
        taken(|frame| client("server", &open).handle(frame)),
        [GOODBYE, MESSAGE, LINK]
    );
}

#[test]
fn a_client_takes_nothing_after_the_end() {
    for closed in [&[retry()][..], &[goodbye()], &[welcome(), goodbye()]] {
        assert!(taken(|frame| client("server", closed).handle(frame)).is_empty());
    }
}

#[test]
fn a_fault_leaves_the_session_as_it_was() {
    let mut broker = server(&[]);
    broker.handle(message()).unwrap_err();
    assert!(matches!(
        broker.handle(hello("agent")),
        Ok(ServerEvent::Hello(_))
    ));
    let mut agent = client("agent", &[]);
    agent.handle(message()).unwrap_err();
    assert!(matches!(
        agent.handle(welcome()),
        Ok(ClientEvent::Welcome(_))
    ));
}

#[test]
fn a_fault_names_the_frame_and_the_moment() {
    let fault = server(&[]).handle(message()).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "a message frame may not come before hello"
    );
    let fault = client("agent", &[welcome()]).handle(retry()).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "a retry frame may not come from a broker"
    );
}

#[test]
fn every_number_is_a_goodbye_code_and_back() {
    for code in (0..5000).chain([u32::MAX]) {
        assert_eq!(u32::from(GoodbyeCode::from(code)), code);
    }
}
