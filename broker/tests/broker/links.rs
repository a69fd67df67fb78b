//! Links: a compiler loses its primary, in good order and by sudden death, and gets it back.

use std::net::SocketAddr;

use pcp_broker::Broker;
use pcp_broker::config::Config;
use pcp_client::Event;
use tokio::runtime::Runtime;

use crate::field::{Field, Running, message};

const ANSWER: &str = "rpc_non_blocking_response";
const REQUEST: &str = "rpc_non_blocking_request";
const AGENT: &str = "pcp://node/agent";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

fn at(mut config: Config, address: SocketAddr) -> Config {
    config.listen = address;
    config
}

#[tokio::test]
async fn a_compiler_keeps_its_agents_and_their_answers_while_the_primary_restarts() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut agent = field.connected("node", "agent", &compiler).await;
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    orchestrator.wait_present(AGENT, true).await;

    primary.stop().await;
    match orchestrator.event().await {
        Event::Disconnected { .. } => {}
        event => panic!("still connected: {event:?}"),
    }
    // The compiler learns of the stop by a goodbye too, so this message finds no primary and waits.
    let answer = message(&agent.handle, ANSWER, ORCHESTRATOR, 100);
    agent.send(&answer).await;

    let config = at(field.config("primary", &[]), primary.address);
    let primary = Running::start(config);
    orchestrator.wait_connected().await;
    orchestrator.wait_present(AGENT, true).await;
    let request = message(&orchestrator.handle, REQUEST, AGENT, 100);
    orchestrator.send(&request).await;
    let mut got = agent.message().await;
    // The answer has waited for the primary. It arrives if the orchestrator was back before the
    // compiler's link; else its sender is told, and would send it again.
    if got.envelope.in_reply_to == Some(answer.envelope.id) {
        assert!(orchestrator.aside.is_empty());
        got = agent.message().await;
    } else {
        let arrived = match orchestrator.aside.pop() {
            Some(arrived) => arrived,
            None => orchestrator.message().await,
        };
        assert_eq!(arrived.envelope.id, answer.envelope.id);
        assert_eq!(arrived.body, answer.body);
    }
    assert_eq!(got.envelope.id, request.envelope.id);
    assert!(agent.handle.is_connected());
    primary.stop().await;
}

/// A broker in a runtime of its own, which can be killed: no goodbye, no closing of connections.
struct Mortal {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Mortal {
    fn start(config: Config) -> Self {
        let runtime = daemon::runtime(daemon::Threads::Multi(1)).expect("a runtime");
        let broker = Broker::build(config).expect("a broker");
        let address = broker.address();
        runtime.spawn(broker.run(std::future::pending()));
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    fn kill(self) {
        drop(self);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn peers_learn_of_a_broker_s_sudden_death_when_it_is_back() {
    let field = Field::new();
    let broker = Mortal::start(field.config("primary", &[]));
    let address = broker.address;
    let stand_in = Running::at(address);
    let mut agent = field.connected("node", "agent", &stand_in).await;
    broker.kill();
    let broker = Running::start_when_free(at(field.config("primary", &[]), address)).await;
    // Sent on the dead connection: the new broker answers that it does not know it.
    let answer = message(&agent.handle, ANSWER, ORCHESTRATOR, 100);
    let asked = std::time::Instant::now();
    agent.send(&answer).await;
    match agent.event().await {
        Event::Disconnected { reason } => assert!(reason.contains("reset"), "{reason}"),
        event => panic!("still connected: {event:?}"),
    }
    assert!(
        asked.elapsed() < pcp_client::transport::KEEP_ALIVE,
        "found out by time-out only"
    );
    agent.wait_connected().await;
    broker.stop().await;
}
