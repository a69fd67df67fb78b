//! Messages: who reaches whom, and what comes back when they do not.

use pcp::message::INLINE_LIMIT;
use pcp_client::{Event, State};
use tokio::time::timeout;

use crate::field::{Client, Field, MAX_MESSAGE, Running, SOON, message};

const ANSWER: &str = "rpc_non_blocking_response";
const REQUEST: &str = "rpc_non_blocking_request";
const AGENT: &str = "pcp://node/agent";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

/// Sends one message each way in each size, and expects the same bytes.
async fn talk(orchestrator: &mut Client, agent: &mut Client) {
    for size in [0, 500, INLINE_LIMIT - 300, INLINE_LIMIT, 3_000_000] {
        let request = message(&orchestrator.handle, REQUEST, AGENT, size);
        orchestrator.send(&request).await;
        let got = agent.message().await;
        assert_eq!(got.body, request.body);
        assert_eq!(got.envelope.sender, request.envelope.sender);
        let mut answer = message(&agent.handle, ANSWER, ORCHESTRATOR, size);
        answer.envelope.in_reply_to = Some(got.envelope.id);
        agent.send(&answer).await;
        let got = orchestrator.message().await;
        assert_eq!(got.body, answer.body);
        assert_eq!(got.envelope.in_reply_to, Some(request.envelope.id));
    }
}

#[tokio::test]
async fn controller_and_agent_talk_through_one_broker() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let mut agent = field.connected("node", "agent", &primary).await;
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut agent).await;
    primary.stop().await;
}

#[tokio::test]
async fn controller_and_agent_talk_through_primary_and_compiler() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut agent = field.connected("node", "agent", &compiler).await;
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut agent).await;
    assert!(agent.tasks.shutdown(SOON).await);
    orchestrator.wait_present(AGENT, false).await;
}

#[tokio::test]
async fn a_thousand_messages_arrive_in_order() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut agent = field.connected("node", "agent", &compiler).await;
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    orchestrator.wait_present(AGENT, true).await;
    let sender = async {
        for size in 0..1000 {
            agent
                .send(&message(&agent.handle, ANSWER, ORCHESTRATOR, size))
                .await;
        }
    };
    let receiver = async {
        for size in 0..1000 {
            assert_eq!(orchestrator.message().await.body.len(), size);
        }
    };
    tokio::join!(sender, receiver);
    assert!(agent.handle.is_connected());
    assert!(agent.events.try_recv().is_err());
}

#[tokio::test]
async fn a_message_to_nobody_comes_back() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let lost = message(&orchestrator.handle, REQUEST, "pcp://nobody/agent", 10);
    orchestrator.refused(&lost, "Not connected.").await;
    // From a compiler the question goes up first, and the answer comes down.
    let mut agent = field.connected("node", "agent", &compiler).await;
    orchestrator.wait_present(AGENT, true).await;
    let lost = message(&agent.handle, ANSWER, "pcp://nobody/orchestrator", 10);
    agent.refused(&lost, "Not connected.").await;
}

#[tokio::test]
async fn nobody_speaks_in_another_s_name() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let mut agent = field.connected("node", "agent", &primary).await;
    orchestrator.wait_present(AGENT, true).await;
    for name in ["pcp://other/agent", ORCHESTRATOR, "pcp://node/orchestrator"] {
        let mut spoofed = message(&agent.handle, ANSWER, ORCHESTRATOR, 10);
        spoofed.envelope.sender = name.parse().expect("a URI");
        agent.refused(&spoofed, "Message not authenticated.").await;
    }
    let genuine = message(&agent.handle, ANSWER, ORCHESTRATOR, 10);
    agent.send(&genuine).await;
    let got = orchestrator.message().await;
    assert_eq!(got.envelope.id, genuine.envelope.id);
}

#[tokio::test]
async fn agents_do_not_command_and_do_not_ask() {
    let field = Field::new();
    let primary = field.primary();
    let mut agent = field.connected("node", "agent", &primary).await;
    let other = field.connected("other", "agent", &primary).await;
    for (message_type, target) in [
        (REQUEST, "pcp://other/agent"),
        (ANSWER, "pcp://other/agent"),
        (REQUEST, ORCHESTRATOR),
        ("inventory_request", "pcp:///server"),
    ] {
        let forbidden = message(&agent.handle, message_type, target, 10);
        agent.refused(&forbidden, "Message not authorized.").await;
    }
    assert!(other.handle.is_connected());
}

async fn is_refused(client: &Client) {
    let mut state = client.handle.state();
    let refused = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. } if error.contains("refuses us"))
    });
    timeout(SOON, refused)
        .await
        .expect("in time")
        .expect("seen");
}

#[tokio::test]
async fn only_listed_certnames_are_controllers_and_brokers() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    is_refused(&field.client("node", "orchestrator", &primary)).await;
    is_refused(&field.client("node", "controller", &primary)).await;
    is_refused(&field.client("node", "server", &primary)).await;
    is_refused(&field.client("compiler-2", "server", &compiler)).await;
    is_refused(&field.client("orch", "unheard-of", &primary)).await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let field = Field::new();
    let files = field.files("node");
    field.ca.revoke("node").expect("revoked");
    assert!(files.cert.exists());
    let primary = field.primary();
    let client = field.client("node", "agent", &primary);
    let mut state = client.handle.state();
    let refused = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. } if error.to_lowercase().contains("revoked"))
    });
    timeout(SOON, refused)
        .await
        .expect("in time")
        .expect("seen");
}

/// It is told, and goes: it would else come back, and take its place from the other again.
async fn is_superseded(mut client: Client) {
    match client.event().await {
        Event::Disconnected { reason } => assert!(reason.contains("newer"), "{reason}"),
        event => panic!("not superseded: {event:?}"),
    }
    assert!(client.tasks.shutdown(SOON).await);
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_the_older() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let first = field.connected("node", "agent", &primary).await;
    let mut second = field.connected("node", "agent", &primary).await;
    is_superseded(first).await;
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut second).await;
}

#[tokio::test]
async fn a_newer_session_elsewhere_takes_the_place_of_the_older() {
    let field = Field::new();
    let primary = field.primary();
    let one = field.compiler("compiler-1", &[primary.address]);
    let two = field.compiler("compiler-2", &[primary.address]);
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let first = field.connected("node", "agent", &one).await;
    orchestrator.wait_present(AGENT, true).await;
    let mut second = field.connected("node", "agent", &two).await;
    is_superseded(first).await;
    talk(&mut orchestrator, &mut second).await;
}

#[tokio::test]
async fn an_agent_that_does_not_read_delays_nobody() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let deaf = field.connected("deaf", "agent", &primary).await;
    let mut agent = field.connected("node", "agent", &primary).await;
    orchestrator.wait_present("pcp://deaf/agent", true).await;
    orchestrator.wait_present(AGENT, true).await;
    // Its own queue of events fills, then the windows of its connection, then its outbox.
    let mut refusal = None;
    for _ in 0..2000 {
        let request = message(&orchestrator.handle, REQUEST, "pcp://deaf/agent", 15_000);
        orchestrator.send(&request).await;
        if let Ok(Event::Message(answer)) = orchestrator.events.try_recv() {
            refusal = Some(answer);
            break;
        }
        tokio::task::yield_now().await;
    }
    let refusal = match refusal {
        Some(refusal) => refusal,
        None => orchestrator.message().await,
    };
    assert_eq!(refusal.body, "\"Target is busy.\"");
    let request = message(&orchestrator.handle, REQUEST, AGENT, 10);
    orchestrator.send(&request).await;
    assert_eq!(agent.message().await.envelope.id, request.envelope.id);
    assert!(deaf.handle.is_connected());
}

#[tokio::test]
async fn everybody_is_told_when_the_broker_stops() {
    let field = Field::new();
    let primary: Running = field.primary();
    let mut agent = field.connected("node", "agent", &primary).await;
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    primary.stop().await;
    for client in [&mut agent, &mut orchestrator] {
        match client.event().await {
            Event::Disconnected { reason } => assert!(reason.contains("stopped"), "{reason}"),
            event => panic!("not told: {event:?}"),
        }
    }
}

#[tokio::test]
async fn a_large_message_that_was_sent_arrives_although_its_sender_is_shut_down() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    for _ in 0..5 {
        let agent = field.connected("node", "agent", &primary).await;
        let answer = message(&agent.handle, ANSWER, ORCHESTRATOR, MAX_MESSAGE);
        agent.send(&answer).await;
        assert!(agent.tasks.shutdown(SOON).await);
        assert_eq!(orchestrator.message().await.envelope.id, answer.envelope.id);
    }
}
