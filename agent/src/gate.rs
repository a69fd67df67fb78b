//! Who may have what run on this node: the list of controllers and the policy, together, for every
//! request that runs or changes something. Every decision is logged here, with who asked for what and
//! the rule that decided, and never with a parameter.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use pcp::{Certname, Envelope};
use pxp::TransactionId;

use crate::confinement::Confinement;
use crate::metrics::counts;
use crate::modules::Process;
use crate::policy::{Grant, Policy, Question, Refusal, Verdict};

/// The gate. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gate {
    rulers: Arc<RwLock<Arc<Rulers>>>,
    confinement: Arc<Confinement>,
}

/// What is read again on a reload.
#[derive(Debug)]
struct Rulers {
    /// Those of the configuration.
    controllers: Vec<Certname>,
    policy: Policy,
}

impl Rulers {
    fn controllers(&self) -> impl Iterator<Item = &Certname> {
        self.controllers.iter().chain(self.policy.controllers())
    }
}

impl Gate {
    /// A gate with the controllers of the configuration.
    #[must_use]
    pub fn new(controllers: Vec<Certname>, policy: Policy, confinement: Confinement) -> Self {
        let rulers = Rulers {
            controllers,
            policy,
        };
        Self {
            rulers: Arc::new(RwLock::new(Arc::new(rulers))),
            confinement: Arc::new(confinement),
        }
    }

    /// Decides by these controllers and this policy from now on.
    pub fn replace(&self, controllers: Vec<Certname>, policy: Policy) {
        let mut current = self.rulers.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Rulers {
            controllers,
            policy,
        });
    }

    fn rulers(&self) -> Arc<Rulers> {
        let current = self.rulers.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// How many rules the policy has.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rulers().policy.rules()
    }

    /// Whether anybody at all is obeyed.
    #[must_use]
    pub fn has_controllers(&self) -> bool {
        self.rulers().controllers().next().is_some()
    }

    /// Whether the sender's requests are taken at all.
    ///
    /// # Errors
    /// What it is told otherwise.
    pub fn admit(&self, envelope: &Envelope) -> Result<(), String> {
        let certname = envelope.sender.certname();
        if self.rulers().controllers().any(|name| name == certname) {
            return Ok(());
        }
        let sender = &envelope.sender;
        counts().not_a_controller();
        Err(if self.has_controllers() {
            format!("{sender} is not among the controllers of this agent")
        } else {
            format!(
                "{sender} is not among the controllers of this agent, which has none: name them in \
                 its configuration, as controllers, or in a file of its policy"
            )
        })
    }

    /// What the agent runs of its own accord, as actions of this module are run where no rule says it, in
    /// so much time.
    #[must_use]
    pub fn own(&self, module: &str, process: Process, time: Duration) -> Granted {
        let mut grant = self.confinement.standing(module);
        grant.limits.time = grant.limits.time.min(time);
        Granted { process, grant }
    }

    /// What the policy says to having this run.
    #[must_use]
    pub fn judge(&self, asked: &Asked<'_>, process: Process) -> Judged {
        let wishes = process.wishes();
        let question = Question {
            requester: asked.requester.clone(),
            module: asked.module.to_owned(),
            action: asked.action.to_owned(),
            task: process.task().map(str::to_owned),
            digests: process.digests(),
            environments: process.environments(),
            run_as: match &wishes.run_as {
                Some(user) => user.as_str().to_owned(),
                None => self.confinement.user().to_owned(),
            },
            at: Timestamp::now(),
        };
        let standing = self.confinement.standing(asked.module);
        let verdict = self.rulers().policy.judge(&question, &wishes, &standing);
        log(asked.id, &question, &verdict);
        match verdict {
            Verdict::Allowed(grant) => {
                counts().allowed();
                Judged::Granted(Granted { process, grant })
            }
            Verdict::Refused(refusal) => {
                counts().refused();
                Judged::Refused(refusal)
            }
        }
    }
}

impl Granted {
    /// What is run.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// How it is run.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The transaction.
    pub id: &'a TransactionId,
    /// Who asks.
    pub requester: &'a Certname,
    /// The module.
    pub module: &'a str,
    /// Its action.
    pub action: &'a str,
}

/// What became of it.
#[derive(Debug)]
pub enum Judged {
    /// It is run.
    Granted(Granted),
    /// It is not.
    Refused(Refusal),
}

/// A process that may be run, and how. Only the gate makes such a value.
#[derive(Debug)]
pub struct Granted {
    process: Process,
    grant: Grant,
}

fn log(id: &TransactionId, question: &Question, verdict: &Verdict) {
    let digest = question.digests.last().map(ToString::to_string);
    let Question {
        requester,
        module,
        action,
        task,
        run_as,
        ..
    } = question;
    match verdict {
        Verdict::Allowed(grant) => tracing::info!(
            target: "pxp_agent::audit",
            transaction_id = %id,
            %requester,
            module,
            action,
            task,
            digest,
            run_as,
            rule = grant.rule,
            profile = crate::config::profile_name(grant.profile),
            "allowed"
        ),
        Verdict::Refused(refusal) => tracing::warn!(
            target: "pxp_agent::audit",
            transaction_id = %id,
            %requester,
            module,
            action,
            task,
            digest,
            run_as,
            rule = refusal.rule,
            "refused"
        ),
    }
}
