//! The scenarios of the original broker's own suites (service_test, subscription_test), with peers
//! written from the description of the protocol alone. The table in tests/conformance/README.md says
//! which is which.

use serde_json::json;

use crate::field::{Field, Running, message};
use crate::foreign::{Closed, Foreign, PREFIX, chunks, envelope};
use pcp_broker::Version;
use uuid::Uuid;

const REQUEST: &str = "rpc_blocking_request";
const ANSWER: &str = "rpc_blocking_response";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

fn closed(code: u16, reason: &str) -> Closed {
    Closed::With(code, reason.to_owned())
}

/// Controller asks, agent answers; whatever their versions are.
async fn talk(controller: &mut Foreign, agent: &mut Foreign) {
    let data = json!({"transaction_id": "1", "module": "ping", "action": "ping", "params": {"a": ["ü", null, 1.50]}});
    let id = controller.send(REQUEST, &agent.uri.clone(), &data).await;
    let got = agent.message().await;
    assert_eq!(got.id, id);
    assert_eq!(got.message_type, format!("{PREFIX}{REQUEST}"));
    assert_eq!(got.sender, Some(controller.uri.clone()));
    assert_eq!(got.targets, std::slice::from_ref(&agent.uri));
    assert_eq!(got.data, data);
    let data = json!({"transaction_id": "1", "results": {}});
    let id = agent.send(ANSWER, &controller.uri.clone(), &data).await;
    let got = controller.message().await;
    assert_eq!((got.id, got.data), (id, data));
    assert_eq!(got.sender, Some(agent.uri.clone()));
}

#[tokio::test]
async fn it_talks_websockets() {
    let field = Field::new();
    let broker = field.primary();
    let mut client = Foreign::two(&field, "node", "agent", &broker).await;
    client.ping().await;
    client.leave().await;
}

#[tokio::test]
async fn no_certificate_is_closed_with_4003() {
    let field = Field::new();
    let broker = field.primary();
    for path in ["/pcp", "/pcp2/agent"] {
        let dialled = Foreign::dial(&field, None, path, &broker).await;
        let mut client = dialled.expect("a WebSocket");
        assert_eq!(
            client.closed().await,
            closed(4003, "No client certificate.")
        );
    }
}

#[tokio::test]
async fn messages_of_two_versions_reach_each_other() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let mut agent_two = Foreign::two(&field, "two", "agent", &broker).await;
    let mut agent_one = Foreign::one(&field, "one", "agent", &broker).await;
    talk(&mut two, &mut agent_two).await;
    talk(&mut two, &mut agent_one).await;
    two.leave().await;
    let mut one = Foreign::one(&field, "orch", "orchestrator", &broker).await;
    talk(&mut one, &mut agent_two).await;
    talk(&mut one, &mut agent_one).await;
}

#[tokio::test]
async fn old_clients_talk_with_quic_agents_through_two_brokers() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut agent = field.connected("node", "agent", &compiler).await;
    for version in [Version::Two, Version::One] {
        let mut controller = match version {
            Version::One => Foreign::one(&field, "orch", "orchestrator", &primary).await,
            _ => Foreign::two(&field, "orch", "orchestrator", &primary).await,
        };
        controller.wait_present("pcp://node/agent", true).await;
        let data = json!({"deep": {"text": "q\"ü\\", "number": 1.0}, "list": [1, 2]});
        let id = controller.send(REQUEST, "pcp://node/agent", &data).await;
        let request = agent.message().await;
        assert_eq!(request.envelope.id.to_string(), id);
        assert_eq!(request.envelope.sender.to_string(), ORCHESTRATOR);
        // The very text, and no flag that an old controller could not keep.
        assert_eq!(request.body, data.to_string());
        assert_eq!(request.envelope.flags, pcp::Flags::default());
        let mut answer = message(&agent.handle, ANSWER, ORCHESTRATOR, 0);
        answer.body = r#"{ "transaction_id":"1",  "results":{} }"#.into();
        answer.envelope.in_reply_to = Some(request.envelope.id);
        agent.send(&answer).await;
        let got = controller.message().await;
        assert_eq!(got.id, answer.envelope.id.to_string());
        assert_eq!(got.data, json!({"transaction_id": "1", "results": {}}));
        controller.leave().await;
    }
}

#[tokio::test]
async fn quic_controllers_command_old_agents_through_two_brokers() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut controller = field.connected("orch", "orchestrator", &primary).await;
    let mut one = Foreign::one(&field, "one", "agent", &compiler).await;
    let mut two = Foreign::two(&field, "two", "agent", &compiler).await;
    for agent in [&mut one, &mut two] {
        controller.wait_present(&agent.uri, true).await;
        let mut request = message(&controller.handle, REQUEST, &agent.uri, 0);
        request.body = r#"{"transaction_id":"7"}"#.into();
        controller.send(&request).await;
        let got = agent.message().await;
        assert_eq!(got.id, request.envelope.id.to_string());
        assert_eq!(got.data, json!({"transaction_id": "7"}));
        let data = json!({"transaction_id": "7", "results": {"large": "x".repeat(1_000_000)}});
        let id = agent.send(ANSWER, ORCHESTRATOR, &data).await;
        let answer = controller.message().await;
        assert_eq!(answer.envelope.id.to_string(), id);
        assert_eq!(answer.body, data.to_string());
    }
}

#[tokio::test]
async fn badly_encoded_messages_are_answered_and_do_no_harm() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let id = Uuid::new_v4();
    for text in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"id":"1","message_type":"x"}"#.to_owned(),
        format!(r#"{{"id":"{id}"}}"#),
        format!(r#"{{"id":"{id}","message_type":"x","more":1}}"#),
        format!(r#"{{"id":"{id}","message_type":"x","target":null}}"#),
        format!(r#"{{"id":"{id}","message_type":"x","in_reply_to":"y"}}"#),
        format!(r#"{{"id":"{id}","message_type":"x"}} more"#),
    ] {
        two.text(text.clone()).await;
        let error = two.message().await;
        assert_eq!(
            error.message_type,
            format!("{PREFIX}error_message"),
            "{text}"
        );
        assert_eq!(error.data, json!("Could not decode message"), "{text}");
        assert_eq!(error.in_reply_to, None);
        assert_eq!(error.sender, None);
    }
    two.hears_nothing().await;
    let mut one = Foreign::one(&field, "node", "agent", &broker).await;
    let sound = envelope(&id.to_string(), ANSWER, &[ORCHESTRATOR], "pcp://node/agent");
    let mut without_expires = sound.clone();
    without_expires
        .as_object_mut()
        .expect("an object")
        .remove("expires");
    let sound = chunks(&sound, Some(b"{}"));
    let damaged: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![1],
        vec![2, 1, 0, 0, 0, 0],
        b"\x01\x01\xff\xff\xff\xff{}".to_vec(),
        b"\x01\x01\x00\x00\x00\x09{}".to_vec(),
        b"\x01\x02\x00\x00\x00\x02{}".to_vec(),
        chunks(&without_expires, None),
        [&sound[..], b"\x02\x00\x00\x00\x00"].concat(),
        [&sound[..], b"\x03\x00\x00\x00\x01!"].concat(),
        sound[..sound.len() - 1].to_vec(),
    ];
    for frame in damaged {
        one.binary(frame.clone()).await;
        let error = one.message().await;
        assert_eq!(
            error.data,
            json!({"description": "Could not decode message"}),
            "{frame:?}"
        );
    }
    one.ping().await;
}

#[tokio::test]
async fn a_malformed_message_during_association_leaves_the_client_associated() {
    let field = Field::new();
    let broker = field.primary();
    let dialled = Foreign::dial(&field, Some("node"), "/pcp", &broker).await;
    let mut client = dialled.expect("a WebSocket");
    client.binary(b"\x01garbage".to_vec()).await;
    let error = client.message().await;
    assert_eq!(error.message_type, format!("{PREFIX}error_message"));
    let uri = client.uri.clone();
    assert_eq!(
        client.associate(&uri).await.expect("an answer")["success"],
        true
    );
}

#[tokio::test]
async fn the_certificate_must_match_the_sender() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "node", "agent", &broker).await;
    let mut one = Foreign::one(&field, "old", "agent", &broker).await;
    for client in [&mut two, &mut one] {
        for sender in [
            "pcp://other/agent",
            ORCHESTRATOR,
            "nonsense",
            "pcp://*/agent",
        ] {
            let id = client
                .send_as(sender, ANSWER, ORCHESTRATOR, &json!({}))
                .await;
            client.refused(&id, "Message not authenticated.").await;
        }
    }
}

#[tokio::test]
async fn an_association_in_another_s_name_is_refused() {
    let field = Field::new();
    let broker = field.primary();
    let dialled = Foreign::dial(&field, Some("node"), "/pcp", &broker).await;
    let mut client = dialled.expect("a WebSocket");
    let answer = client
        .associate("pcp://other/agent")
        .await
        .expect("an answer");
    assert_eq!(answer["success"], false);
    assert_eq!(answer["reason"], "Message not authenticated.");
    assert_eq!(
        client.closed().await,
        closed(4002, "Association unsuccessful.")
    );
}

#[tokio::test]
async fn the_client_type_must_match_the_connection_s() {
    let field = Field::new();
    let broker = field.primary();
    let dialled = Foreign::dial(&field, Some("node"), "/pcp", &broker).await;
    let mut client = dialled.expect("a WebSocket");
    let answer = client
        .associate("pcp://node/controller")
        .await
        .expect("an answer");
    assert_eq!(answer["success"], false);
    assert_eq!(answer["reason"], "Session already associated.");
    assert_eq!(
        client.closed().await,
        closed(4002, "Association unsuccessful.")
    );
}

#[tokio::test]
async fn a_second_association_on_the_same_connection_is_accepted() {
    let field = Field::new();
    let broker = field.primary();
    let mut client = Foreign::one(&field, "node", "agent", &broker).await;
    let uri = client.uri.clone();
    assert_eq!(
        client.associate(&uri).await.expect("an answer")["success"],
        true
    );
    client.ping().await;
}

#[tokio::test]
async fn a_second_connection_closes_the_first() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let mut first = Foreign::one(&field, "node", "agent", &broker).await;
    let mut second = Foreign::one(&field, "node", "agent", &broker).await;
    assert_eq!(first.closed().await, closed(4000, "Superseded."));
    let mut third = Foreign::two(&field, "node", "agent", &broker).await;
    assert_eq!(second.closed().await, closed(4000, "Superseded."));
    assert_eq!(
        controller.inventory(&["pcp://*/agent"], false).await,
        ["pcp://node/agent"]
    );
    talk(&mut controller, &mut third).await;
}

#[tokio::test]
async fn rules_stop_connections() {
    let field = Field::new();
    let broker = field.primary();
    for path in [
        "/pcp2/orchestrator",
        "/pcp2/server",
        "/server",
        "/pcp2/unheard-of",
        "/pcp2/agent/more",
        "/pcp/controller",
    ] {
        let dialled = Foreign::dial(&field, Some("node"), path, &broker).await;
        let mut client = dialled.expect("a WebSocket");
        let closed_with = client.closed().await;
        assert_eq!(
            closed_with,
            closed(4002, "Association unsuccessful."),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_inventory_finds_a_client_by_name_and_by_wildcard() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    for query in [
        ORCHESTRATOR,
        "pcp://orch/*",
        "pcp://*/orchestrator",
        "pcp://*/*",
    ] {
        assert_eq!(
            two.inventory(&[query], false).await,
            [ORCHESTRATOR],
            "{query}"
        );
    }
    let agent = Foreign::two(&field, "node", "agent", &broker).await;
    two.wait_present("pcp://node/agent", true).await;
    let all = two.inventory(&["pcp://*/*"], false).await;
    assert_eq!(all, ["pcp://node/agent", ORCHESTRATOR], "sorted");
    // A wildcard stands for a whole name; what is no pattern is told, where the original found nothing.
    let query = json!({"query": ["pcp://no*/agent"]});
    let id = two.send("inventory_request", "pcp:///server", &query).await;
    two.refused(&id, "Could not decode message").await;
    agent.leave().await;
    two.leave().await;
    let mut one = Foreign::one(&field, "orch", "orchestrator", &broker).await;
    assert_eq!(
        one.inventory(&["pcp://orch/*"], false).await,
        [ORCHESTRATOR]
    );
}

#[tokio::test]
async fn the_inventory_forgets_a_client_that_has_left() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let agent = Foreign::two(&field, "node", "agent", &broker).await;
    controller.wait_present("pcp://node/agent", true).await;
    agent.leave().await;
    controller.wait_present("pcp://node/agent", false).await;
}

#[tokio::test]
async fn rules_stop_the_inventory() {
    let field = Field::new();
    let broker = field.primary();
    let mut agent = Foreign::two(&field, "node", "agent", &broker).await;
    let query = json!({"query": ["pcp://*/*"]});
    let id = agent
        .send("inventory_request", "pcp:///server", &query)
        .await;
    agent.refused(&id, "Message not authorized.").await;
}

#[tokio::test]
async fn invalid_message_types_and_targets_are_not_authorized() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    for (message_type, target) in [
        ("no spaces", "pcp://node/agent"),
        ("http://puppetlabs.com/ä", "pcp://node/agent"),
        ("", "pcp://node/agent"),
        (&format!("{PREFIX}{REQUEST}"), "pcp://no de/agent"),
        (&format!("{PREFIX}{REQUEST}"), "pcp://node/agent?"),
        (&format!("{PREFIX}{REQUEST}"), "node"),
    ] {
        let id = Uuid::new_v4().to_string();
        let message = json!({"id": id, "message_type": message_type, "target": target});
        controller.text(message.to_string()).await;
        controller.refused(&id, "Message not authorized.").await;
    }
}

#[tokio::test]
async fn a_message_without_sender_and_target_is_the_connection_s_to_the_broker() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let id = Uuid::new_v4().to_string();
    let message = json!({
        "id": id, "message_type": format!("{PREFIX}inventory_request"),
        "data": {"query": ["pcp://*/*"]},
    });
    controller.text(message.to_string()).await;
    let answer = controller.message().await;
    assert_eq!(answer.in_reply_to, Some(id));
    assert_eq!(answer.data, json!({"uris": [ORCHESTRATOR]}));
}

#[tokio::test]
async fn several_recipients_are_refused() {
    let field = Field::new();
    let broker = field.primary();
    let text = "Multiple recipients no longer supported.";
    let mut two = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let mut agent = Foreign::two(&field, "node", "agent", &broker).await;
    for target in ["pcp://*/agent", "pcp://node/*"] {
        let id = two.send(REQUEST, target, &json!({})).await;
        two.refused(&id, text).await;
        // The rules come first.
        let id = agent.send(REQUEST, target, &json!({})).await;
        agent.refused(&id, "Message not authorized.").await;
    }
    two.leave().await;
    let mut one = Foreign::one(&field, "orch", "orchestrator", &broker).await;
    let id = Uuid::new_v4().to_string();
    let targets = ["pcp://node/agent", "pcp://other/agent"];
    one.binary(chunks(
        &envelope(&id, REQUEST, &targets, ORCHESTRATOR),
        Some(b"{}"),
    ))
    .await;
    one.refused(&id, text).await;
}

#[tokio::test]
async fn a_destination_report_is_not_sent() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::one(&field, "orch", "orchestrator", &broker).await;
    let mut agent = Foreign::one(&field, "node", "agent", &broker).await;
    let id = Uuid::new_v4().to_string();
    let mut wish = envelope(&id, REQUEST, &["pcp://node/agent"], ORCHESTRATOR);
    wish["destination_report"] = json!(true);
    let hops = br#"{"hops":[{"server":"pcp://orch/orchestrator","time":"2026-01-01T00:00:00Z"}]}"#;
    let mut frame = chunks(&wish, Some(b"{}"));
    frame.push(3);
    frame.extend_from_slice(&u32::try_from(hops.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(hops);
    controller.binary(frame).await;
    assert_eq!(agent.message().await.id, id);
    controller.hears_nothing().await;
}

#[tokio::test]
async fn a_target_that_never_was_is_not_connected() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let id = two.send(REQUEST, "pcp://nobody/agent", &json!({})).await;
    two.refused(&id, "Not connected.").await;
    two.leave().await;
    let mut one = Foreign::one(&field, "orch", "orchestrator", &broker).await;
    let id = one.send(REQUEST, "pcp://nobody/agent", &json!({})).await;
    one.refused(&id, "Not connected.").await;
}

#[tokio::test]
async fn who_comes_back_gets_no_old_messages() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let agent = Foreign::one(&field, "node", "agent", &broker).await;
    agent.leave().await;
    controller.wait_present("pcp://node/agent", false).await;
    let id = controller
        .send(REQUEST, "pcp://node/agent", &json!({"old": 1}))
        .await;
    controller.refused(&id, "Not connected.").await;
    let mut agent = Foreign::one(&field, "node", "agent", &broker).await;
    let new = controller
        .send(REQUEST, "pcp://node/agent", &json!({"new": 1}))
        .await;
    assert_eq!(agent.message().await.id, new);
}

#[tokio::test]
async fn rules_stop_some_messages() {
    let field = Field::new();
    let broker = field.primary();
    let mut agent = Foreign::two(&field, "node", "agent", &broker).await;
    let mut other = Foreign::one(&field, "other", "agent", &broker).await;
    for (name, target) in [
        (REQUEST, "pcp://other/agent"),
        (ANSWER, "pcp://other/agent"),
        (REQUEST, ORCHESTRATOR),
    ] {
        let id = agent.send(name, target, &json!({})).await;
        agent.refused(&id, "Message not authorized.").await;
    }
    let id = other.send(REQUEST, "pcp://node/agent", &json!({})).await;
    other.refused(&id, "Message not authorized.").await;
}

#[tokio::test]
async fn at_the_limit_of_connections_the_next_is_refused() {
    let field = Field::new();
    let mut config = field.config("primary", &[]);
    config.max_connections = 1;
    let broker = Running::start(config);
    let mut first = Foreign::two(&field, "node", "agent", &broker).await;
    first.ping().await;
    let mut second = Foreign::two(&field, "other", "agent", &broker).await;
    assert_eq!(
        second.closed().await,
        closed(1011, "Connection limit exceeded.")
    );
    // A client that comes anew in its own place is no further connection.
    let mut again = Foreign::two(&field, "node", "agent", &broker).await;
    assert_eq!(first.closed().await, closed(4000, "Superseded."));
    again.ping().await;
}

#[tokio::test]
async fn a_version_can_be_switched_off() {
    let field = Field::new();
    let mut config = field.config("primary", &[]);
    config.versions = vec![Version::One];
    let broker = Running::start(config);
    let refused = Foreign::dial(&field, Some("node"), "/pcp2/agent", &broker).await;
    assert_eq!(refused.err().as_deref(), Some("HTTP/1.1 404 Not Found"));
    let mut one = Foreign::one(&field, "node", "agent", &broker).await;
    one.ping().await;
}

#[tokio::test]
async fn everybody_is_closed_when_the_broker_stops() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "node", "agent", &broker).await;
    let mut one = Foreign::one(&field, "old", "agent", &broker).await;
    two.ping().await;
    one.ping().await;
    let (stopped, a, b) = tokio::join!(broker.stop(), two.closed(), one.closed());
    assert_eq!(stopped, ());
    for end in [a, b] {
        assert_eq!(end, closed(1001, "the broker is being stopped"));
    }
}

#[tokio::test]
async fn subscribers_hear_of_changes() {
    let field = Field::new();
    let broker = field.primary();
    let mut two = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    assert!(two.inventory(&["pcp://*/agent"], true).await.is_empty());
    let agent = Foreign::one(&field, "node", "agent", &broker).await;
    assert_eq!(two.changes().await, [("pcp://node/agent".to_owned(), 1)]);
    agent.leave().await;
    assert_eq!(two.changes().await, [("pcp://node/agent".to_owned(), -1)]);
    // A later question without a subscription ends it.
    assert!(two.inventory(&["pcp://*/agent"], false).await.is_empty());
    let _agent = Foreign::one(&field, "node", "agent", &broker).await;
    two.wait_present("pcp://node/agent", true).await;
    two.hears_nothing().await;
}

#[tokio::test]
async fn changes_are_filtered_and_collected() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    let query = ["pcp://wanted/agent", "pcp://wanted-too/agent"];
    assert!(controller.inventory(&query, true).await.is_empty());
    let first = Foreign::two(&field, "wanted", "agent", &broker).await;
    let unwanted = Foreign::two(&field, "unwanted", "agent", &broker).await;
    let second = Foreign::two(&field, "wanted-too", "agent", &broker).await;
    first.leave().await;
    let mut changes = Vec::new();
    while changes.len() < 3 {
        changes.extend(controller.changes().await);
    }
    assert_eq!(
        changes,
        [
            ("pcp://wanted/agent".to_owned(), 1),
            ("pcp://wanted-too/agent".to_owned(), 1),
            ("pcp://wanted/agent".to_owned(), -1),
        ]
    );
    drop((unwanted, second));
}

#[tokio::test]
async fn no_update_comes_before_the_response() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    for round in 0..5 {
        let name = format!("node-{round}");
        let data = json!({"query": ["pcp://*/agent"], "subscribe": true});
        let (agent, id) = tokio::join!(
            Foreign::two(&field, &name, "agent", &broker),
            controller.send("inventory_request", "pcp:///server", &data),
        );
        // Updates to the subscription before may come; the response is either with the agent or
        // before the update that names it.
        let uri = agent.uri.clone();
        let mut told = loop {
            let got = controller.message().await;
            if got.in_reply_to.as_deref() == Some(id.as_str()) {
                break got.data["uris"].to_string().contains(&format!("\"{uri}\""));
            }
        };
        while !told {
            let changes = controller.changes().await;
            told = changes.contains(&(uri.clone(), 1));
        }
    }
}

#[tokio::test]
async fn a_subscriber_asks_again_after_its_reconnect() {
    let field = Field::new();
    let broker = field.primary();
    let mut controller = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    controller.inventory(&["pcp://*/agent"], true).await;
    let mut again = Foreign::two(&field, "orch", "orchestrator", &broker).await;
    assert_eq!(controller.closed().await, closed(4000, "Superseded."));
    let agent = Foreign::two(&field, "node", "agent", &broker).await;
    again.wait_present("pcp://node/agent", true).await;
    again.hears_nothing().await;
    assert_eq!(
        again.inventory(&["pcp://*/agent"], true).await,
        ["pcp://node/agent"]
    );
    agent.leave().await;
    assert_eq!(again.changes().await, [("pcp://node/agent".to_owned(), -1)]);
}

#[tokio::test]
async fn an_old_subscriber_hears_updates_in_its_own_version() {
    let field = Field::new();
    let broker = field.primary();
    let mut one = Foreign::one(&field, "orch", "orchestrator", &broker).await;
    assert!(one.inventory(&["pcp://*/agent"], true).await.is_empty());
    let _agent = Foreign::two(&field, "node", "agent", &broker).await;
    assert_eq!(one.changes().await, [("pcp://node/agent".to_owned(), 1)]);
}
