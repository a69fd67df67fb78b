//! A controller: asks one agent to run a script, and has the script when the mesh asks for it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use identity::{Current, Files};
use lab::Lab;
use pcp::{
    Certname, ClientType, Digest, Envelope, Flags, Message, MessageId, MessageType, Target, Uri,
};
use pcp_client::{BrokerAddress, ClientConfig, ClientHandle, Event, FEATURE_CONTENT};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Loads the certificate that the lab made for `name`.
pub(crate) fn identity(lab: &Lab, name: &str) -> Result<Arc<Current>> {
    let certname = Certname::parse(name)?;
    let ssldir = lab.ssl_dir(name)?;
    let identity = Current::load(Files::from_ssldir(&ssldir, &certname))
        .with_context(|| format!("cannot load the certificate of {name}"))?;
    Ok(Arc::new(identity))
}

/// A request whose outcome is awaited.
struct Pending {
    message: Message,
    outcome: oneshot::Sender<Result<()>>,
    transaction: String,
}

/// Runs one script on one agent, as often as asked.
#[derive(Debug, Clone)]
pub(crate) struct Controller {
    requests: mpsc::Sender<Pending>,
    sender: Uri,
    target: Uri,
    params: Value,
}

impl Controller {
    /// Connects to the primary, ready to run `script` on `agent`.
    pub(crate) async fn connect(
        lab: &Lab,
        tasks: &daemon::Tasks,
        certname: &str,
        agent: &str,
        script: &Path,
    ) -> Result<Self> {
        let content = Bytes::from(fs::read(script).context("cannot read the script")?);
        let digest: [u8; 32] = Sha256::digest(&content).into();
        let digest = Digest(digest);
        let broker: BrokerAddress = lab.broker_primary().parse()?;
        let software = daemon::software("perf");
        let kind = ClientType::parse("controller")?;
        let mut config = ClientConfig::new(vec![broker], identity(lab, certname)?, kind, software);
        config.features = vec![FEATURE_CONTENT.to_owned()];
        let (handle, mut events) = pcp_client::start(config, tasks);
        loop {
            match events.recv().await.context("the client has ended")? {
                Event::Connected { .. } => break,
                Event::Disconnected { reason } => bail!("no session: {reason}"),
                Event::Message(_) | Event::Link(_) | Event::Content(_) => {}
            }
        }
        let (requests, queue) = mpsc::channel(64);
        let sender = handle.uri().clone();
        tasks.spawn("controller", serve(handle, events, queue, digest, content));
        let params = json!({
            "task": "perf::exit",
            "input": {},
            "files": [{
                "filename": "exit.sh",
                "sha256": digest.to_string(),
                "uri": { "path": "/perf/exit.sh", "params": {} },
            }],
        });
        let target = Uri::new(Certname::parse(agent)?, ClientType::agent());
        Ok(Self {
            requests,
            sender,
            target,
            params,
        })
    }

    /// Sends one request and waits for its outcome.
    pub(crate) async fn run(&self) -> Result<()> {
        let transaction = Uuid::now_v7().to_string();
        let data = json!({
            "transaction_id": transaction,
            "module": "task",
            "action": "run",
            "notify_outcome": true,
            "params": self.params,
        });
        let message = message(
            &self.sender,
            &self.target,
            "rpc_non_blocking_request",
            &data,
        );
        let (outcome, done) = oneshot::channel();
        let pending = Pending {
            message,
            outcome,
            transaction,
        };
        self.requests
            .send(pending)
            .await
            .map_err(|_| anyhow!("the controller has ended"))?;
        done.await.context("the controller has ended")?
    }
}

fn message(sender: &Uri, target: &Uri, kind: &'static str, data: &Value) -> Message {
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type: MessageType::of(kind),
            sender: sender.clone(),
            target: Target::Client(target.clone()),
            in_reply_to: None,
            hops: 0,
            flags: Flags::ACKNOWLEDGES,
        },
        body: Bytes::from(data.to_string()),
    }
}

/// Moves requests out and outcomes in, and acknowledges them as an orchestrator does.
async fn serve(
    handle: ClientHandle,
    mut events: mpsc::Receiver<Event>,
    mut queue: mpsc::Receiver<Pending>,
    digest: Digest,
    content: Bytes,
) {
    let mut waiting: HashMap<String, oneshot::Sender<Result<()>>> = HashMap::new();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Message(message)) => {
                    let Some((transaction, outcome)) = outcome_of(&message) else { continue };
                    let data = json!({ "transaction_id": transaction });
                    let sender = handle.uri().clone();
                    let acknowledgement = self::message(
                        &sender,
                        &message.envelope.sender,
                        "rpc_outcome_acknowledgement",
                        &data,
                    );
                    if handle.send(acknowledgement).await.is_err() { return }
                    if let Some(waiter) = waiting.remove(&transaction) {
                        drop(waiter.send(outcome));
                    }
                }
                Some(Event::Content(query)) if query.digest == digest => {
                    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
                    drop(query.found(size, &content[..]).await);
                }
                Some(_) => {}
                None => return,
            },
            request = queue.recv() => match request {
                Some(Pending { message, outcome, transaction }) => {
                    waiting.insert(transaction, outcome);
                    if handle.send(message).await.is_err() { return }
                }
                None => return,
            },
        }
    }
}

/// The transaction that a message ends, and how; nothing for a provisional response.
fn outcome_of(message: &Message) -> Option<(String, Result<()>)> {
    let name = message.envelope.message_type.name()?;
    let data: Value = serde_json::from_slice(&message.body).ok()?;
    let outcome = match name {
        "rpc_non_blocking_response"
            if data.pointer("/results/exitcode") == Some(&Value::from(0)) =>
        {
            Ok(())
        }
        "rpc_non_blocking_response" | "rpc_error_message" => {
            Err(anyhow!("the task failed: {data}"))
        }
        _ => return None,
    };
    Some((data.get("transaction_id")?.as_str()?.to_owned(), outcome))
}
