//! Who may say what to whom: pure, and denied unless a rule here allows it.
//!
//! Agents answer controllers and nobody else. Controllers command agents and ask for the inventory.
//! Brokers say what went wrong. What comes over a link is judged by its sender's client type as if
//! that client were connected here, but for controllers: that one is a controller, a compiler takes
//! from the primary that it has chosen to dial, and a primary never takes from a compiler.
//!
//! Whether a sender is genuine is not decided here: the certificate (on a session) and the inventory
//! (on a link) tell, and the mesh checks.

use std::collections::HashSet;

use pcp::{Certname, ClientType, Envelope, Target};
use pcp_mesh::Verdict;

/// The certnames that the configuration trusts with more than being an agent.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    controllers: HashSet<Certname>,
    brokers: HashSet<Certname>,
}

/// What a client type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `agent`: any node with a valid certificate.
    Agent,
    /// `orchestrator` or `controller`: commands agents.
    Controller,
    /// `server`: another broker.
    Broker,
}

/// How a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a client of this broker.
    Client,
    /// From a broker that dialled us.
    Below,
    /// From a primary that we have dialled.
    Above,
}

/// Why a session is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody knows what this client type may do.
    #[error("the client type is not known here")]
    ClientType,
    /// The certname is not among `controllers`.
    #[error("the certname is not one of this broker's controllers")]
    Controller,
    /// The certname is not among `brokers`.
    #[error("the certname is not one of this broker's brokers")]
    Broker,
}

/// What agents say: the answers to requests, and errors.
const ANSWERS: [&str; 5] = [
    "rpc_provisional_response",
    "rpc_blocking_response",
    "rpc_non_blocking_response",
    "rpc_error_message",
    ERROR,
];

/// What controllers say to agents: requests, and that an outcome has arrived.
const COMMANDS: [&str; 3] = [
    "rpc_blocking_request",
    "rpc_non_blocking_request",
    "rpc_outcome_acknowledgement",
];

/// What controllers say to the broker.
const QUESTIONS: [&str; 1] = ["inventory_request"];

/// What a broker says to a client of another: that its message went nowhere.
const ERROR: &str = "error_message";

impl Rules {
    /// Trusts these controllers and these brokers.
    #[must_use]
    pub fn new(controllers: &[Certname], brokers: &[Certname]) -> Self {
        Self {
            controllers: controllers.iter().cloned().collect(),
            brokers: brokers.iter().cloned().collect(),
        }
    }

    /// Whether this certname may have a session of this client type.
    ///
    /// # Errors
    /// [`Refused`] says what is missing.
    pub fn hello(&self, certname: &Certname, client_type: &ClientType) -> Result<Kind, Refused> {
        match kind(client_type).ok_or(Refused::ClientType)? {
            Kind::Controller if !self.controllers.contains(certname) => Err(Refused::Controller),
            Kind::Broker if !self.brokers.contains(certname) => Err(Refused::Broker),
            allowed => Ok(allowed),
        }
    }

    /// Whether a message may pass.
    #[must_use]
    pub fn message(&self, origin: Origin, envelope: &Envelope) -> Verdict {
        if self.allows(origin, envelope) {
            Verdict::Allowed
        } else {
            Verdict::Denied
        }
    }

    fn allows(&self, origin: Origin, envelope: &Envelope) -> bool {
        let sender = &envelope.sender;
        let target = match &envelope.target {
            Target::Broker => None,
            Target::Client(uri) => match kind(uri.client_type()) {
                Some(kind) => Some(kind),
                None => return false,
            },
        };
        let Some(name) = envelope.message_type.name() else {
            return false;
        };
        match (kind(sender.client_type()), target) {
            (Some(Kind::Agent), Some(Kind::Controller)) => ANSWERS.contains(&name),
            (Some(Kind::Controller), target) => {
                // Compilers face the nodes, and one that is taken over must not command the fleet:
                // controllers are connected to primaries, and commands come down, never up.
                let trusted = match origin {
                    Origin::Above => true,
                    Origin::Client => self.controllers.contains(sender.certname()),
                    Origin::Below => false,
                };
                trusted
                    && match target {
                        Some(Kind::Agent) => COMMANDS.contains(&name),
                        None => origin == Origin::Client && QUESTIONS.contains(&name),
                        Some(Kind::Controller | Kind::Broker) => false,
                    }
            }
            (Some(Kind::Broker), Some(Kind::Agent | Kind::Controller)) => {
                origin != Origin::Client && name == ERROR
            }
            _ => false,
        }
    }
}

/// What a client type stands for; nothing for one that we do not know.
fn kind(client_type: &ClientType) -> Option<Kind> {
    match client_type.as_str() {
        "agent" => Some(Kind::Agent),
        "orchestrator" | "controller" => Some(Kind::Controller),
        "server" => Some(Kind::Broker),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
