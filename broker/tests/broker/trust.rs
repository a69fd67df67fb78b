//! Certificates and revocation lists that change under a running broker.

use pcp_client::{Event, State};
use tokio::time::timeout;

use crate::field::{Client, Field, SOON, message};

const AGENT: &str = "pcp://node/agent";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

async fn says(client: &Client, text: &str) {
    let mut state = client.handle.state();
    let refused = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. }
            if error.to_lowercase().contains(text))
    });
    timeout(SOON, refused)
        .await
        .expect("in time")
        .expect("seen");
}

#[tokio::test]
async fn a_revoked_agent_is_cut_off_by_itself_and_all_others_stay() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let mut agent = field.connected("node", "agent", &primary).await;
    let stolen = field.connected("stolen", "agent", &primary).await;
    orchestrator.wait_present(AGENT, true).await;
    field.ca.revoke("stolen").expect("revoked");
    // Nobody tells the broker: it looks at its files.
    says(&stolen, "revoked").await;
    orchestrator.wait_present("pcp://stolen/agent", false).await;
    let request = message(&orchestrator.handle, "rpc_non_blocking_request", AGENT, 10);
    orchestrator.send(&request).await;
    assert_eq!(agent.message().await.envelope.id, request.envelope.id);
    assert!(agent.events.try_recv().is_err());
    assert!(!stolen.handle.is_connected());
}

#[tokio::test]
async fn a_revoked_compiler_and_a_revoked_controller_are_cut_off_too() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let _agent = field.connected("node", "agent", &compiler).await;
    orchestrator.wait_present(AGENT, true).await;
    field.ca.revoke("compiler-1").expect("revoked");
    primary.look_at_certificates();
    orchestrator.wait_present(AGENT, false).await;
    field.ca.revoke("orch").expect("revoked");
    primary.look_at_certificates();
    says(&orchestrator, "revoked").await;
}

#[tokio::test]
async fn a_peer_that_never_stops_talking_is_cut_off_too() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let stolen = field.connected("stolen", "agent", &primary).await;
    let mut agent = field.connected("node", "agent", &primary).await;
    orchestrator.wait_present(AGENT, true).await;
    field.ca.revoke("stolen").expect("revoked");
    primary.look_at_certificates();
    let talking = async {
        loop {
            let answer = message(
                &stolen.handle,
                "rpc_non_blocking_response",
                ORCHESTRATOR,
                10,
            );
            if stolen.handle.send(answer).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let listening = async {
        // What it sent before is heard.
        while let Event::Message(_) = orchestrator.event().await {}
    };
    let cut_off = async {
        tokio::select! {
            () = talking => {}
            () = listening => panic!("the orchestrator lost its session"),
        }
    };
    timeout(SOON, cut_off).await.expect("cut off in time");
    let answer = message(&agent.handle, "rpc_non_blocking_response", ORCHESTRATOR, 10);
    agent.send(&answer).await;
    while orchestrator.message().await.envelope.id != answer.envelope.id {}
    assert!(agent.events.try_recv().is_err());
}

#[tokio::test]
async fn a_broker_whose_certificate_was_renewed_shows_the_new_one() {
    let field = Field::new();
    let primary = field.primary();
    let mut before = field.connected("node", "agent", &primary).await;
    // Whoever connects from now on would refuse the old one.
    field.ca.revoke("primary").expect("revoked");
    let san = ["127.0.0.1".to_owned()];
    field.ca.issue("primary", &san).expect("a certificate");
    primary.look_at_certificates();
    field.connected("late", "agent", &primary).await;
    assert!(before.handle.is_connected());
    assert!(before.events.try_recv().is_err());
}

#[tokio::test]
async fn files_that_are_no_good_leave_a_broker_as_it_was() {
    let field = Field::new();
    let primary = field.primary();
    let before = field.connected("node", "agent", &primary).await;
    let files = field.files("primary");
    std::fs::write(files.crl.expect("lists"), "no list").expect("written");
    std::fs::write(files.key, "no key").expect("written");
    primary.look_at_certificates();
    field.connected("late", "agent", &primary).await;
    assert!(before.handle.is_connected());
}
