//! Our client where UDP does not get through: WebSocket in its place, back to QUIC without a loss, and
//! through a proxy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use identity::Current;
use pcp::ClientType;
use pcp::message::INLINE_LIMIT;
use pcp_broker::config::Transports;
use pcp_client::{
    Backoff, ClientConfig, Event, FEATURE_CONTENT, FetchError, State, Transport, Ways,
};
use tokio::time::timeout;

use crate::content::{HAVE, fetch, serve};
use crate::field::{Client, Field, MAX_MESSAGE, Running, SOON, broker_address, message};
use crate::valve::{PlayedProxy, Valve};

const ANSWER: &str = "rpc_non_blocking_response";
const REQUEST: &str = "rpc_non_blocking_request";
const AGENT: &str = "pcp://node/agent";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

const WEBSOCKET: Ways = Ways::Only(Transport::WebSocket);

/// A client's configuration that is in a hurry.
fn config(
    field: &Field,
    certname: &str,
    client_type: &str,
    broker: std::net::SocketAddr,
) -> ClientConfig {
    let mut config = ClientConfig::new(
        vec![broker_address(broker)],
        Arc::new(Current::fixed(field.identity(certname))),
        ClientType::parse(client_type).expect("a client type"),
        "test/1".to_owned(),
    );
    config.backoff = Backoff {
        base: Duration::from_millis(20),
        cap: Duration::from_millis(200),
    };
    config.head_start = Duration::from_millis(50);
    config.probe_base = Duration::from_millis(50);
    config
}

fn start(config: ClientConfig) -> Client {
    let tasks = daemon::Tasks::new();
    let (handle, events) = pcp_client::start(config, &tasks);
    Client {
        handle,
        events,
        tasks,
        aside: Vec::new(),
    }
}

fn transport(client: &Client) -> Option<Transport> {
    match &*client.handle.state().borrow() {
        State::Connected { transport, .. } => Some(*transport),
        State::Connecting { .. } | State::Closed => None,
    }
}

async fn wait_transport(client: &Client, wanted: Transport) {
    let mut state = client.handle.state();
    let moved = state.wait_for(
        |state| matches!(state, State::Connected { transport, .. } if *transport == wanted),
    );
    // A silence is noticed after 15 s, and the first handshake is given up after 10 s more.
    let moved = timeout(SOON * 4, moved).await;
    moved.expect("in time").expect("alive");
}

async fn wait_error(client: &Client, wanted: &str) -> String {
    let mut state = client.handle.state();
    let failed = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. } if error.contains(wanted))
    });
    let failed = timeout(SOON, failed).await.expect("in time");
    match &*failed.expect("alive") {
        State::Connecting {
            last_error: Some(error),
            ..
        } => error.clone(),
        state => panic!("not that: {state:?}"),
    }
}

/// A broker that takes WebSockets alone, or both ways.
fn broker(field: &Field, quic: bool) -> Running {
    let mut config = field.config("primary", &[]);
    config.transports = Transports {
        quic,
        websocket: true,
    };
    Running::start(config)
}

/// Sends one message each way in each size, and expects the same bytes.
async fn talk(orchestrator: &mut Client, agent: &mut Client) {
    for size in [0, 500, INLINE_LIMIT, MAX_MESSAGE] {
        let request = message(&orchestrator.handle, REQUEST, AGENT, size);
        orchestrator.send(&request).await;
        let got = agent.message().await;
        assert_eq!(got.envelope.id, request.envelope.id);
        assert_eq!(got.body, request.body);
        let mut answer = message(&agent.handle, ANSWER, ORCHESTRATOR, size);
        answer.envelope.in_reply_to = Some(got.envelope.id);
        agent.send(&answer).await;
        let got = orchestrator.message().await;
        assert_eq!(got.envelope.in_reply_to, answer.envelope.in_reply_to);
        assert_eq!(got.body, answer.body);
    }
}

#[tokio::test]
async fn agents_and_controllers_use_websocket_where_a_broker_has_no_quic() {
    let field = Field::new();
    let broker = broker(&field, false);
    let mut orchestrator = start(config(&field, "orch", "orchestrator", broker.address));
    orchestrator.wait_connected().await;
    let mut agent = start(config(&field, "node", "agent", broker.address));
    agent.wait_connected().await;
    assert_eq!(transport(&agent), Some(Transport::WebSocket));
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut agent).await;
    assert!(agent.tasks.shutdown(SOON).await);
    orchestrator.wait_present(AGENT, false).await;
    broker.stop().await;
    loop {
        if let Event::Disconnected { reason } = orchestrator.event().await {
            assert!(reason.contains("being stopped"), "{reason}");
            return;
        }
    }
}

#[tokio::test]
async fn quic_is_taken_where_both_ways_are_open() {
    let field = Field::new();
    let broker = broker(&field, true);
    let mut config = config(&field, "node", "agent", broker.address);
    config.head_start = SOON;
    let mut agent = start(config);
    agent.wait_connected().await;
    assert_eq!(transport(&agent), Some(Transport::Quic));
}

#[tokio::test]
async fn a_client_goes_back_to_quic_and_loses_no_message() {
    const EACH: usize = 400;
    let field = Field::new();
    let broker = broker(&field, true);
    let valve = Valve::new(broker.address, false).await;
    let mut orchestrator = field.connected("orch", "orchestrator", &broker).await;
    let mut agent = start(config(&field, "node", "agent", valve.address));
    agent.wait_connected().await;
    assert_eq!(transport(&agent), Some(Transport::WebSocket));
    orchestrator.wait_present(AGENT, true).await;

    let (asking, answering) = (orchestrator.handle.clone(), agent.handle.clone());
    let mut sent = BTreeSet::new();
    let mut heard_by_agent = BTreeSet::new();
    let mut heard_by_orchestrator = BTreeSet::new();
    let mut moved = false;
    let all = async {
        let mut number = 0;
        while heard_by_agent.len() < EACH || heard_by_orchestrator.len() < EACH || !moved {
            if number == EACH / 4 {
                valve.open(true);
            }
            // So many may be on their way that a broker has room for them.
            let behind = number - heard_by_agent.len().min(heard_by_orchestrator.len());
            let sending = number < EACH && behind < 40;
            if sending {
                // A large one now and then: it takes its time, and has its own stream over QUIC. A broker
                // has room for four.
                let size = if number % 100 == 7 { 400_000 } else { 100 };
                let request = message(&asking, REQUEST, AGENT, size);
                let answer = message(&answering, ANSWER, ORCHESTRATOR, size);
                sent.insert(request.envelope.id);
                sent.insert(answer.envelope.id);
                asking.send(request).await.expect("sent");
                answering
                    .send(answer)
                    .await
                    .expect("there is always a session");
                number += 1;
            }
            tokio::select! {
                biased;
                event = agent.events.recv() => match event.expect("alive") {
                    Event::Message(message) => {
                        assert_eq!(message.envelope.message_type.name(), Some(REQUEST));
                        assert!(heard_by_agent.insert(message.envelope.id), "once");
                    }
                    Event::Disconnected { reason } => assert_eq!(reason, "moving to QUIC"),
                    Event::Connected { .. } => moved = true,
                    event => panic!("not that: {event:?}"),
                },
                event = orchestrator.events.recv() => match event.expect("alive") {
                    Event::Message(message) => {
                        let name = message.envelope.message_type.name();
                        assert_eq!(name, Some(ANSWER), "{:?}", message.body);
                        assert!(heard_by_orchestrator.insert(message.envelope.id), "once");
                    }
                    event => panic!("not that: {event:?}"),
                },
                () = std::future::ready(()), if sending => {}
            }
        }
    };
    let done = timeout(SOON * 2, all).await;
    let heard = (heard_by_agent.len(), heard_by_orchestrator.len());
    assert!(done.is_ok(), "moved: {moved}, heard {heard:?} of {EACH}");
    assert_eq!(transport(&agent), Some(Transport::Quic));
    let heard: BTreeSet<_> = heard_by_agent.union(&heard_by_orchestrator).collect();
    assert_eq!(heard.len(), sent.len());
    talk(&mut orchestrator, &mut agent).await;
}

#[tokio::test]
async fn a_client_whose_udp_is_blocked_in_the_middle_comes_back_over_websocket() {
    let field = Field::new();
    let broker = broker(&field, true);
    let valve = Valve::new(broker.address, true).await;
    // A controller's silence is noticed sooner than an agent's.
    let mut settings = config(&field, "orch", "orchestrator", valve.address);
    settings.head_start = SOON;
    let mut orchestrator = start(settings);
    orchestrator.wait_connected().await;
    assert_eq!(transport(&orchestrator), Some(Transport::Quic));
    valve.open(false);
    wait_transport(&orchestrator, Transport::WebSocket).await;
    valve.open(true);
    wait_transport(&orchestrator, Transport::Quic).await;
}

#[tokio::test]
async fn files_come_over_https_where_the_session_is_a_websocket() {
    let field = Field::new();
    let broker = broker(&field, true);
    let mut orchestrator = field.client_with("orch", "orchestrator", &broker, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let mut settings = config(&field, "node", "agent", broker.address);
    settings.ways = WEBSOCKET;
    let mut agent = start(settings);
    agent.wait_connected().await;
    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&agent, HAVE));
    assert!(got.expect("found").iter().all(|byte| *byte == 7));
    let missing = pcp::Digest([9; 32]);
    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), agent.handle.fetch(missing));
    match got {
        Err(FetchError::Refused(error)) => {
            assert_eq!(error.code, pcp::ContentErrorCode::NotFound);
            assert_eq!(error.message, "nobody has content of this digest");
        }
        other => panic!("found: {other:?}"),
    }
}

#[tokio::test]
async fn a_proxy_is_used_for_the_session_and_for_files() {
    let field = Field::new();
    let broker = broker(&field, true);
    let proxy = PlayedProxy::new(broker.address, "Basic bm9kZTpzM2NyZXQ=").await;
    let mut orchestrator = field.client_with("orch", "orchestrator", &broker, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let mut settings = config(&field, "node", "agent", broker.address);
    settings.ways = WEBSOCKET;
    let uri = format!("http://node:s3cret@{}", proxy.address);
    settings.proxy = Some(uri.parse().expect("a proxy"));
    let mut agent = start(settings);
    agent.wait_connected().await;
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut agent).await;
    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&agent, HAVE));
    assert!(got.is_ok());
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_a_proxy_refuses_is_told_and_no_way_around_it_is_taken() {
    let field = Field::new();
    let broker = broker(&field, true);
    let other = Field::new().primary();
    let proxy = PlayedProxy::new(other.address, "Basic bm9kZTpzM2NyZXQ=").await;
    for (proxy, wanted) in [
        (format!("http://node:wrong@{}", proxy.address), "407"),
        (format!("http://node:s3cret@{}", proxy.address), "403"),
        ("http://127.0.0.1:1".to_owned(), "cannot be reached"),
    ] {
        let mut settings = config(&field, "node", "agent", broker.address);
        settings.ways = WEBSOCKET;
        settings.proxy = Some(proxy.parse().expect("a proxy"));
        let agent = start(settings);
        let error = wait_error(&agent, wanted).await;
        assert!(error.contains("broker-ws-proxy"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn neither_way_is_told_with_both_reasons() {
    let field = Field::new();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port nobody answers on");
    let address = port.local_addr().expect("an address");
    let agent = start(config(&field, "node", "agent", address));
    let error = wait_error(&agent, "over QUIC: ").await;
    assert!(error.contains("(UDP)"), "{error}");
    assert!(
        error.contains("over WebSocket: ") && error.contains("TCP"),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_session_over_the_other_way_supersedes_the_older_one() {
    let field = Field::new();
    let broker = broker(&field, true);
    let mut settings = config(&field, "node", "agent", broker.address);
    settings.ways = WEBSOCKET;
    let mut first = start(settings);
    first.wait_connected().await;
    let mut second = field.connected("node", "agent", &broker).await;
    match first.event().await {
        Event::Disconnected { reason } => assert!(reason.contains("newer"), "{reason}"),
        event => panic!("not superseded: {event:?}"),
    }
    assert!(second.events.try_recv().is_err());
}

#[tokio::test]
async fn a_client_that_may_not_be_here_is_told_so_over_websocket() {
    let field = Field::new();
    let broker = broker(&field, true);
    let mut settings = config(&field, "node", "orchestrator", broker.address);
    settings.ways = WEBSOCKET;
    let rogue = start(settings);
    wait_error(&rogue, "Association unsuccessful").await;
}

#[tokio::test]
async fn a_revoked_certificate_ends_a_session_over_websocket() {
    let field = Field::new();
    let broker = broker(&field, true);
    let mut settings = config(&field, "node", "agent", broker.address);
    settings.ways = WEBSOCKET;
    let mut agent = start(settings);
    agent.wait_connected().await;
    field.ca.revoke("node").expect("revoked");
    broker.look_at_certificates();
    match agent.event().await {
        Event::Disconnected { reason } => assert!(reason.contains("revoked"), "{reason}"),
        event => panic!("still there: {event:?}"),
    }
    // It cannot come again.
    wait_error(&agent, "").await;
    assert_eq!(transport(&agent), None);
}
