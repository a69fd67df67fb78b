//! What the suite `controllers_test` of the original broker asks of one that dials its controllers: the
//! controller is played, agents are ours and of PCP 2.

use std::net::SocketAddr;
use std::time::Duration;

use pcp_broker::config::Config;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::field::{Field, Running, SOON, message};
use crate::foreign::{Closed, Foreign, PREFIX, head, tls, upgrade};
use crate::served::{Guest, Served};

const AGENT: &str = "pcp://node/agent";

/// The controllers' addresses in PCP.
fn uri(controller: &Served) -> String {
    format!("pcp://{}/server", controller.address)
}

fn config(field: &Field, controllers: &[&Served]) -> Config {
    let mut config = field.config("primary", &[]);
    let written = controllers
        .iter()
        .map(|c| format!("wss://{}/server", c.address));
    config.controller_uris = written.map(|uri| uri.parse().expect("a URI")).collect();
    config.controller_allowlist = ["inventory_request", "rpc_blocking_request"]
        .map(|name| format!("{PREFIX}{name}"))
        .to_vec();
    config.grace_period = Duration::from_millis(300);
    config
}

/// A broker with one controller that is there.
async fn dialled(field: &Field) -> (Running, Served, Guest) {
    let controller = Served::new(field, "controller").await;
    let broker = Running::start(config(field, &[&controller]));
    let guest = controller.guest().await;
    wait_state(field, &broker, "running").await;
    (broker, controller, guest)
}

/// Waits until the status page says this.
async fn wait_state(field: &Field, broker: &Running, wanted: &str) {
    let waiting = async {
        while state(field, broker).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("in time");
}

async fn state(field: &Field, broker: &Running) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tls(field, None, broker).await.expect("a handshake");
    let request = b"GET /status/v1/simple HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).expect("text");
    answer.lines().last().unwrap_or_default().to_owned()
}

/// The status line of an upgrade.
async fn asked(field: &Field, broker: &Running) -> String {
    use tokio::io::AsyncWriteExt as _;
    let mut stream = tls(field, Some("node"), broker).await.expect("a handshake");
    let request = upgrade("/pcp2/agent", "");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let head = head(&mut stream).await;
    head.lines().next().unwrap_or_default().to_owned()
}

async fn inventory(guest: &mut Guest, own: &str, query: &[&str], subscribe: bool) -> Vec<String> {
    let data = json!({ "query": query, "subscribe": subscribe });
    let id = guest
        .send(Some(own), "inventory_request", Some("pcp:///server"), &data)
        .await;
    loop {
        let answer = guest.receive().await.expect("an answer");
        if answer["in_reply_to"] == id.as_str() {
            assert_eq!(
                answer["message_type"],
                format!("{PREFIX}inventory_response")
            );
            let uris = answer["data"]["uris"].as_array().expect("a list").iter();
            return uris
                .map(|uri| uri.as_str().expect("a URI").to_owned())
                .collect();
        }
    }
}

async fn refused(guest: &mut Guest, id: &str, text: &str) {
    let answer = guest.receive().await.expect("an answer");
    assert_eq!(
        answer["message_type"],
        format!("{PREFIX}error_message"),
        "{answer}"
    );
    assert_eq!(answer["in_reply_to"], id);
    assert_eq!(answer["data"], text);
}

#[tokio::test]
async fn a_controller_is_dialled_and_reaches_agents_of_both_kinds() {
    let field = Field::new();
    let (broker, controller, mut guest) = dialled(&field).await;
    assert_eq!(
        (guest.path.as_str(), guest.certname.as_str()),
        ("/server", "primary")
    );
    let own = uri(&controller);
    let mut ours = field.connected("node", "agent", &broker).await;
    let mut old = Foreign::two(&field, "old", "agent", &broker).await;
    while inventory(&mut guest, &own, &["pcp://*/agent"], false)
        .await
        .len()
        < 2
    {}

    // Neither sender nor target need be said.
    let data = json!({"module": "ping"});
    guest
        .send(None, "rpc_blocking_request", Some(AGENT), &data)
        .await;
    let request = ours.message().await;
    assert_eq!(request.envelope.sender.to_string(), own);
    assert_eq!(request.body, data.to_string());
    let mut answer = message(&ours.handle, "rpc_blocking_response", &own, 0);
    answer.body = "{\"pong\":1}".into();
    answer.envelope.in_reply_to = Some(request.envelope.id);
    ours.send(&answer).await;
    let got = guest.receive().await.expect("an answer");
    assert_eq!(
        (got["sender"].as_str(), got["target"].as_str()),
        (Some(AGENT), Some(own.as_str()))
    );
    assert_eq!(got["data"], json!({"pong": 1}));

    guest
        .send(
            Some(&own),
            "rpc_blocking_request",
            Some("pcp://old/agent"),
            &data,
        )
        .await;
    let request = old.message().await;
    assert_eq!(request.sender.as_deref(), Some(own.as_str()));
    old.send("rpc_blocking_response", &own, &json!(2)).await;
    assert_eq!(guest.receive().await.expect("an answer")["data"], json!(2));
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_not_connected() {
    let field = Field::new();
    let (_broker, controller, mut guest) = dialled(&field).await;
    let own = uri(&controller);
    let id = guest
        .send(
            Some(&own),
            "rpc_blocking_request",
            Some(AGENT),
            &Value::Null,
        )
        .await;
    refused(&mut guest, &id, "Not connected.").await;
}

#[tokio::test]
async fn a_controller_says_what_the_list_allows_and_nothing_else() {
    let field = Field::new();
    let (broker, controller, mut guest) = dialled(&field).await;
    let mut agent = field.connected("node", "agent", &broker).await;
    let own = uri(&controller);
    let target = Some(AGENT);
    let id = guest
        .send(Some(&own), "rpc_non_blocking_request", target, &Value::Null)
        .await;
    refused(&mut guest, &id, "Message not authorized.").await;
    while inventory(&mut guest, &own, &[AGENT], false)
        .await
        .is_empty()
    {}
    guest
        .send(Some(&own), "rpc_blocking_request", target, &Value::Null)
        .await;
    assert_eq!(
        agent.message().await.envelope.message_type.name(),
        Some("rpc_blocking_request")
    );
}

#[tokio::test]
async fn a_controller_speaks_in_no_other_name() {
    let field = Field::new();
    let (broker, _controller, mut guest) = dialled(&field).await;
    let mut agent = field.connected("node", "agent", &broker).await;
    for sender in [
        "pcp://other:8143/server",
        "pcp://orch/orchestrator",
        "pcp:///server",
    ] {
        let id = guest
            .send(
                Some(sender),
                "rpc_blocking_request",
                Some(AGENT),
                &Value::Null,
            )
            .await;
        refused(&mut guest, &id, "Message not authenticated.").await;
    }
    assert!(agent.events.try_recv().is_err());
}

#[tokio::test]
async fn nobody_else_takes_a_controller_s_name() {
    let field = Field::new();
    let (broker, controller, _guest) = dialled(&field).await;
    let mut agent = field.connected("node", "agent", &broker).await;
    // Neither who may command agents, nor who comes with the client type of brokers.
    let mut thief = Foreign::two(&field, "orch", "controller", &broker).await;
    let id = thief
        .send_as(
            &uri(&controller),
            "rpc_blocking_request",
            AGENT,
            &Value::Null,
        )
        .await;
    thief.refused(&id, "Message not authenticated.").await;
    let mut thief = Foreign::dial(&field, Some("node"), "/pcp2/server", &broker)
        .await
        .expect("a WebSocket");
    let closed = Closed::With(4002, "Association unsuccessful.".to_owned());
    assert_eq!(thief.closed().await, closed);
    assert!(agent.events.try_recv().is_err());
}

#[tokio::test]
async fn several_controllers_are_dialled_and_one_of_them_is_enough() {
    let field = Field::new();
    let (one, two) = (
        Served::new(&field, "one").await,
        Served::new(&field, "two").await,
    );
    let broker = Running::start(config(&field, &[&one, &two]));
    let mut first = one.guest().await;
    let second = two.guest().await;
    wait_state(&field, &broker, "running").await;
    drop(second);
    let _agent = field.connected("node", "agent", &broker).await;
    while inventory(&mut first, &uri(&one), &[AGENT], false)
        .await
        .is_empty()
    {}
    assert_eq!(state(&field, &broker).await, "running");
    // It is dialled again.
    let mut second = two.guest().await;
    assert_eq!(
        inventory(&mut second, &uri(&two), &[AGENT], false).await,
        [AGENT]
    );
}

#[tokio::test]
async fn a_controller_subscribes_and_a_later_question_ends_that() {
    let field = Field::new();
    let (broker, controller, mut guest) = dialled(&field).await;
    let own = uri(&controller);
    assert!(
        inventory(&mut guest, &own, &["pcp://*/agent"], true)
            .await
            .is_empty()
    );
    let agent = field.connected("node", "agent", &broker).await;
    let update = guest.receive().await.expect("an update");
    assert_eq!(update["message_type"], format!("{PREFIX}inventory_update"));
    assert_eq!(
        update["data"]["changes"],
        json!([{"client": AGENT, "change": 1}])
    );
    assert_eq!(
        inventory(&mut guest, &own, &["pcp://*/agent"], false).await,
        [AGENT]
    );
    assert!(agent.tasks.shutdown(SOON).await);
    // The next thing that it hears is an answer.
    assert!(
        inventory(&mut guest, &own, &["pcp://x/agent"], false)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn no_client_comes_in_before_a_controller_is_there() {
    let field = Field::new();
    let controller = Served::new(&field, "controller").await;
    let broker = Running::start(config(&field, &[&controller]));
    assert_eq!(state(&field, &broker).await, "starting");
    assert!(asked(&field, &broker).await.contains(" 503 "));
    // Over QUIC it is told, and comes again.
    let mut ours = field.client("node", "agent", &broker);
    let mut state_of_ours = ours.handle.state();
    let told = state_of_ours.wait_for(|state| {
        matches!(state, pcp_client::State::Connecting { last_error: Some(error), .. }
            if error.contains("All controllers disconnected."))
    });
    timeout(SOON, told).await.expect("in time").expect("alive");
    let _guest = controller.guest().await;
    ours.wait_connected().await;
    assert!(asked(&field, &broker).await.contains(" 101 "));
}

#[tokio::test]
async fn when_all_controllers_are_lost_clients_stay_for_the_grace_period_and_then_go() {
    let field = Field::new();
    let controller = Served::new(&field, "controller").await;
    let mut config = config(&field, &[&controller]);
    // Long enough for what is looked at meanwhile; the end of it is waited for.
    config.grace_period = Duration::from_secs(4);
    let broker = Running::start(config);
    let guest = controller.guest().await;
    wait_state(&field, &broker, "running").await;
    let mut ours = field.connected("node", "agent", &broker).await;
    let mut old = Foreign::two(&field, "old", "agent", &broker).await;
    old.ping().await;
    let address: SocketAddr = controller.address;
    // Nobody listens there any more.
    drop((guest, controller));
    wait_state(&field, &broker, "error").await;
    old.ping().await;
    let mut late = Foreign::two(&field, "late", "agent", &broker).await;
    let lost = Closed::With(1011, "All controllers disconnected.".to_owned());
    assert_eq!(late.closed().await, lost);
    assert_eq!(old.closed().await, lost);
    match ours.event().await {
        pcp_client::Event::Disconnected { reason } => {
            assert_eq!(reason, "All controllers disconnected.");
        }
        event => panic!("not that: {event:?}"),
    }
    assert!(asked(&field, &broker).await.contains(" 503 "));
    // It is back, and so are they.
    let back = Served::at(&field, "controller", address).await;
    let _guest = back.guest().await;
    wait_state(&field, &broker, "running").await;
    ours.wait_connected().await;
}

#[tokio::test]
async fn a_controller_that_is_back_in_time_changes_nothing_for_clients() {
    let field = Field::new();
    let controller = Served::new(&field, "controller").await;
    let mut config = config(&field, &[&controller]);
    config.grace_period = SOON * 2;
    let broker = Running::start(config);
    let guest = controller.guest().await;
    wait_state(&field, &broker, "running").await;
    let mut old = Foreign::two(&field, "old", "agent", &broker).await;
    old.ping().await;
    drop(guest);
    wait_state(&field, &broker, "error").await;
    let mut again = controller.guest().await;
    wait_state(&field, &broker, "running").await;
    old.ping().await;
    let own = uri(&controller);
    assert_eq!(
        inventory(&mut again, &own, &["pcp://*/agent"], false).await,
        ["pcp://old/agent"]
    );
}

#[tokio::test]
async fn a_controller_whose_certificate_is_another_s_is_not_taken() {
    let field = Field::new();
    field
        .ca
        .issue("elsewhere", &["elsewhere.example.com".to_owned()])
        .expect("a certificate");
    let elsewhere = Served::new(&field, "elsewhere").await;
    let broker = Running::start(config(&field, &[&elsewhere]));
    tokio::select! {
        _ = elsewhere.guest() => panic!("it was taken"),
        () = elsewhere.failed_handshake() => {}
    }
    assert_eq!(state(&field, &broker).await, "starting");
}
