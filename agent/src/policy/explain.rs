//! What a policy would do, and why: for `pxp-agent policy test`.

use std::fmt;

use daemon::config::{Lasting, Size};
use pxp::Wishes;
use serde_json::{Value, json};

use super::rule::Decision;
use super::{DEFAULT, Grant, Policy, Question, Verdict};
use crate::config::Percent;
use crate::config::profile_name;

/// The verdict about a request, and what every rule before the deciding one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The rule that decides.
    pub rule: String,
    /// The rules before it, and why they are not about this request.
    pub passed: Vec<(String, String)>,
}

impl Policy {
    /// Decides as [`Policy::judge`] does, and tells why.
    #[must_use]
    pub fn explain(&self, question: &Question, wishes: &Wishes, standing: &Grant) -> Explanation {
        let mut passed = Vec::new();
        let mut rule = DEFAULT;
        for candidate in &self.rules {
            match candidate.obstacle(question, &self.zone) {
                None => {
                    rule = candidate.name();
                    break;
                }
                Some(obstacle) => passed.push((candidate.name().to_owned(), obstacle.0)),
            }
        }
        Explanation {
            verdict: self.judge(question, wishes, standing),
            rule: rule.to_owned(),
            passed,
        }
    }

    /// What becomes of requests that no rule is about.
    #[must_use]
    pub fn allows_by_default(&self) -> bool {
        self.default == Decision::Allow
    }
}

impl Explanation {
    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let passed: Vec<_> = self
            .passed
            .iter()
            .map(|(rule, why)| json!({"rule": rule, "why": why}))
            .collect();
        match &self.verdict {
            Verdict::Allowed(grant) => {
                let limits = &grant.limits;
                json!({
                    "verdict": "allow",
                    "rule": self.rule,
                    "profile": profile_name(grant.profile),
                    "run_as": grant.run_as.as_ref().map(|user| user.as_str()),
                    "limits": {
                        "time_seconds": limits.time.as_secs(),
                        "output_bytes": limits.output,
                        "memory_bytes": limits.memory,
                        "processes": limits.processes,
                        "cpu_percent": limits.cpu_percent,
                    },
                    "passed": passed,
                })
            }
            Verdict::Refused(refusal) => json!({
                "verdict": "refuse",
                "rule": self.rule,
                "reason": refusal.reason,
                "passed": passed,
            }),
        }
    }
}

/// For people.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Allowed(grant) => {
                let limits = &grant.limits;
                writeln!(f, "allowed by {}", self.rule)?;
                writeln!(f, "  profile  {}", profile_name(grant.profile))?;
                let user = grant
                    .run_as
                    .as_ref()
                    .map_or("the agent's own", |u| u.as_str());
                writeln!(f, "  user     {user}")?;
                write!(f, "  limits   time {}", Lasting(limits.time))?;
                write!(f, ", output {}", Size(limits.output))?;
                if let Some(memory) = limits.memory {
                    write!(f, ", memory {}", Size(memory))?;
                }
                if let Some(processes) = limits.processes {
                    write!(f, ", processes {processes}")?;
                }
                if let Some(cpu) = limits.cpu_percent {
                    write!(f, ", cpu {}", Percent(cpu))?;
                }
                writeln!(f)?;
            }
            Verdict::Refused(refusal) => {
                writeln!(f, "refused by {}", self.rule)?;
                writeln!(f, "  reason   {}", refusal.reason)?;
            }
        }
        for (rule, why) in &self.passed {
            writeln!(f, "  not {rule}: {why}")?;
        }
        Ok(())
    }
}
