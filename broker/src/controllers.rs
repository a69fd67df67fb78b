//! Controllers that wait to be dialled, as the original's orchestrator does: one WebSocket to each, over
//! which it commands agents as far as `controller-allowlist` goes. While none of them is there, agents
//! are of no use here, and are to go to another broker.

use std::sync::Arc;
use std::time::Duration;

use pcp::{GoodbyeCode, v2};
use pcp_client::backoff::{Ended, Redial, STABLE};
use pcp_client::{Backoff, outward};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::authorize::{Kind, kind};
use crate::config::ControllerUri;
use crate::context::Context;
use crate::gate::{ALL_CONTROLLERS_LOST, Door};
use crate::input::Input;
use crate::websocket::dialled;

/// How many of the controllers are there.
pub(crate) type Present = watch::Sender<usize>;

/// Dials a controller, and again whenever it is lost, until the shutdown.
pub(crate) async fn dial(
    controller: ControllerUri,
    context: Arc<Context>,
    present: Arc<Present>,
    shutdown: CancellationToken,
) {
    let mut redial = Redial::new(Backoff::default(), 1);
    let mut random = fastrand::Rng::new();
    let limit = context.max_message.saturating_add(v2::OVERHEAD);
    loop {
        let identity = context.identity.get();
        let ControllerUri { address, path, uri } = &controller;
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            opened = outward::open(address, path, Arc::clone(&identity), limit) => opened,
        };
        let ended = match opened {
            Ok(outward) => {
                let since = Instant::now();
                present.send_modify(|number| *number += 1);
                // The driver closes it when the broker is being stopped.
                dialled::serve(outward, uri.clone(), identity, &context).await;
                present.send_modify(|number| *number -= 1);
                if since.elapsed() < STABLE {
                    Ended::Failed
                } else {
                    Ended::Dropped
                }
            }
            Err(error) => {
                tracing::warn!(%controller, %error, "controller not reached");
                Ended::Failed
            }
        };
        let wait = redial.next(ended, random.f64());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// Opens and shuts the door for clients as controllers come and go, until the shutdown.
pub(crate) async fn keep_door(
    context: Arc<Context>,
    mut present: watch::Receiver<usize>,
    grace: Duration,
    shutdown: CancellationToken,
) {
    let keeping = async {
        while present.wait_for(|number| *number > 0).await.is_ok() {
            tracing::info!("a controller is there; clients may come in");
            context.gate.set(Door::Open);
            if present.wait_for(|number| *number == 0).await.is_err() {
                return;
            }
            tracing::error!(
                grace = grace.as_secs(),
                "all controllers are lost; no client may come in"
            );
            context.gate.set(Door::Grace);
            let back = present.wait_for(|number| *number > 0);
            if timeout(grace, back).await.is_err() {
                tracing::error!("all controllers stay lost; agents are to go elsewhere");
                context.gate.set(Door::Shut);
                send_agents_away(&context).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = keeping => {}
    }
}

/// Ends the sessions of agents, whichever way they have come.
async fn send_agents_away(context: &Context) {
    for (session, peer) in context.peers.all() {
        if kind(peer.uri.client_type()) != Some(Kind::Agent) {
            continue;
        }
        let close = Input::Close {
            session,
            code: GoodbyeCode::Unavailable,
            reason: ALL_CONTROLLERS_LOST.to_owned(),
        };
        // Without a driver the process is about to end.
        drop(context.inputs.send(close).await);
    }
}
