//! Controllers that wait to be dialled, as the original's orchestrator does: one WebSocket to each, over
//! which it commands agents as far as `controller-allowlist` goes. While none of them is there, agents
//! are of no use here, and are to go to another broker.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pcp::{Certname, ClientType, GoodbyeCode, Uri, v2};
use pcp_client::backoff::{Ended, Redial, STABLE};
use pcp_client::{Backoff, BrokerAddress, outward};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::authorize::{Kind, kind};
use crate::driver::Input;
use crate::gate::Door;
use crate::session::Context;
use crate::websocket::{ALL_CONTROLLERS_LOST, dialled};

/// Where a controller waits to be dialled: `wss://HOST:PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerUri {
    /// Its host and port.
    pub address: BrokerAddress,
    /// Its path, with the slash.
    pub path: String,
    /// Its address in PCP: `pcp://HOST:PORT/server`.
    pub uri: Uri,
}

/// Why a text is not where a controller waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerUriError {
    /// It has another form.
    #[error("a controller is written wss://HOST:PORT/PATH")]
    Form,
    /// Host or port are wrong.
    #[error("{0}")]
    Address(pcp_client::address::AddressError),
    /// The host cannot stand in an address of PCP.
    #[error("the host of a controller is a name or an IPv4 address")]
    Host,
}

impl FromStr for ControllerUri {
    type Err = ControllerUriError;

    fn from_str(text: &str) -> Result<Self, ControllerUriError> {
        let rest = text
            .strip_prefix("wss://")
            .ok_or(ControllerUriError::Form)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let odd = |c: char| !c.is_ascii_graphic() || "?#\"<>".contains(c);
        if !authority.contains(':') || path.contains(odd) {
            return Err(ControllerUriError::Form);
        }
        let address: BrokerAddress = authority.parse().map_err(ControllerUriError::Address)?;
        let certname = Certname::parse(authority).map_err(|_| ControllerUriError::Host)?;
        Ok(Self {
            address,
            path: format!("/{path}"),
            uri: Uri::new(certname, ClientType::server()),
        })
    }
}

impl fmt::Display for ControllerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wss://{}{}", self.address, self.path)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_original_s_configuration_has() {
        let text = "wss://primary.example.com:8143/server";
        let controller: ControllerUri = text.parse().expect(text);
        assert_eq!(controller.to_string(), text);
        assert_eq!(controller.path, "/server");
        let uri = controller.uri.to_string();
        assert_eq!(uri, "pcp://primary.example.com:8143/server");
        assert!(controller.uri.is_dialled());
        let bare: ControllerUri = "wss://10.0.0.1:1".parse().expect("no path");
        assert_eq!(bare.path, "/");
    }

    #[test]
    fn refuses_what_is_no_controller() {
        for text in [
            "",
            "primary:8143",
            "ws://primary:8143/server",
            "wss://primary/server",
            "wss://primary:0/server",
            "wss://[::1]:8143/server",
            "wss://primary:8143/ser ver",
            "wss://primary:8143/server?a=b",
        ] {
            assert!(text.parse::<ControllerUri>().is_err(), "{text:?}");
        }
    }
}
