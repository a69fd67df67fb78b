//! How a broker is stopped in good order: nobody new comes in, agents are sent to other brokers in waves,
//! and only then controllers and links go. So a fleet does not arrive at the next broker in one moment,
//! and no message falls between the two.
//!
//! A wave is announced as gone a moment before it is told: what was on its way to it still arrives, and
//! what is sent later waits where the fleet is known, until the agents are back.

use std::collections::VecDeque;
use std::time::Duration;

use pcp::ClientType;
use pcp_mesh::SessionId;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::context::Context;
use crate::input::Input;
use crate::peers::Peers;

/// From one wave to the next.
const INTERVAL: Duration = Duration::from_millis(100);

/// How many agents are told in a second: half of what another broker lets in by default.
const AGENTS_PER_SECOND: u32 = 1000;

/// How many intervals after its announcement a wave is told: what is on its way between two brokers
/// has arrived by then.
const NOTICE: usize = 5;

/// Sends everybody away, in at most half of `patience`; the other half is for their last messages.
pub(crate) async fn run(peers: &Peers, inputs: &mpsc::Sender<Input>, patience: Duration) {
    let agents = agents(peers);
    let waves = waves(agents.len(), patience / 2);
    if !agents.is_empty() {
        tracing::info!(agents = agents.len(), waves, "sending agents elsewhere");
    }
    let each = agents.len().div_ceil(waves.max(1)).max(1);
    let mut announced = VecDeque::new();
    let mut rest = agents.chunks(each);
    loop {
        if announced.len() > NOTICE
            && let Some(sessions) = announced.pop_front().flatten()
        {
            tell(inputs, Input::Goodbye { sessions }).await;
        }
        let wave = rest.next().map(<[SessionId]>::to_vec);
        if let Some(sessions) = wave.clone() {
            tell(inputs, Input::Leaving { sessions }).await;
        } else if announced.iter().all(Option::is_none) {
            break;
        }
        announced.push_back(wave);
        sleep(INTERVAL).await;
    }
    tell(inputs, Input::Drain).await;
}

/// Lets one client go that wants to go elsewhere, as [`run`] does with all: `writing` is what writes to
/// it, and ends behind the goodbye.
pub(crate) async fn let_go(
    session: SessionId,
    context: &Context,
    mut writing: impl Future + Unpin,
) {
    let inputs = &context.inputs;
    let sessions = vec![session];
    tell(inputs, Input::Leaving { sessions }).await;
    let notice = INTERVAL * u32::try_from(NOTICE).unwrap_or(u32::MAX);
    if timeout(notice, &mut writing).await.is_ok() {
        return;
    }
    let sessions = vec![session];
    tell(inputs, Input::Goodbye { sessions }).await;
    drop(timeout(context.last_words, writing).await);
}

/// Those who can go elsewhere without anybody noticing.
fn agents(peers: &Peers) -> Vec<SessionId> {
    let agent = ClientType::agent();
    let all = peers.all().into_iter();
    let agents = all.filter(|(_, peer)| *peer.uri.client_type() == agent);
    agents.map(|(session, _)| session).collect()
}

/// In how many waves so many agents are told: at a set rate, or faster when time is short.
fn waves(agents: usize, time: Duration) -> usize {
    let steady =
        Duration::from_secs(1) * u32::try_from(agents).unwrap_or(u32::MAX) / AGENTS_PER_SECOND;
    let waves = steady.min(time).as_nanos().div_ceil(INTERVAL.as_nanos());
    usize::try_from(waves).unwrap_or(usize::MAX)
}

/// Without a driver there is nobody to say goodbye.
async fn tell(inputs: &mpsc::Sender<Input>, input: Input) {
    drop(inputs.send(input).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_told_at_a_steady_rate_and_faster_when_time_is_short() {
        let time = Duration::from_secs(15);
        assert_eq!(waves(0, time), 0);
        assert_eq!(waves(50, time), 1);
        assert_eq!(waves(10_000, time), 100);
        assert_eq!(waves(100_000, time), 150);
        assert_eq!(waves(100_000, Duration::ZERO), 0);
    }
}
