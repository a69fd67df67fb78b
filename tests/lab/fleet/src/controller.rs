//! A controller that asks every agent of a fleet at once, and asks those again that could not be
//! reached, until all have answered: the proof that a fleet is connected *and* addressable.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use identity::Current;
use pcp::{Certname, ClientType, Envelope, Flags, Message, MessageId, MessageType, Target, Uri};
use pcp_client::{BrokerAddress, ClientConfig, ClientHandle, Event};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

/// Whoever has said nothing for this long is asked again: an answer takes milliseconds, and one that
/// was lost on the way with a broker never comes.
const SILENCE: Duration = Duration::from_secs(2);

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// How many answered.
    pub answered: usize,
    /// From the first question to the last answer, in seconds.
    pub seconds: f64,
    /// Questions that had to be asked again.
    pub asked_again: usize,
}

/// A controller with a session, or on its way to one.
#[derive(Debug)]
pub struct Controller {
    handle: ClientHandle,
    events: mpsc::Receiver<Event>,
}

impl Controller {
    /// Dials these brokers, the first one first.
    #[must_use]
    pub fn start(
        brokers: Vec<BrokerAddress>,
        identity: Arc<Current>,
        client_type: ClientType,
        tasks: &daemon::Tasks,
    ) -> Self {
        let software = daemon::software("fleet");
        let config = ClientConfig::new(brokers, identity, client_type, software);
        let (handle, events) = pcp_client::start(config, tasks);
        Self { handle, events }
    }

    /// Pings all of these agents until each has answered.
    ///
    /// # Errors
    /// When some have not after `deadline`; the error says how many.
    pub async fn ping_all(&mut self, agents: &[Certname], deadline: Duration) -> Result<Round> {
        let start = Instant::now();
        let mut waiting: HashSet<Certname> = agents.iter().cloned().collect();
        let mut round = Round {
            answered: 0,
            seconds: 0.0,
            asked_again: 0,
        };
        let mut first = true;
        while !waiting.is_empty() {
            if start.elapsed() > deadline {
                bail!(
                    "{} of {} agents did not answer within {} s",
                    waiting.len(),
                    agents.len(),
                    deadline.as_secs()
                );
            }
            if !first {
                round.asked_again += waiting.len();
            }
            first = false;
            self.ask(&mut waiting).await?;
            // What is sent is answered within moments; then those that are left are asked again.
            while !waiting.is_empty() {
                match timeout(SILENCE, self.events.recv()).await {
                    Ok(event) => take(&mut waiting, event.context("the client has ended")?),
                    Err(_) => break,
                }
            }
        }
        round.answered = agents.len();
        round.seconds = start.elapsed().as_secs_f64();
        Ok(round)
    }

    /// Sends a ping to each that is still waited for, taking answers in between so that neither
    /// direction fills up.
    async fn ask(&mut self, waiting: &mut HashSet<Certname>) -> Result<()> {
        let asked: Vec<_> = waiting.iter().cloned().collect();
        for agent in asked {
            let message = ping(self.handle.uri(), agent);
            let sent = self.handle.send(message);
            tokio::pin!(sent);
            loop {
                tokio::select! {
                    // Without a session the question is asked again in the next round.
                    _ = &mut sent => break,
                    event = self.events.recv() => {
                        take(waiting, event.context("the client has ended")?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Removes whom an answer comes from.
fn take(waiting: &mut HashSet<Certname>, event: Event) {
    if let Event::Message(message) = event
        && message.envelope.message_type.name() == Some("rpc_blocking_response")
    {
        waiting.remove(message.envelope.sender.certname());
    }
}

fn ping(sender: &Uri, agent: Certname) -> Message {
    let data: Value = json!({
        "transaction_id": Uuid::now_v7().to_string(),
        "module": "ping",
        "action": "ping",
        "params": {},
    });
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type: MessageType::of("rpc_blocking_request"),
            sender: sender.clone(),
            target: Target::Client(Uri::new(agent, ClientType::agent())),
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: Bytes::from(data.to_string()),
    }
}
