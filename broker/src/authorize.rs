//! Who may say what to whom: pure, and denied unless a rule here allows it.
//!
//! Agents answer controllers and nobody else. Controllers command agents and ask for the inventory.
//! Brokers say what went wrong. What comes over a link is judged by its sender's client type as if
//! that client were connected here, but for controllers: that one is a controller, a compiler takes
//! from the primary that it has chosen to dial, and a primary never takes from a compiler. What comes
//! from another primary is judged as if its sender were connected here.
//!
//! Whether a sender is genuine is not decided here: the certificate (on a session) and the inventory
//! (on a link) tell, and the mesh checks.

pub mod rules;

use std::collections::HashSet;

use pcp::{Certname, ClientType, Envelope, Target, Uri};
use pcp_mesh::Verdict;

use rules::{Decision, RuleSet};

/// The certnames that the configuration trusts with more than being an agent.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    controllers: HashSet<Certname>,
    brokers: HashSet<Certname>,
    primaries: HashSet<Certname>,
    /// What controllers may say that we dial.
    dialled: HashSet<String>,
    /// An operator's own rules, which narrow these.
    own: Option<RuleSet>,
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
    /// On a compiler: from a primary that it has dialled.
    Above,
    /// On a primary: from another primary.
    Beside,
    /// From a controller that we have dialled.
    Dialled,
}

impl Origin {
    /// Whether a client sent it, rather than another broker.
    pub(crate) fn is_client(self) -> bool {
        matches!(self, Self::Client | Self::Dialled)
    }
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
    /// The certname is neither among `brokers` nor among `primary-certnames`.
    #[error("the certname is not one of this broker's brokers")]
    Broker,
    /// No rule of the operator's lets it connect.
    #[error("no rule of this broker lets the certname connect")]
    Rule,
}

/// Why a message may pass, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'a> {
    /// It may: this kind of client says that to that kind of target, and there are no own rules.
    Structure,
    /// It may, by this rule of the operator's.
    Rule(&'a str),
    /// It may not: this kind of client never says that to that kind of target.
    Forbidden,
    /// It may not, by this rule of the operator's.
    DeniedBy(&'a str),
    /// It may not: the operator has rules, and none fits.
    NoRule,
}

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Structure => f.write_str("allowed: this kind of client says that to that target"),
            Self::Rule(rule) => write!(f, "allowed by the rule {rule:?}"),
            Self::Forbidden => f.write_str(
                "denied: this kind of client never says that to that kind of target, or is not \
                 among `controllers`",
            ),
            Self::DeniedBy(rule) => write!(f, "denied by the rule {rule:?}"),
            Self::NoRule => f.write_str("denied: there are rules, and none of them fits"),
        }
    }
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
            primaries: HashSet::new(),
            dialled: HashSet::new(),
            own: None,
        }
    }

    /// The same, for a primary that has these others beside it.
    #[must_use]
    pub fn beside(self, primaries: &[Certname]) -> Self {
        let primaries = primaries.iter().cloned().collect();
        Self { primaries, ..self }
    }

    /// The same, where controllers that we dial may say this: message types in full.
    #[must_use]
    pub fn dialling(self, allowed: &[String]) -> Self {
        let dialled = allowed.iter().cloned().collect();
        Self { dialled, ..self }
    }

    /// Whether this certname is another primary's, whose controllers are as good as ours.
    #[must_use]
    pub fn is_primary(&self, certname: &Certname) -> bool {
        self.primaries.contains(certname)
    }

    /// The same, narrowed by an operator's own rules.
    #[must_use]
    pub fn narrowed_by(self, own: Option<RuleSet>) -> Self {
        Self { own, ..self }
    }

    /// What a configuration says.
    #[must_use]
    pub fn of(config: &crate::config::Config) -> Self {
        Self::new(&config.controllers, &config.brokers)
            .beside(&config.primary_certnames)
            .dialling(&config.controller_allowlist)
            .narrowed_by(config.rules.clone())
    }

    /// Whether this certname may have a session of this client type.
    ///
    /// # Errors
    /// [`Refused`] says what is missing.
    pub fn hello(&self, certname: &Certname, client_type: &ClientType) -> Result<Kind, Refused> {
        let kind = kind(client_type).ok_or(Refused::ClientType)?;
        let client = Uri::new(certname.clone(), client_type.clone());
        match kind {
            Kind::Controller if !self.is_controller(&client) => Err(Refused::Controller),
            Kind::Broker if !self.brokers.contains(certname) && !self.is_primary(certname) => {
                Err(Refused::Broker)
            }
            // Brokers are let in by the list of them alone.
            Kind::Broker => Ok(kind),
            Kind::Agent | Kind::Controller => match &self.own {
                Some(own) if !own.lets_connect(&client) => Err(Refused::Rule),
                _ => Ok(kind),
            },
        }
    }

    fn is_controller(&self, client: &Uri) -> bool {
        let own = self.own.as_ref();
        self.controllers.contains(client.certname())
            || own.is_some_and(|own| own.make_controller(client))
    }

    /// Whether a message may pass.
    #[must_use]
    pub fn message(&self, origin: Origin, envelope: &Envelope) -> Verdict {
        match self.explain(origin, envelope) {
            Reason::Structure | Reason::Rule(_) => Verdict::Allowed,
            Reason::Forbidden | Reason::DeniedBy(_) | Reason::NoRule => Verdict::Denied,
        }
    }

    /// Why a message may pass, or not.
    #[must_use]
    pub fn explain(&self, origin: Origin, envelope: &Envelope) -> Reason<'_> {
        if origin == Origin::Dialled {
            // As in the original, no rule but the list of message types is asked.
            let allowed = self.dialled.contains(envelope.message_type.as_str());
            return if allowed {
                Reason::Structure
            } else {
                Reason::Forbidden
            };
        }
        if !self.allows(origin, envelope) {
            return Reason::Forbidden;
        }
        match &self.own {
            // What brokers tell of messages that went nowhere is no operator's business.
            Some(own) if !envelope.sender.is_broker() => match own.message(envelope) {
                Decision::Allowed(rule) => Reason::Rule(rule),
                Decision::Denied(rule) => Reason::DeniedBy(rule),
                Decision::NoRule => Reason::NoRule,
            },
            _ => Reason::Structure,
        }
    }

    fn allows(&self, origin: Origin, envelope: &Envelope) -> bool {
        let sender = &envelope.sender;
        let target = match &envelope.target {
            Target::Broker => None,
            Target::Client(uri) => match kind_of(uri) {
                Some(kind) => Some(kind),
                None => return false,
            },
        };
        let Some(name) = envelope.message_type.name() else {
            return false;
        };
        match (kind_of(sender), target) {
            (Some(Kind::Agent), Some(Kind::Controller)) => ANSWERS.contains(&name),
            (Some(Kind::Controller), target) => {
                // Compilers face the nodes, and one that is taken over must not command the fleet:
                // controllers are connected to primaries, and commands come down, never up.
                let trusted = match origin {
                    Origin::Above => true,
                    Origin::Client | Origin::Beside => self.is_controller(sender),
                    Origin::Below | Origin::Dialled => false,
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

/// What an address stands for: a controller that brokers dial has a broker's client type.
fn kind_of(uri: &Uri) -> Option<Kind> {
    if uri.is_dialled() {
        Some(Kind::Controller)
    } else {
        kind(uri.client_type())
    }
}

/// What a client type stands for; nothing for one that we do not know.
pub(crate) fn kind(client_type: &ClientType) -> Option<Kind> {
    match client_type.as_str() {
        "agent" => Some(Kind::Agent),
        "orchestrator" | "controller" => Some(Kind::Controller),
        "server" => Some(Kind::Broker),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
