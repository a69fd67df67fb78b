//! A broker is stopped in good order: its agents go to another one, and nothing that was said is lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pcp::{Message, MessageId};
use pcp_client::{BrokerAddress, ClientHandle, Event, State};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::field::{Client, Field, Running, SOON, broker_address, message};
use crate::foreign::Foreign;

const ANSWER: &str = "rpc_blocking_response";
const REQUEST: &str = "rpc_blocking_request";
const ORCHESTRATOR: &str = "pcp://orch/orchestrator";

/// Answers every request until its client is shut down, and says again what a busy broker gives back.
async fn answer(handle: ClientHandle, mut events: mpsc::Receiver<Event>) {
    let mut said: HashMap<MessageId, Message> = HashMap::new();
    while let Some(event) = events.recv().await {
        if let Event::Message(request) = event {
            let refused = request.envelope.in_reply_to.and_then(|id| said.remove(&id));
            let answer = refused.unwrap_or_else(|| {
                let mut answer = message(&handle, ANSWER, ORCHESTRATOR, 100);
                answer.envelope.in_reply_to = Some(request.envelope.id);
                answer
            });
            said.insert(answer.envelope.id, answer.clone());
            // Between two sessions it cannot be said: it is said in the next one.
            while handle.send(answer.clone()).await.is_err() {
                let mut state = handle.state();
                let open = |state: &State| !matches!(state, State::Connecting { .. });
                if state.wait_for(open).await.is_err() || *state.borrow() == State::Closed {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Agents that answer, each with the brokers in this order.
fn agents(field: &Field, count: usize, brokers: &[BrokerAddress]) -> Vec<ClientHandle> {
    let names = (0..count).map(|number| format!("node-{number}"));
    let agent = |name: String| {
        let client = field.client_of(&name, "agent", brokers.to_vec(), &[]);
        let handle = client.handle.clone();
        let serving = answer(client.handle, client.events);
        client.tasks.spawn("agent", serving);
        handle
    };
    names.map(agent).collect()
}

async fn all_at(agents: &[ClientHandle], broker: &str) {
    for agent in agents {
        let mut state = agent.state();
        let there = state.wait_for(
            |state| matches!(state, State::Connected { broker: at, .. } if at.as_str() == broker),
        );
        timeout(SOON, there).await.expect("in time").expect("seen");
    }
}

/// Asks all agents again and again until `end`, then waits for what is missing; asks again what a broker
/// gives back, as an orchestrator does. How many were asked.
async fn ask(orchestrator: &mut Client, agents: &[ClientHandle], end: impl Future) -> usize {
    let mut open: HashMap<MessageId, Message> = HashMap::new();
    let mut asked = 0;
    let mut end = std::pin::pin!(end);
    let mut ended = false;
    let mut deadline = Instant::now() + SOON;
    let mut rounds = tokio::time::interval(Duration::from_millis(50));
    while !ended || !open.is_empty() {
        tokio::select! {
            _ = &mut end, if !ended => {
                ended = true;
                deadline = Instant::now() + SOON;
            }
            _ = rounds.tick(), if !ended => for agent in agents {
                let target = agent.uri().to_string();
                let request = message(&orchestrator.handle, REQUEST, &target, 100);
                asked += 1;
                orchestrator.send(&request).await;
                open.insert(request.envelope.id, request);
            },
            event = orchestrator.event() => match event {
                Event::Message(answer) => {
                    let asked = answer.envelope.in_reply_to.expect("an answer to something");
                    let request = open.remove(&asked).expect("asked, and answered once");
                    if answer.envelope.message_type.name() != Some(ANSWER) {
                        assert_eq!(answer.body, "\"Not connected.\"");
                        orchestrator.send(&request).await;
                        open.insert(asked, request);
                    }
                }
                event => panic!("{event:?}"),
            },
        }
        assert!(
            !ended || Instant::now() < deadline,
            "{} are lost",
            open.len()
        );
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_the_compilers_loses_no_message_and_no_answer() {
    let field = Field::new();
    let primary = field.primary();
    let one = field.compiler("compiler-1", &[primary.address]);
    let two = field.compiler("compiler-2", &[primary.address]);
    let addresses = [one.address, two.address];
    let agents = agents(&field, 20, &addresses.map(broker_address));
    all_at(&agents, "compiler-1").await;
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    for agent in &agents {
        orchestrator
            .wait_present(&agent.uri().to_string(), true)
            .await;
    }
    let restart = async {
        one.stop().await;
        all_at(&agents, "compiler-2").await;
        let mut config = field.config("compiler-1", &[primary.address]);
        config.listen = addresses[0];
        let again = Running::start_when_free(config).await;
        two.stop().await;
        all_at(&agents, "compiler-1").await;
        again
    };
    let mut again = None;
    let asked = ask(&mut orchestrator, &agents, async {
        again = Some(restart.await);
    })
    .await;
    assert!(asked >= 20 && again.is_some(), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_go_home_when_their_first_broker_is_back_unless_they_are_to_stay_and_nothing_is_lost()
 {
    let mut field = Field::new();
    let primary = field.primary();
    let one = field.compiler("compiler-1", &[primary.address]);
    let two = field.compiler("compiler-2", &[primary.address]);
    let addresses = [one.address, two.address];
    let brokers = addresses.map(broker_address);
    let stays = field.client_of("stays", "agent", brokers.to_vec(), &[]);
    field.home_after = Some(Duration::from_millis(500));
    let agents = agents(&field, 10, &brokers);
    all_at(&agents, "compiler-1").await;
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    for agent in &agents {
        orchestrator
            .wait_present(&agent.uri().to_string(), true)
            .await;
    }
    let mut again = None;
    let asked = ask(&mut orchestrator, &agents, async {
        one.stop().await;
        all_at(&agents, "compiler-2").await;
        let mut config = field.config("compiler-1", &[primary.address]);
        config.listen = addresses[0];
        again = Some(Running::start_when_free(config).await);
        all_at(&agents, "compiler-1").await;
    })
    .await;
    assert!(asked >= 10 && again.is_some(), "{asked}");
    all_at(&[stays.handle], "compiler-2").await;
}

#[tokio::test]
async fn a_broker_that_is_being_stopped_takes_nobody_and_says_so_at_once() {
    let field = Field::new();
    let primary = field.primary();
    let mut compiler = field.config("compiler-1", &[primary.address]);
    compiler.drain_time = Duration::from_secs(60);
    let compiler = Running::start(compiler);
    // It does not go when it is asked to, so that the stop takes its time.
    let stubborn = Foreign::two(&field, "stubborn", "agent", &compiler).await;
    let other = field.compiler("compiler-2", &[primary.address]);
    let stopping = compiler.stop();
    let coming = async {
        let begun = Instant::now();
        let brokers = [compiler.address, other.address].map(broker_address);
        let late = field.client_of("late", "agent", brokers.to_vec(), &[]);
        all_at(std::slice::from_ref(&late.handle), "compiler-2").await;
        assert!(
            begun.elapsed() < Duration::from_secs(9),
            "it waited for a time-out"
        );
        assert!(late.tasks.shutdown(SOON).await);
    };
    tokio::join!(stopping, coming);
    drop(stubborn);
}
