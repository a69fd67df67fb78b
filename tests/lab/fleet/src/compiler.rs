//! A compiler that is played: one link to a primary, and behind it any number of agents that have no
//! sessions. What a fleet costs above its brokers is measured without the cost of the fleet.

use anyhow::{Context as _, Result, bail};
use pcp::{Announcement, Certname, ClientType, LinkFrame, Target, Uri};
use pcp_client::{ClientConfig, ClientHandle, Event};
use tokio::sync::mpsc;

use crate::agent::{Outcomes, answers};

/// Connects as a compiler, announces an agent of each certname, and answers for them until the task
/// tree ends.
///
/// # Errors
/// When the primary does not take the link.
pub async fn start(
    mut config: ClientConfig,
    agents: impl IntoIterator<Item = Certname>,
    tasks: &daemon::Tasks,
) -> Result<()> {
    config.client_type = ClientType::server();
    let (handle, mut events) = pcp_client::start(config, tasks);
    match events.recv().await.context("the client has ended")? {
        Event::Connected { .. } => {}
        Event::Disconnected { reason } => bail!("no link: {reason}"),
        Event::Message(_) | Event::Link(_) | Event::Content(_) => bail!("no welcome"),
    }
    let announced = agents.into_iter().map(|certname| Announcement {
        uri: Uri::new(certname, ClientType::agent()),
        started: 1,
        connected: true,
    });
    let mut parts = LinkFrame::chunks(announced.collect())
        .into_iter()
        .peekable();
    while let Some(clients) = parts.next() {
        let frame = LinkFrame::Snapshot {
            epoch: 1,
            last: parts.peek().is_none(),
            clients,
        };
        handle.send_link(frame).await.context("the link is lost")?;
    }
    tasks.spawn("played-compiler", serve(handle, events));
    Ok(())
}

async fn serve(handle: ClientHandle, mut events: mpsc::Receiver<Event>) {
    let mut outcomes = Outcomes::default();
    loop {
        let event = match tokio::time::timeout(outcomes.patience(), events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                if outcomes.send_again(&handle).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Event::Message(message) = event else {
            continue;
        };
        let Target::Client(agent) = &message.envelope.target else {
            continue;
        };
        for answer in answers(agent, &message) {
            outcomes.keep(&message, &answer);
            if handle.send(answer).await.is_err() {
                return;
            }
        }
        outcomes.forget(&message);
    }
}
