//! What may be written in a file of the policy: every key is optional here.

use std::fmt;

use daemon::config::{Lasting, Size};
use sandbox::Profile;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::hours::Hours;
use super::pattern::Pattern;
use crate::config::Percent;

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct File {
    /// More certnames whose requests are taken.
    pub(super) controllers: Option<Vec<String>>,
    /// What becomes of a request that no rule is about.
    pub(super) default: Option<Verdict>,
    /// The time zone of all hours: `Europe/Berlin`, `UTC`, `local`.
    pub(super) zone: Option<String>,
    /// Rules by name, in their order.
    pub(super) rules: Option<Rules>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// It is taken.
    Allow,
    /// It is not.
    Refuse,
}

/// A rule.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Rule {
    /// Which requests it is about: those for which all of this holds.
    pub(super) when: Option<Conditions>,
    /// Which of them it is not about after all: those for which any of this holds.
    pub(super) unless: Option<Conditions>,
    /// What becomes of them.
    pub(super) then: Option<Verdict>,
    /// What a refused requester is told.
    pub(super) reason: Option<String>,
    /// How far they are kept from the host, at least.
    pub(super) sandbox: Option<Profile>,
    /// The user that they run as.
    pub(super) run_as: Option<String>,
    /// What they may take.
    pub(super) limits: Option<Limits>,
}

/// Conditions. Of a list one entry is enough.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Conditions {
    pub(super) tasks: Option<Vec<Pattern>>,
    pub(super) modules: Option<Vec<Pattern>>,
    pub(super) actions: Option<Vec<Pattern>>,
    pub(super) requesters: Option<Vec<Pattern>>,
    pub(super) environments: Option<Vec<Pattern>>,
    pub(super) run_as: Option<Vec<Pattern>>,
    pub(super) digests: Option<Vec<String>>,
    pub(super) hours: Option<Vec<Hours>>,
}

/// Limits.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Limits {
    pub(super) time: Option<Lasting>,
    pub(super) memory: Option<Size>,
    pub(super) processes: Option<u32>,
    pub(super) cpu: Option<Percent>,
    pub(super) output: Option<Size>,
}

/// Rules in the order in which they are written, which decides.
#[derive(Debug, Default)]
pub(super) struct Rules(pub(super) Vec<(String, Rule)>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Rules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section of rules, each with its name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rules, A::Error> {
                let mut rules = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    rules.push(entry);
                }
                Ok(Rules(rules))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}
