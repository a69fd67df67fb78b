//! Who may do what, as values: a grant allows an action, for tasks of some names, on nodes of some
//! names. Pure: where grants are kept is the store's business.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use pcp::uri::Certname;

use crate::task_target::{TargetId, TaskTarget};

/// What can be permitted. The words are those of the original's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// See jobs of others, their results, and which nodes are connected.
    View,
    /// Run a task.
    RunTask,
    /// Start Puppet runs.
    RunPuppet,
    /// Stop jobs of others.
    StopJob,
    /// Tell of plans, and run their steps.
    RunPlan,
    /// Run the tasks of a task target on its nodes.
    RunTarget,
    /// Make task targets, and remove them.
    EditTargets,
}

/// A text in which `*` stands for any characters: `service::*`, `web*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pattern(String);

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// What; `None` is everything, also what later versions add.
    pub(crate) action: Option<Action>,
    /// Which tasks; for [`Action::RunTarget`] the number of the task target. Looked at for these alone.
    pub(crate) tasks: Pattern,
    /// Which nodes.
    pub(crate) nodes: Vec<Pattern>,
}

/// The nodes on which somebody may do something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeFilter {
    patterns: Vec<Pattern>,
    /// Nodes of task targets, as far as they have been looked up.
    names: HashSet<Certname>,
    /// Task targets whose nodes have not been looked up.
    targets: Vec<(TargetId, TaskTarget)>,
}

/// Why a grant cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    /// There is no such action.
    #[error("{0:?} is none of {names}", names = Action::names())]
    Action(String),
    /// The pattern is empty or has characters that no name has.
    #[error("{0:?} is no pattern of names: letters, digits, '.', '-', '_', ':' and '*'")]
    Pattern(String),
}

impl Action {
    const ALL: [(Self, &'static str); 7] = [
        (Self::View, "orchestrator:view"),
        (Self::RunTask, "tasks:run"),
        (Self::RunPuppet, "puppet_agent:run"),
        (Self::StopJob, "job:stop"),
        (Self::RunPlan, "plans:run"),
        (Self::RunTarget, "task_target:run_with_constraints"),
        (Self::EditTargets, "task_target:edit"),
    ];

    /// Its words.
    pub(crate) fn text(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(action, _)| *action == self)
            .map_or("", |(_, text)| text)
    }

    fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|(_, text)| *text).collect();
        format!("*, {}", names.join(", "))
    }
}

impl FromStr for Action {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == text)
            .map(|(action, _)| *action)
            .ok_or_else(|| GrantError::Action(text.to_owned()))
    }
}

impl Pattern {
    /// The one that fits everything.
    pub(crate) fn any() -> Self {
        Self("*".to_owned())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether a name fits. Takes time proportional to the product of the lengths at worst.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // The first place is the best one: it leaves most for what follows.
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        true
    }
}

impl FromStr for Pattern {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let fits = !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_:*".contains(&b));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(GrantError::Pattern(text.to_owned()))
        }
    }
}

impl Grant {
    /// Everything.
    #[cfg(test)]
    pub(crate) fn everything() -> Self {
        Self {
            action: None,
            tasks: Pattern::any(),
            nodes: vec![Pattern::any()],
        }
    }

    /// Whether it allows `action`, on some node at least.
    pub(crate) fn allows(&self, action: Action, task: Option<&str>) -> bool {
        self.action.is_none_or(|granted| granted == action)
            && task.is_none_or(|task| self.tasks.fits(task))
    }
}

/// On one line, as it is listed.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.map_or("*", Action::text))?;
        if self.action == Some(Action::RunTarget) {
            return write!(f, " --task-target {}", self.tasks.text());
        }
        if self.tasks != Pattern::any() {
            write!(f, " --task {}", self.tasks.text())?;
        }
        if self.nodes != [Pattern::any()] {
            let nodes: Vec<_> = self.nodes.iter().map(Pattern::text).collect();
            write!(f, " --nodes {}", nodes.join(","))?;
        }
        Ok(())
    }
}

impl NodeFilter {
    /// Every node.
    pub(crate) fn all() -> Self {
        Self {
            patterns: vec![Pattern::any()],
            ..Self::default()
        }
    }

    /// The nodes of these task targets, which are not looked up yet.
    pub(crate) fn with_targets(self, targets: Vec<(TargetId, TaskTarget)>) -> Self {
        Self { targets, ..self }
    }

    /// Takes the task targets whose nodes have not been looked up.
    pub(crate) fn take_targets(&mut self) -> Vec<(TargetId, TaskTarget)> {
        std::mem::take(&mut self.targets)
    }

    /// Adds nodes that a task target has.
    pub(crate) fn add(&mut self, nodes: impl IntoIterator<Item = Certname>) {
        self.names.extend(nodes);
    }

    /// The nodes on which these grants allow an action; nothing when they allow it nowhere.
    pub(crate) fn of(grants: &[Grant], action: Action, task: Option<&str>) -> Option<Self> {
        let nodes: Vec<Pattern> = grants
            .iter()
            .filter(|grant| grant.allows(action, task))
            .flat_map(|grant| grant.nodes.iter().cloned())
            .collect();
        (!nodes.is_empty()).then(|| Self {
            patterns: nodes,
            ..Self::default()
        })
    }

    pub(crate) fn allows(&self, node: &Certname) -> bool {
        let name = node.as_str();
        self.patterns.iter().any(|pattern| pattern.fits(name)) || self.names.contains(node)
    }

    /// Takes out the nodes that are not allowed, and gives them.
    pub(crate) fn take_out(&self, nodes: &mut Vec<Certname>) -> Vec<Certname> {
        if self.patterns.contains(&Pattern::any()) {
            return Vec::new();
        }
        nodes.extract_if(.., |node| !self.allows(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (text, fitting, others) in [
            ("*", &["", "a", "a::b"][..], &[][..]),
            (
                "service::*",
                &["service::", "service::linux"],
                &["service", "aservice::x"],
            ),
            (
                "web*.example.com",
                &["web1.example.com", "web.example.com"],
                &[
                    "web1.example.com.evil",
                    "db.example.com",
                    "web1-example.com",
                ],
            ),
            ("a*b*c", &["abc", "a-b-b-c"], &["ab", "abcd", "acb"]),
            ("*b", &["b", "ab", "bb"], &["ba", ""]),
            ("web1", &["web1"], &["web11", "web", "WEB1"]),
        ] {
            for name in fitting {
                assert!(pattern(text).fits(name), "{text} {name}");
            }
            for name in others {
                assert!(!pattern(text).fits(name), "{text} {name}");
            }
        }
        for text in ["", "a b", "a\n", "é", "a/b"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    proptest! {
        /// Against the plain definition, by recursion.
        #[test]
        fn patterns_fit_as_defined(text in "[ab*]{1,6}", name in "[ab]{0,8}") {
            fn fits(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|at| fits(rest, &name[at..])),
                    Some((letter, rest)) => name.split_first()
                        .is_some_and(|(first, name)| first == letter && fits(rest, name)),
                }
            }
            prop_assert_eq!(pattern(&text).fits(&name), fits(text.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn grants_add_up_and_nothing_is_allowed_without_one() {
        let grant = |action: &str, tasks: &str, nodes: &str| Grant {
            action: Some(action.parse().unwrap()),
            tasks: pattern(tasks),
            nodes: vec![pattern(nodes)],
        };
        let grants = [
            grant("tasks:run", "service", "web*"),
            grant("tasks:run", "*", "test1"),
            grant("orchestrator:view", "*", "*"),
        ];
        let nodes = |task: &str| {
            let filter = NodeFilter::of(&grants, Action::RunTask, Some(task));
            let mut nodes: Vec<_> = ["web1", "test1", "db1"].map(|n| n.parse().unwrap()).into();
            let out = filter.map(|filter| filter.take_out(&mut nodes));
            (nodes, out)
        };
        let names = |nodes: &[&str]| -> Vec<Certname> {
            nodes.iter().map(|node| node.parse().unwrap()).collect()
        };
        assert_eq!(
            nodes("service"),
            (names(&["web1", "test1"]), Some(names(&["db1"])))
        );
        assert_eq!(
            nodes("other"),
            (names(&["test1"]), Some(names(&["web1", "db1"])))
        );
        assert_eq!(NodeFilter::of(&grants, Action::RunPuppet, None), None);
        assert_eq!(NodeFilter::of(&[], Action::View, None), None);
        let all = [Grant::everything()];
        assert_eq!(
            NodeFilter::of(&all, Action::RunPuppet, None),
            Some(NodeFilter::all())
        );
    }

    #[test]
    fn a_grant_is_shown_as_it_is_given() {
        let grant = Grant {
            action: Some(Action::RunTask),
            tasks: pattern("a::*"),
            nodes: vec![pattern("x"), pattern("y*")],
        };
        assert_eq!(grant.to_string(), "tasks:run --task a::* --nodes x,y*");
        assert_eq!(Grant::everything().to_string(), "*");
        let error = "tasks:runn".parse::<Action>().unwrap_err().to_string();
        assert!(error.contains("tasks:run,"), "{error}");
    }
}
