//! Two primaries beside each other: one fleet, whichever of them a client is connected to.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use pcp::{Certname, ContentErrorCode, Digest};
use pcp_broker::config::Config;
use pcp_client::{BrokerAddress, Event, FEATURE_CONTENT, State};
use tokio::time::timeout;

use crate::content::{HAVE, fetch, serve};
use crate::field::{Client, Field, Running, SOON, message};

const ANSWER: &str = "rpc_non_blocking_response";
const REQUEST: &str = "rpc_non_blocking_request";
const AGENT: &str = "pcp://node/agent";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

/// An address that nobody listens on, on UDP or TCP, and that nobody is given soon.
fn free() -> SocketAddr {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("an address");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn primary(field: &Field, name: &str, at: SocketAddr, other: (&str, SocketAddr)) -> Config {
    let mut config = field.config(name, &[]);
    config.listen = at;
    config.primaries = vec![address(other.1)];
    config.primary_certnames = vec![Certname::parse(other.0).expect("a certname")];
    config
}

fn address(address: SocketAddr) -> BrokerAddress {
    address.to_string().parse().expect("an address")
}

/// Two primaries that dial each other.
fn pair(field: &Field) -> [Config; 2] {
    let (one, two) = (free(), free());
    [
        primary(field, "primary-1", one, ("primary-2", two)),
        primary(field, "primary-2", two, ("primary-1", one)),
    ]
}

async fn talk(orchestrator: &mut Client, agent: &mut Client) {
    for size in [100, 1_000_000] {
        let request = message(&orchestrator.handle, REQUEST, AGENT, size);
        orchestrator.send(&request).await;
        assert_eq!(agent.message().await.envelope.id, request.envelope.id);
        let answer = message(&agent.handle, ANSWER, ORCHESTRATOR, size);
        agent.send(&answer).await;
        assert_eq!(orchestrator.message().await.envelope.id, answer.envelope.id);
    }
}

#[tokio::test]
async fn a_controller_at_one_reaches_agents_of_the_other_and_of_its_compilers() {
    let field = Field::new();
    let [one, two] = pair(&field);
    let (one, two) = (Running::start(one), Running::start(two));
    let compiler = field.compiler("compiler-1", &[two.address]);
    let mut orchestrator = field.connected("orch", "orchestrator", &one).await;
    for broker in [&two, &compiler] {
        let mut agent = field.connected("node", "agent", broker).await;
        orchestrator.wait_present(AGENT, true).await;
        talk(&mut orchestrator, &mut agent).await;
        assert!(agent.tasks.shutdown(SOON).await);
        orchestrator.wait_present(AGENT, false).await;
    }
    let lost = message(&orchestrator.handle, REQUEST, "pcp://nobody/agent", 10);
    orchestrator.refused(&lost, "Not connected.").await;
}

#[tokio::test]
async fn files_come_from_the_orchestrator_at_the_other_and_questions_go_in_no_circle() {
    let field = Field::new();
    let [one, two] = pair(&field);
    let (one, two) = (Running::start(one), Running::start(two));
    let compiler = field.compiler("compiler-1", &[two.address]);
    let mut orchestrator = field.client_with("orch", "orchestrator", &one, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let agent = field.connected("node", "agent", &compiler).await;
    orchestrator.wait_present(AGENT, true).await;
    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&agent, HAVE));
    assert!(!got.expect("found").is_empty());
    // Without the orchestrator everybody asks once, and that is all.
    assert!(orchestrator.tasks.shutdown(SOON).await);
    let missing = fetch(&agent, Digest([9; 32])).await.expect_err("nobody");
    assert!(
        matches!(
            missing,
            ContentErrorCode::Unavailable | ContentErrorCode::NotFound
        ),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_primary_that_goes_for_good_is_replaced_by_the_other() {
    let field = Field::new();
    let [one, two] = pair(&field);
    let (one, two) = (Running::start(one), Running::start(two));
    let compiler = field.compiler("compiler-1", &[one.address, two.address]);
    let mut agent = field.connected("node", "agent", &compiler).await;
    let brokers = vec![address(one.address), address(two.address)];
    let mut orchestrator = field.client_of("orch", "orchestrator", brokers, &[]);
    orchestrator.wait_connected().await;
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut agent).await;
    one.stop().await;
    loop {
        match orchestrator.event().await {
            Event::Connected { welcome, .. } => {
                assert_eq!(welcome.broker.as_str(), "primary-2");
                break;
            }
            Event::Message(_) | Event::Disconnected { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    orchestrator.wait_present(AGENT, true).await;
    talk(&mut orchestrator, &mut agent).await;
    assert!(agent.handle.is_connected());
}

#[tokio::test]
async fn a_broker_that_is_not_listed_as_primary_is_not_taken_for_one() {
    let field = Field::new();
    // It is the one dialled, and not in the list: nothing of what it says counts.
    let other = field.compiler("compiler-1", &[free()]);
    let mut config = field.config("primary-1", &[]);
    config.primaries = vec![address(other.address)];
    config.primary_certnames = vec![Certname::parse("primary-2").expect("a certname")];
    let one = Running::start(config);
    let mut orchestrator = field.connected("orch", "orchestrator", &one).await;
    let _agent = field.connected("node", "agent", &other).await;
    orchestrator.wait_present(AGENT, false).await;
    // And one that nobody has listed may not open a link.
    let stranger = field.client("node", "server", &one);
    let mut state = stranger.handle.state();
    let refused = state.wait_for(|state| {
        matches!(state, State::Connecting { last_error: Some(error), .. } if error.contains("refuses us"))
    });
    timeout(SOON, refused)
        .await
        .expect("in time")
        .expect("seen");
}
