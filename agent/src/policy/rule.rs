//! A rule, and which requests it is about.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use pcp::Digest;
use pxp::UserName;
use sandbox::{Limits, Profile};

use super::hours::Hours;
use super::pattern::Pattern;
use super::{Grant, Question};

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Refuse,
}

/// A rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) decision: Decision,
    /// All of them must hold.
    pub(super) when: Vec<Condition>,
    /// None of them may.
    pub(super) unless: Vec<Condition>,
    pub(super) reason: Option<String>,
    pub(super) effects: Effects,
}

/// What a rule that allows changes in how a request is run.
#[derive(Debug, Clone, Default)]
pub(super) struct Effects {
    pub(super) profile: Option<Profile>,
    pub(super) run_as: Option<UserName>,
    pub(super) time: Option<Duration>,
    pub(super) memory: Option<u64>,
    pub(super) processes: Option<u32>,
    pub(super) cpu_percent: Option<u32>,
    pub(super) output: Option<u64>,
}

/// Something that can hold for a request.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    Tasks(Vec<Pattern>),
    Modules(Vec<Pattern>),
    Actions(Vec<Pattern>),
    Requesters(Vec<Pattern>),
    Environments(Vec<Pattern>),
    RunAs(Vec<Pattern>),
    Digests(BTreeSet<Digest>),
    Hours(Vec<Hours>),
}

/// How many of a request's files, or of their environments, must be named. A request has many files,
/// each of which is code. Where the rule then lets more happen, all must be; where it lets less
/// happen, one is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Every,
    Any,
}

/// Why a rule is not about a request: for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle(pub(super) String);

impl Rule {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn decision(&self) -> Decision {
        self.decision
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Why the rule is not about this request; nothing when it is.
    pub(super) fn obstacle(&self, question: &Question, zone: &TimeZone) -> Option<Obstacle> {
        let (when, unless) = match self.decision {
            Decision::Allow => (Of::Every, Of::Any),
            Decision::Refuse => (Of::Any, Of::Every),
        };
        for condition in &self.when {
            if !condition.holds(question, when, zone) {
                return Some(Obstacle(condition.told(question, when, zone)));
            }
        }
        for condition in &self.unless {
            if condition.holds(question, unless, zone) {
                return Some(Obstacle(format!("excepted: {condition}")));
            }
        }
        None
    }

    /// How a request is run that this rule allows.
    pub(super) fn grant(&self, standing: &Grant) -> Grant {
        let effects = &self.effects;
        let limits = &standing.limits;
        Grant {
            rule: self.name.clone(),
            profile: effects.profile.unwrap_or(standing.profile),
            run_as: effects.run_as.clone().or_else(|| standing.run_as.clone()),
            limits: Limits {
                time: effects.time.unwrap_or(limits.time),
                memory: effects.memory.or(limits.memory),
                processes: effects.processes.or(limits.processes),
                cpu_percent: effects.cpu_percent.or(limits.cpu_percent),
                output: effects.output.unwrap_or(limits.output),
                ..limits.clone()
            },
        }
    }
}

impl Condition {
    fn holds(&self, question: &Question, of: Of, zone: &TimeZone) -> bool {
        match self {
            Self::Tasks(patterns) => {
                let task = question.task.as_deref();
                task.is_some_and(|task| fits(patterns, task))
            }
            Self::Modules(patterns) => fits(patterns, &question.module),
            Self::Actions(patterns) => fits(patterns, &question.action),
            Self::Requesters(patterns) => fits(patterns, question.requester.as_str()),
            Self::RunAs(patterns) => fits(patterns, &question.run_as),
            Self::Environments(patterns) => of.holds(&question.environments, |environment| {
                fits(patterns, environment)
            }),
            Self::Digests(digests) => {
                of.holds(&question.digests, |digest| digests.contains(digest))
            }
            Self::Hours(hours) => {
                let moment = question.at.to_zoned(zone.clone());
                hours.iter().any(|hours| hours.contain(&moment))
            }
        }
    }

    /// Why it does not hold.
    fn told(&self, question: &Question, of: Of, zone: &TimeZone) -> String {
        let found = match self {
            Self::Tasks(_) => question.task.as_deref().map_or_else(
                || "it is no task".to_owned(),
                |task| quoted("the task", task),
            ),
            Self::Modules(_) => quoted("the module", &question.module),
            Self::Actions(_) => quoted("the action", &question.action),
            Self::Requesters(_) => quoted("the requester", question.requester.as_str()),
            Self::RunAs(_) => quoted("the user", &question.run_as),
            Self::Environments(_) if question.environments.is_empty() => {
                "the request names no environment".to_owned()
            }
            Self::Environments(_) => quoted("the environment", &question.environments.join(", ")),
            Self::Digests(_) if question.digests.is_empty() => "it has no files".to_owned(),
            Self::Digests(digests) => {
                let other = question.digests.iter().find(|d| !digests.contains(d));
                match (of, other) {
                    (Of::Every, Some(other)) => format!("a file is {other}"),
                    _ => "none of its files is named".to_owned(),
                }
            }
            Self::Hours(_) => {
                let moment = question.at.to_zoned(zone.clone());
                format!("it is {}", moment.strftime("%a %H:%M %Z"))
            }
        };
        format!("{found}, not {self}")
    }
}

impl Of {
    /// Nothing at all never holds: there is nothing to go by.
    fn holds<T>(self, items: &[T], mut holds: impl FnMut(&T) -> bool) -> bool {
        match self {
            Self::Every => !items.is_empty() && items.iter().all(holds),
            Self::Any => items.iter().any(&mut holds),
        }
    }
}

fn fits(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

fn quoted(what: &str, name: &str) -> String {
    format!("{what} is {name:?}")
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tasks(patterns) => list(f, "tasks", patterns),
            Self::Modules(patterns) => list(f, "modules", patterns),
            Self::Actions(patterns) => list(f, "actions", patterns),
            Self::Requesters(patterns) => list(f, "requesters", patterns),
            Self::Environments(patterns) => list(f, "environments", patterns),
            Self::RunAs(patterns) => list(f, "run-as", patterns),
            Self::Digests(digests) => write!(f, "digests [{} of them]", digests.len()),
            Self::Hours(hours) => list(f, "hours", hours),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, key: &str, items: &[T]) -> fmt::Result {
    let items: Vec<_> = items
        .iter()
        .map(|item| format!("{:?}", item.to_string()))
        .collect();
    write!(f, "{key} [{}]", items.join(", "))
}
