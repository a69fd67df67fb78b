//! What a routed message costs the brokers that it passes: through one, and through two, with many
//! under way between two clients, beside bare quinn sending the same bytes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use fleet::{Counters, agent};
use lab::Lab;
use pcp::{Certname, ClientType, Envelope, Flags, Message, MessageId, MessageType, Target, Uri};
use pcp_client::{BrokerAddress, ClientConfig, ClientHandle, Event};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::CONTROLLER;
use crate::baseline::{Clients, MESSAGE, Server};
use crate::controller::identity;
use crate::memory::cpu_seconds;
use crate::row;
use crate::table::Table;

/// Questions, each answered by one message back.
const QUESTIONS: usize = 20_000;

/// How many are under way at once: what the measured floor of bare quinn was taken with.
const AT_ONCE: usize = 64;

/// What a message has cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// CPU microseconds for each message, on all brokers together.
    cpu: f64,
    /// Messages a second.
    rate: f64,
}

/// Measures one hop (both at the primary) and two (the agent at a compiler).
pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let server = Server::start(lab)?;
    let clients = Clients::new(&server, &identity(lab, CONTROLLER)?.get())?;
    let cpu = cpu_seconds(server.pid())?;
    let start = Instant::now();
    clients.echo(QUESTIONS, AT_ONCE).await?;
    let bare = cost(cpu_seconds(server.pid())? - cpu, start.elapsed());
    drop(clients);
    server.end()?;

    let compiler = lab.broker_compilers().first().context("no compiler")?;
    let primary = lab.broker_primary();
    for (hops, agent_at, brokers) in [
        (1, primary, &["primary"][..]),
        (2, compiler.as_str(), &["primary", "compiler-1"][..]),
    ] {
        let pids: Vec<u32> = brokers
            .iter()
            .map(|name| {
                lab.pid(name)
                    .with_context(|| format!("{name} does not run"))
            })
            .collect::<Result<_>>()?;
        let used = || {
            pids.iter()
                .map(|pid| cpu_seconds(*pid))
                .sum::<Result<f64>>()
        };
        let name = format!("routed-{hops}");
        lab.issue(&name, &[])?;
        let tasks = daemon::Tasks::new();
        let mut client = connect(lab, &name, ClientType::agent(), agent_at, &tasks).await?;
        agent::start(client.config.clone(), Arc::new(Counters::default()), &tasks);
        // The agent that answers takes the place of the one that showed that the way is open.
        client.tasks.shutdown(Duration::from_secs(5)).await;
        let controller = ClientType::parse("controller")?;
        client = connect(lab, CONTROLLER, controller, primary, &tasks).await?;
        let target = Uri::new(Certname::parse(&name)?, ClientType::agent());
        ask(&mut client, &target, 1, 1).await?;
        let cpu = used()?;
        let start = Instant::now();
        ask(&mut client, &target, QUESTIONS, AT_ONCE).await?;
        let ours = cost(used()? - cpu, start.elapsed());
        tasks.shutdown(Duration::from_secs(5)).await;
        let figures: [row::Figure<Cost>; 2] = [
            (
                "broker CPU a routed message, hops",
                "us",
                |c| c.cpu,
                "1 hop: <= 4 us",
            ),
            ("messages a second, hops", "/s", |c| c.rate, "-"),
        ];
        for figure in figures {
            row::compare(table, hops, figure, ours, bare);
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cost(cpu: f64, wall: Duration) -> Cost {
    // A question and its answer are two messages that the broker reads and two that it writes; quinn
    // alone reads and writes each once, too.
    let messages = 2.0 * QUESTIONS as f64;
    Cost {
        cpu: cpu * 1e6 / messages,
        rate: messages / wall.as_secs_f64(),
    }
}

struct Client {
    handle: ClientHandle,
    events: mpsc::Receiver<Event>,
    config: ClientConfig,
    tasks: daemon::Tasks,
}

async fn connect(
    lab: &Lab,
    name: &str,
    client_type: ClientType,
    broker: &str,
    tasks: &daemon::Tasks,
) -> Result<Client> {
    let broker: BrokerAddress = broker.parse()?;
    let software = daemon::software("perf");
    let config = ClientConfig::new(vec![broker], identity(lab, name)?, client_type, software);
    let tasks = tasks.child();
    let (handle, mut events) = pcp_client::start(config.clone(), &tasks);
    loop {
        match events.recv().await.context("the client has ended")? {
            Event::Connected { .. } => break,
            Event::Disconnected { reason } => bail!("no session: {reason}"),
            Event::Message(_) | Event::Link(_) | Event::Content(_) => {}
        }
    }
    Ok(Client {
        handle,
        events,
        config,
        tasks,
    })
}

/// Asks so often, with so many questions under way, and waits for every answer. Until the target is
/// there, a question is answered by an error and asked again.
async fn ask(client: &mut Client, target: &Uri, questions: usize, at_once: usize) -> Result<()> {
    let (mut asked, mut answered) = (0, 0);
    while answered < questions {
        while asked < questions && asked - answered < at_once {
            let message = question(client.handle.uri(), target);
            client.handle.send(message).await?;
            asked += 1;
        }
        match client.events.recv().await.context("the client has ended")? {
            Event::Message(message) => match message.envelope.message_type.name() {
                Some("rpc_blocking_response") => answered += 1,
                _ => asked -= 1,
            },
            Event::Disconnected { reason } => bail!("the session has ended: {reason}"),
            Event::Connected { .. } | Event::Link(_) | Event::Content(_) => {}
        }
    }
    Ok(())
}

fn question(sender: &Uri, target: &Uri) -> Message {
    let padding = "x".repeat(MESSAGE - 150);
    let body = format!(
        r#"{{"transaction_id":"{}","module":"ping","action":"ping","params":{{"p":"{padding}"}}}}"#,
        Uuid::now_v7()
    );
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type: MessageType::of("rpc_blocking_request"),
            sender: sender.clone(),
            target: Target::Client(target.clone()),
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: Bytes::from(body),
    }
}
