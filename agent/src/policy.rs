//! What the owner of this node allows and refuses, whatever the centre asks: the files of `policy.d`.
//!
//! Rules are read in the order of the files' names and of their places in them; the first one that is
//! about a request decides. A rule that allows says how the request is run, too. Evaluation is pure:
//! the request and the time come in, a verdict that names its rule comes out, and [`explain`] tells
//! why the other rules were not it.

pub mod explain;
mod file;
mod hours;
mod load;
mod pattern;
mod rule;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pcp::{Certname, Digest};
use pxp::{UserName, Wishes};
use sandbox::{Limits, Profile};

pub use load::PolicyError;
use rule::{Decision, Rule};

/// What decides where no rule does.
const DEFAULT: &str = "default";

/// The policy of this node.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Decision,
    /// More certnames whose requests are taken.
    controllers: Vec<Certname>,
    zone: TimeZone,
}

/// A request, as far as rules can be about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub requester: Certname,
    /// The module.
    pub module: String,
    /// Its action.
    pub action: String,
    /// The name of the task, for `task run`.
    pub task: Option<String>,
    /// The digests of all files that are run or given to what runs.
    pub digests: Vec<Digest>,
    /// The environments that the files and the action are of, as the requester says.
    pub environments: Vec<String>,
    /// The user to run as: the one that is asked for, or the agent's own.
    pub run_as: String,
    /// Now.
    pub at: Timestamp,
}

/// How a request is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The rule that allows it, for whoever reads the log or the result.
    pub rule: String,
    /// How far it is kept from the host.
    pub profile: Profile,
    /// What it may take.
    pub limits: Limits,
    /// The user that it runs as; the agent's own, if nothing.
    pub run_as: Option<UserName>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is run so.
    Allowed(Grant),
    /// It is not run.
    Refused(Refusal),
}

/// Why a request is refused: for its requester.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by the rule {rule:?} of this node's policy: {reason}")]
pub struct Refusal {
    /// The rule.
    pub rule: String,
    /// Why, and what to do.
    pub reason: String,
}

/// What is told when the rule tells nothing.
const NO_REASON: &str =
    "whoever administers the node can say why, and `pxp-agent policy test` there shows it";

impl Policy {
    /// The policy of a node without files: what controllers ask is allowed.
    #[must_use]
    pub fn permissive() -> Self {
        Self {
            rules: Vec::new(),
            default: Decision::Allow,
            controllers: Vec::new(),
            zone: TimeZone::UTC,
        }
    }

    /// Certnames whose requests are taken, besides those of the configuration.
    #[must_use]
    pub fn controllers(&self) -> &[Certname] {
        &self.controllers
    }

    /// How many rules there are.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Decides. `standing` is how a request is run of which no rule says it.
    #[must_use]
    pub fn judge(&self, question: &Question, wishes: &Wishes, standing: &Grant) -> Verdict {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.obstacle(question, &self.zone).is_none());
        let grant = match rule {
            Some(rule) => match rule.decision() {
                Decision::Allow => rule.grant(standing),
                Decision::Refuse => {
                    return Verdict::Refused(Refusal {
                        rule: rule.name().to_owned(),
                        reason: rule.reason().unwrap_or(NO_REASON).to_owned(),
                    });
                }
            },
            None => match self.default {
                Decision::Allow => Grant {
                    rule: DEFAULT.to_owned(),
                    ..standing.clone()
                },
                Decision::Refuse => {
                    return Verdict::Refused(Refusal {
                        rule: DEFAULT.to_owned(),
                        reason: format!("no rule allows it; {NO_REASON}"),
                    });
                }
            },
        };
        match grant.tightened(wishes) {
            Ok(grant) => Verdict::Allowed(grant),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }
}

impl Grant {
    /// The same with what the requester wishes. A wish makes things stricter, or does nothing; one
    /// for another user than the rule's is refused, for it would be left out in silence.
    fn tightened(mut self, wishes: &Wishes) -> Result<Self, Refusal> {
        if let Some(seconds) = wishes.time_limit.filter(|seconds| *seconds > 0) {
            let wished = std::time::Duration::from_secs(seconds);
            self.limits.time = self.limits.time.min(wished);
        }
        if let Some(wished) = wishes.profile {
            self.profile = self.profile.max(match wished {
                pxp::Profile::Host => Profile::Host,
                pxp::Profile::Standard => Profile::Standard,
                pxp::Profile::Confined => Profile::Confined,
            });
        }
        match (&self.run_as, &wishes.run_as) {
            (_, None) => {}
            (None, Some(wished)) => self.run_as = Some(wished.clone()),
            (Some(forced), Some(wished)) if forced == wished => {}
            (Some(forced), Some(wished)) => {
                let reason = format!(
                    "it is run as {:?}, and the request asks for {:?}; leave run_as out",
                    forced.as_str(),
                    wished.as_str()
                );
                return Err(Refusal {
                    rule: self.rule,
                    reason,
                });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
