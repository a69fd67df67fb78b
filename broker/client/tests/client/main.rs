//! The client against a broker that is played here, over real sockets on loopback: what it does when
//! all is well, and what when the broker is silent, leaves, lies or sends garbage.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod played;

use std::time::Duration;

use pcp::message::INLINE_LIMIT;
use pcp::{
    Announcement, ClientType, ContentError, ContentErrorCode, Digest, Frame, Goodbye, GoodbyeCode,
    LinkFrame, Retry,
};
use pcp_client::{
    Backoff, ClientConfig, EVENT_QUEUE, Event, FEATURE_CONTENT, FetchError, SendError, State,
    content, start,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use played::{Ground, Peer, message};

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

async fn event(events: &mut mpsc::Receiver<Event>) -> Event {
    let event = timeout(SOON, events.recv()).await;
    event.expect("an event in time").expect("a live client")
}

async fn connected(events: &mut mpsc::Receiver<Event>) {
    let event = event(events).await;
    assert!(matches!(event, Event::Connected { .. }), "{event:?}");
}

async fn disconnected(events: &mut mpsc::Receiver<Event>) -> String {
    match event(events).await {
        Event::Disconnected { reason } => reason,
        event => panic!("not the end of the session: {event:?}"),
    }
}

fn impatient(mut config: ClientConfig) -> ClientConfig {
    config.backoff = Backoff {
        base: Duration::from_millis(5),
        cap: Duration::from_millis(50),
    };
    config
}

#[tokio::test]
async fn moves_messages_of_every_size_both_ways() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let (handle, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    let mut peer = broker.welcome().await;
    assert_eq!(peer.hello.client_type, ClientType::agent());
    connected(&mut events).await;

    for size in [0, 100, INLINE_LIMIT, 5_000_000] {
        let sent = message(handle.uri(), size);
        handle.send(sent.clone()).await.expect("sent");
        assert_eq!(peer.message().await, sent);
        peer.send(&Frame::Message(sent.clone())).await;
        match event(&mut events).await {
            Event::Message(back) => assert_eq!(back, sent),
            event => panic!("no message: {event:?}"),
        }
    }
    assert!(tasks.shutdown(SOON).await);
}

#[tokio::test]
async fn refuses_what_the_broker_would_not_take() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let (handle, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    assert_eq!(
        handle.send(message(handle.uri(), 1)).await,
        Err(SendError::NotConnected)
    );
    let _peer = broker.welcome().await;
    connected(&mut events).await;
    let size = played::MAX_MESSAGE + 1;
    assert_eq!(
        handle.send(message(handle.uri(), size)).await,
        Err(SendError::TooLarge {
            size,
            limit: played::MAX_MESSAGE
        })
    );
}

#[tokio::test]
async fn says_goodbye_behind_the_last_message_when_shut_down() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let (handle, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    let mut peer = broker.welcome().await;
    connected(&mut events).await;
    let last = message(handle.uri(), 100);
    handle.send(last.clone()).await.expect("sent");
    let stopping = tasks.shutdown(SOON);
    let seen = async {
        assert_eq!(peer.message().await, last);
        match peer.frame().await {
            Some(Frame::Goodbye(goodbye)) => assert_eq!(goodbye.code, GoodbyeCode::Normal),
            frame => panic!("no goodbye: {frame:?}"),
        }
    };
    let (ended, ()) = tokio::join!(stopping, seen);
    assert!(ended);
    assert_eq!(*handle.state().borrow(), State::Closed);
    assert_eq!(
        handle.send(message(handle.uri(), 1)).await,
        Err(SendError::Closed)
    );
}

#[tokio::test]
async fn ends_when_nobody_reads_its_events() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let (handle, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    let _peer = broker.welcome().await;
    connected(&mut events).await;
    drop(events);
    let mut state = handle.state();
    let closed = state.wait_for(|state| *state == State::Closed);
    timeout(SOON, closed).await.expect("in time").expect("seen");
}

#[tokio::test]
async fn comes_back_after_a_drop_with_a_newer_session() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let config = impatient(ground.config("node", "agent", &[&broker]));
    let (_handle, mut events) = start(config, &tasks);
    let mut last = 0;
    for _ in 0..3 {
        let peer = broker.welcome().await;
        connected(&mut events).await;
        assert!(peer.hello.started > last);
        last = peer.hello.started;
        peer.connection.close(0u32.into(), b"");
        disconnected(&mut events).await;
    }
}

#[tokio::test]
async fn notices_a_drop_while_nobody_takes_its_messages() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let config = impatient(ground.config("node", "agent", &[&broker]));
    let (handle, mut events) = start(config, &tasks);
    let mut peer = broker.welcome().await;
    connected(&mut events).await;
    // One more than there is room for, so that the session waits for its reader.
    for _ in 0..=EVENT_QUEUE {
        let message = message(handle.uri(), 1);
        peer.send(&Frame::Message(message)).await;
    }
    let full = async {
        while events.len() < EVENT_QUEUE {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, full).await.expect("full in time");
    peer.connection.close(0u32.into(), b"");
    broker.all_closed().await;
    while !matches!(event(&mut events).await, Event::Disconnected { .. }) {}
    let _peer = broker.welcome().await;
    connected(&mut events).await;
    assert!(tasks.shutdown(SOON).await);
}

#[tokio::test]
async fn goes_to_the_next_broker_when_one_is_silent_refuses_or_leaves() {
    let ground = Ground::new();
    let first = ground.broker("first");
    let second = ground.broker("second");
    let tasks = daemon::Tasks::new();
    let config = impatient(ground.config("node", "agent", &[&first, &second]));
    let (handle, mut events) = start(config, &tasks);

    let refusal = Goodbye {
        code: GoodbyeCode::Unauthorized,
        reason: "not you".to_owned(),
    };
    let _told = first.answer(&Frame::Goodbye(refusal)).await;
    let mut peer = second.welcome().await;
    connected(&mut events).await;
    match &*handle.state().borrow() {
        State::Connected { broker, .. } => assert_eq!(broker.as_str(), "second"),
        state => panic!("not connected: {state:?}"),
    }

    let leaving = Goodbye {
        code: GoodbyeCode::GoingAway,
        reason: "restarting".to_owned(),
    };
    peer.send(&Frame::Goodbye(leaving)).await;
    assert_eq!(disconnected(&mut events).await, "restarting");
    let _peer = first.welcome().await;
    connected(&mut events).await;
}

#[tokio::test]
async fn waits_as_long_as_the_broker_asks() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let config = impatient(ground.config("node", "agent", &[&broker]));
    let (_handle, mut events) = start(config, &tasks);
    let retry = Retry {
        reason: "too many".to_owned(),
        seconds: 1,
    };
    let _told = broker.answer(&Frame::Retry(retry)).await;
    let asked = std::time::Instant::now();
    let _peer = broker.welcome().await;
    assert!(asked.elapsed() >= Duration::from_millis(900));
    connected(&mut events).await;
}

#[tokio::test]
async fn tells_when_another_process_has_its_certificate() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let (handle, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    let mut peer = broker.welcome().await;
    connected(&mut events).await;
    let goodbye = Goodbye {
        code: GoodbyeCode::Superseded,
        reason: "superseded by a newer session".to_owned(),
    };
    peer.send(&Frame::Goodbye(goodbye)).await;
    assert!(disconnected(&mut events).await.contains("superseded"));
    let mut state = handle.state();
    let waiting = state.wait_for(|state| matches!(state, State::Connecting { .. }));
    timeout(SOON, waiting)
        .await
        .expect("in time")
        .expect("seen");
}

#[tokio::test]
async fn survives_a_broker_that_talks_nonsense() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let config = impatient(ground.config("node", "agent", &[&broker]));
    let (_handle, mut events) = start(config, &tasks);
    let link = Frame::Link(LinkFrame::Delta {
        epoch: 1,
        changes: Vec::<Announcement>::new(),
    });
    let nonsense: [&[u8]; 4] = [
        b"\xff\xff\xff\xff\x05",
        b"\x00\x00\x00\x01\x63?",
        b"\x00\x00\x00\x03\x05abc",
        &pcp::frame::to_bytes(&link),
    ];
    for bytes in nonsense {
        let mut peer = broker.welcome().await;
        connected(&mut events).await;
        peer.raw(bytes).await;
        disconnected(&mut events).await;
    }
    let mut peer = broker.welcome().await;
    connected(&mut events).await;
    peer.raw_uni(b"\xff\xff\xff\xff\x05").await;
    peer.raw_uni(b"GET / HTTP/1.1\r\n\r\n").await;
    let uri = "pcp://x/agent".parse().expect("a URI");
    let sound = message(&uri, 10);
    peer.send(&Frame::Message(sound.clone())).await;
    match event(&mut events).await {
        Event::Message(message) => assert_eq!(message, sound),
        event => panic!("no message: {event:?}"),
    }
}

#[tokio::test]
async fn takes_no_broker_whose_certificate_is_for_another_host() {
    let ground = Ground::new();
    let other = ground.broker_for("other", &["elsewhere.example.com"]);
    let tasks = daemon::Tasks::new();
    let (handle, _events) = start(ground.config("node", "agent", &[&other]), &tasks);
    let mut state = handle.state();
    let failed = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. } if error.contains("handshake"))
    });
    let (failed, ()) = tokio::join!(timeout(SOON, failed), other.fail());
    failed.expect("in time").expect("seen");
}

#[tokio::test]
async fn fetches_files_and_tells_why_it_cannot() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let (handle, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    let digest = Digest([7; 32]);
    let unconnected = handle.fetch(digest).await;
    assert!(matches!(unconnected, Err(FetchError::NotConnected)));
    let peer = broker.welcome().await;
    connected(&mut events).await;

    let file = vec![42u8; 300_000];
    let size = 300_000;
    let (content, query) = tokio::join!(handle.fetch(digest), async {
        let query = peer.query().await;
        assert_eq!(query.digest, digest);
        query.found(size, &*file).await.expect("sent");
    });
    let () = query;
    let mut content = content.expect("found");
    assert_eq!(content.size, size);
    let mut got = Vec::new();
    content.reader.read_to_end(&mut got).await.expect("read");
    assert!(got == file);

    let why = ContentError {
        code: ContentErrorCode::NotFound,
        message: "nobody has it".to_owned(),
    };
    let (content, ()) = tokio::join!(handle.fetch(digest), async {
        peer.query().await.refuse(why.clone()).await.expect("sent");
    });
    match content {
        Err(FetchError::Refused(error)) => assert_eq!(error, why),
        other => panic!("not refused: {other:?}"),
    }

    // A source that ends too soon must not look like a whole file.
    let (content, ()) = tokio::join!(handle.fetch(digest), async {
        let query = peer.query().await;
        assert!(query.found(size, &file[..1000]).await.is_err());
    });
    match content {
        Ok(mut content) => assert!(content.reader.read_to_end(&mut Vec::new()).await.is_err()),
        Err(error) => assert!(matches!(error, FetchError::Answer(_)), "{error:?}"),
    }
}

#[tokio::test]
async fn is_asked_for_files_only_when_it_has_some() {
    let ground = Ground::new();
    let broker = ground.broker("broker");
    let tasks = daemon::Tasks::new();
    let mut config = ground.config("orch", "orchestrator", &[&broker]);
    config.features = vec![FEATURE_CONTENT.to_owned()];
    let (_source, mut events) = start(config, &tasks);
    let peer = broker.welcome().await;
    connected(&mut events).await;
    let digest = Digest([9; 32]);
    let (content, ()) = tokio::join!(content::fetch(&peer.connection, digest), async {
        match event(&mut events).await {
            Event::Content(query) => {
                assert_eq!(query.digest, digest);
                query.found(5, &b"hello"[..]).await.expect("sent");
            }
            event => panic!("no query: {event:?}"),
        }
    });
    let mut got = String::new();
    let mut content = content.expect("found");
    content.reader.read_to_string(&mut got).await.expect("read");
    assert_eq!(got, "hello");

    let (_agent, mut events) = start(ground.config("node", "agent", &[&broker]), &tasks);
    let peer: Peer = broker.welcome().await;
    connected(&mut events).await;
    let refused = timeout(Duration::from_millis(200), peer.connection.open_bi()).await;
    assert!(refused.is_err(), "an agent has no streams for questions");
}

#[tokio::test]
async fn leaves_a_broker_whose_certificate_was_revoked_and_goes_to_another() {
    let ground = Ground::new();
    let (stolen, good) = (ground.broker("stolen"), ground.broker("good"));
    let tasks = daemon::Tasks::new();
    let config = impatient(ground.config("node", "agent", &[&stolen, &good]));
    let identity = std::sync::Arc::clone(&config.identity);
    let (_handle, mut events) = start(config, &tasks);
    let _first = stolen.welcome().await;
    connected(&mut events).await;
    ground.revoke("stolen");
    identity.reload().expect("sound files");
    let reason = disconnected(&mut events).await;
    assert!(reason.contains("revoked"), "{reason}");
    let _second = good.welcome().await;
    connected(&mut events).await;
    assert!(tasks.shutdown(SOON).await);
}
