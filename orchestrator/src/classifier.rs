//! Node groups: which nodes one means, as the classifier of Puppet Enterprise says or as a file does
//! that has the same groups and rules.

mod file;
mod rule;
mod translate;

use std::path::PathBuf;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use rule::Rule;

use crate::service::{Service, ServiceError};

/// The longest answer of the classifier in bytes. Rules with thousands of pinned nodes have some
/// hundred KiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Who knows the node groups.
#[derive(Debug)]
pub(crate) enum Groups {
    /// A classifier, at `…/classifier-api`.
    Classifier(Service),
    /// A file. It is read each time, so that what is in it is what holds.
    File(PathBuf),
}

/// What a group means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    /// A rule that is ours to translate.
    Rule(Rule),
    /// A condition on PuppetDB's `inventory`.
    Inventory(Value),
    /// Nobody: the group has no rule of its own.
    Nobody,
}

/// Why nobody knows what a group means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    /// There is no such group.
    #[error("Unknown node group {0}")]
    Unknown(String),
    /// The classifier's groups have UUIDs.
    #[error("{0:?} is no id of a node group: the classifier's ids are UUIDs")]
    Malformed(String),
    /// PuppetDB has no query for the rule.
    #[error("the rule of node group {group} cannot be translated to a query: {reason}")]
    Untranslatable { group: String, reason: String },
    /// The file cannot be used.
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    /// The classifier gives no answer.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl Groups {
    /// What a group means. In a file, groups have names as well as ids.
    ///
    /// # Errors
    /// [`GroupError`].
    pub(crate) async fn meaning(&self, group: &str) -> Result<Meaning, GroupError> {
        match self {
            Self::Classifier(service) => classified(service, group).await,
            Self::File(path) => {
                let (path, group) = (path.clone(), group.to_owned());
                let read = tokio::task::spawn_blocking(move || file::meaning(&path, &group));
                read.await.unwrap_or_else(|_| {
                    Err(GroupError::File {
                        path: PathBuf::new(),
                        problem: "the reading task has ended".to_owned(),
                    })
                })
            }
        }
    }
}

/// Asks the classifier for the rule with those of its ancestors, and for its translation.
async fn classified(service: &Service, group: &str) -> Result<Meaning, GroupError> {
    #[derive(Deserialize)]
    struct Rules {
        rule: Option<Value>,
        rule_with_inherited: Option<Value>,
    }
    let id = Uuid::try_parse(group).map_err(|_| GroupError::Malformed(group.to_owned()))?;
    let path = format!("/v1/groups/{id}/rules");
    let asked = service.ask(&Method::GET, &path, |request| request).await;
    let answer = asked.map_err(|error| match error {
        ServiceError::Status { status: 404, .. } => GroupError::Unknown(group.to_owned()),
        error => error.into(),
    })?;
    let rules: Rules = answer.json(MAX_ANSWER).await?;
    let (Some(_), Some(rule)) = (rules.rule, rules.rule_with_inherited) else {
        return Ok(Meaning::Nobody);
    };
    let body = rule.to_string();
    let path = "/v1/rules/translate?format=inventory";
    let asked = service.ask(&Method::POST, path, |request| {
        request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body.clone())
    });
    let answer = asked.await.map_err(|error| match error {
        ServiceError::Status {
            status: 400 | 422,
            reason,
            ..
        } => GroupError::Untranslatable {
            group: group.to_owned(),
            reason,
        },
        error => error.into(),
    })?;
    Ok(Meaning::Inventory(answer.json(MAX_ANSWER).await?))
}

impl Meaning {
    /// The condition on PuppetDB's `inventory` for the nodes of `group`; nothing when it means
    /// nobody.
    ///
    /// # Errors
    /// When PuppetDB has no query for it.
    pub(crate) fn inventory(self, group: &str) -> Result<Option<Value>, GroupError> {
        match self {
            Self::Nobody => Ok(None),
            Self::Inventory(condition) => Ok(Some(condition)),
            Self::Rule(rule) => match translate::inventory(&rule) {
                Ok(condition) => Ok(Some(condition)),
                Err(error) => Err(GroupError::Untranslatable {
                    group: group.to_owned(),
                    reason: error.to_string(),
                }),
            },
        }
    }
}
