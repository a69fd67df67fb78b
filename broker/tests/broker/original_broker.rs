//! Our client against an original broker, which is played here: PCP 2 in text frames, an association
//! that nobody speaks of, and its close codes. What cpp-pcp-client's suites say of a client is here,
//! as far as it is about the wire.

use std::sync::Arc;
use std::time::Duration;

use identity::Current;
use pcp::{ClientType, Target};
use pcp_client::{Backoff, ClientConfig, ClientHandle, Event, State, Transport, Ways};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::field::{Field, SOON, broker_address, message};
use crate::served::{Guest, Served};

const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

fn config(field: &Field, servers: &[&Served], ways: Ways) -> ClientConfig {
    let mut config = ClientConfig::new(
        servers.iter().map(|s| broker_address(s.address)).collect(),
        Arc::new(Current::fixed(field.identity("node"))),
        ClientType::agent(),
        "test/1".to_owned(),
    );
    config.ways = ways;
    config.head_start = Duration::from_millis(50);
    config.backoff = Backoff {
        base: Duration::from_millis(20),
        cap: Duration::from_millis(200),
    };
    config
}

fn client(field: &Field, servers: &[&Served], ways: Ways) -> (ClientHandle, mpsc::Receiver<Event>) {
    let config = config(field, servers, ways);
    pcp_client::start(config, &daemon::Tasks::new())
}

async fn event(events: &mut mpsc::Receiver<Event>) -> Event {
    // A silence is noticed after 20 s.
    let event = timeout(SOON * 4, events.recv()).await;
    event.expect("an event in time").expect("a live client")
}

async fn connected(events: &mut mpsc::Receiver<Event>) {
    match event(events).await {
        Event::Connected { transport, .. } => assert_eq!(transport, Transport::WebSocket),
        event => panic!("not connected: {event:?}"),
    }
}

async fn disconnected(events: &mut mpsc::Receiver<Event>) -> String {
    match event(events).await {
        Event::Disconnected { reason } => reason,
        event => panic!("still connected: {event:?}"),
    }
}

async fn guest(server: &Served) -> Guest {
    let mut guest = server.guest().await;
    guest.let_in().await;
    guest
}

#[tokio::test]
async fn messages_pass_both_ways_in_pcp_2() {
    let field = Field::new();
    let broker = Served::new(&field, "original").await;
    let (handle, mut events) = client(&field, &[&broker], Ways::Auto);
    let mut guest = guest(&broker).await;
    assert_eq!(guest.path, "/pcp2/agent");
    assert_eq!(guest.certname, "node");
    connected(&mut events).await;
    match &*handle.state().borrow() {
        State::Connected { broker, .. } => assert_eq!(broker.as_str(), "original"),
        state => panic!("not connected: {state:?}"),
    }

    let data = json!({"transaction_id": "1", "module": "ping"});
    let id = guest
        .send(
            Some(ORCHESTRATOR),
            "rpc_blocking_request",
            Some("pcp://node/agent"),
            &data,
        )
        .await;
    let Event::Message(request) = event(&mut events).await else {
        panic!("no message");
    };
    assert_eq!(request.envelope.id.to_string(), id);
    assert_eq!(request.envelope.sender.to_string(), ORCHESTRATOR);
    assert_eq!(request.body, data.to_string());

    for size in [10, 100_000] {
        let mut answer = message(&handle, "rpc_blocking_response", ORCHESTRATOR, 0);
        answer.body = json!({"text": "x".repeat(size)}).to_string().into();
        answer.envelope.in_reply_to = Some(request.envelope.id);
        handle.send(answer.clone()).await.expect("sent");
        let got = guest.receive().await.expect("a message");
        assert_eq!(got["id"], answer.envelope.id.to_string());
        assert_eq!(got["sender"], "pcp://node/agent");
        assert_eq!(got["target"], ORCHESTRATOR);
        assert_eq!(got["in_reply_to"], id.as_str());
        assert_eq!(got["data"]["text"].as_str().map(str::len), Some(size));
    }
}

#[tokio::test]
async fn a_broker_s_own_error_has_no_sender_and_is_the_broker_s() {
    let field = Field::new();
    let broker = Served::new(&field, "original").await;
    let (_handle, mut events) = client(&field, &[&broker], Ways::Auto);
    let mut guest = guest(&broker).await;
    connected(&mut events).await;
    let text = json!("Not connected.");
    guest.send(None, "error_message", None, &text).await;
    let Event::Message(error) = event(&mut events).await else {
        panic!("no message");
    };
    assert_eq!(error.envelope.sender.to_string(), "pcp://original/server");
    let own = "pcp://node/agent".parse::<Target>().expect("a target");
    assert_eq!(error.envelope.target, own);
    assert_eq!(error.body, text.to_string());
}

#[tokio::test]
async fn what_is_no_message_is_passed_over() {
    let field = Field::new();
    let broker = Served::new(&field, "original").await;
    let (_handle, mut events) = client(&field, &[&broker], Ways::Auto);
    let mut guest = guest(&broker).await;
    connected(&mut events).await;
    let data = json!(1);
    guest.send(Some("nobody"), "x", None, &data).await;
    guest.send(Some(ORCHESTRATOR), "x y", None, &data).await;
    guest.send(Some(ORCHESTRATOR), "good", None, &data).await;
    let Event::Message(message) = event(&mut events).await else {
        panic!("no message");
    };
    assert_eq!(message.envelope.message_type.name(), Some("good"));
}

#[tokio::test]
async fn close_codes_are_told_and_the_client_comes_again() {
    let field = Field::new();
    let broker = Served::new(&field, "original").await;
    let (_handle, mut events) = client(&field, &[&broker], Ways::Only(Transport::WebSocket));
    for (code, reason) in [
        (1011, "All controllers disconnected."),
        (1012, "CRL reloaded"),
        (1001, "Shutdown"),
    ] {
        let mut guest = guest(&broker).await;
        connected(&mut events).await;
        guest.close(code, reason).await;
        assert_eq!(disconnected(&mut events).await, reason);
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left() {
    let field = Field::new();
    let broker = Served::new(&field, "original").await;
    // A controller's silence is noticed sooner than an agent's.
    let mut config = config(&field, &[&broker], Ways::Only(Transport::WebSocket));
    config.client_type = ClientType::parse("controller").expect("a client type");
    let (_handle, mut events) = pcp_client::start(config, &daemon::Tasks::new());
    let _silent = guest(&broker).await;
    connected(&mut events).await;
    let reason = disconnected(&mut events).await;
    assert!(reason.contains("nothing came for 15 s"), "{reason}");
}

#[tokio::test]
async fn a_refused_association_is_told() {
    let field = Field::new();
    let broker = Served::new(&field, "original").await;
    let (handle, _events) = client(&field, &[&broker], Ways::Only(Transport::WebSocket));
    let mut guest = broker.guest().await;
    guest.close(4002, "Association unsuccessful.").await;
    let mut state = handle.state();
    let told = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. }
            if error.contains("Association unsuccessful."))
    });
    timeout(SOON, told).await.expect("in time").expect("alive");
}

#[tokio::test]
async fn the_next_broker_is_taken_when_one_is_gone() {
    let field = Field::new();
    let first = Served::new(&field, "first").await;
    let second = Served::new(&field, "second").await;
    let servers = [&first, &second];
    let (_handle, mut events) = client(&field, &servers, Ways::Only(Transport::WebSocket));
    let mut leaving = guest(&first).await;
    connected(&mut events).await;
    leaving.close(1001, "Shutdown").await;
    disconnected(&mut events).await;
    let _there = guest(&second).await;
    connected(&mut events).await;
}

#[tokio::test]
async fn a_broker_with_another_s_name_or_a_revoked_certificate_is_not_taken() {
    let field = Field::new();
    field
        .ca
        .issue("elsewhere", &["elsewhere.example.com".to_owned()])
        .expect("a certificate");
    let elsewhere = Served::new(&field, "elsewhere").await;
    let stolen = Served::new(&field, "stolen").await;
    field.ca.revoke("stolen").expect("revoked");
    for (server, wanted) in [(&elsewhere, "name"), (&stolen, "evoked")] {
        let (handle, _events) = client(&field, &[server], Ways::Only(Transport::WebSocket));
        let mut state = handle.state();
        let told = state.wait_for(|state| {
            matches!(state, State::Connecting { last_error: Some(error), .. }
                if error.contains(wanted))
        });
        let (told, ()) = tokio::select! {
            told = timeout(SOON, told) => (told, ()),
            _ = server.guest() => panic!("it was taken"),
        };
        drop(told.expect("in time").expect("alive"));
    }
}
