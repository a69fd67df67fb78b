//! Equal outcomes of many nodes, told once: who wants to know of ten thousand nodes wants to know
//! which of them differ.

use std::collections::HashMap;

use super::outcome::Outcome;
use crate::screen::Mood;

/// How many names of a group are written out. A group of failures is written out further.
const NAMES: usize = 5;

/// How many names of a group of failures are written out: enough to act on.
const FAILED_NAMES: usize = 50;

/// How many different outcomes are told. When there are more, the outputs are of a kind that no two
/// nodes share, and `--format json` is the way to them.
const GROUPS: usize = 50;

/// Outcomes and the nodes that had them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    nodes: HashMap<Outcome, Vec<String>>,
}

impl Groups {
    pub(crate) fn add(&mut self, outcome: Outcome, name: &str) {
        self.nodes.entry(outcome).or_default().push(name.to_owned());
    }

    /// The groups as headlines and bodies: what went wrong last, where it is read first.
    pub(crate) fn render(self) -> Vec<(Mood, String, String)> {
        let mut groups: Vec<_> = self.nodes.into_iter().collect();
        let rank = |outcome: &Outcome| match outcome.mood() {
            Mood::Good => 0,
            Mood::Odd => 1,
            Mood::Bad => 2,
        };
        for (_, names) in &mut groups {
            names.sort();
        }
        groups.sort_by(|(a, a_names), (b, b_names)| {
            (rank(b), b_names.len(), a_names).cmp(&(rank(a), a_names.len(), b_names))
        });
        let left_out = groups.len().saturating_sub(GROUPS);
        groups.truncate(GROUPS);
        let mut told: Vec<_> = groups
            .iter()
            .rev()
            .map(|(o, names)| tell(o, names))
            .collect();
        if left_out > 0 {
            let headline = format!("{left_out} more different outcomes are not shown.");
            let body = "  Use --format json to see them all.\n".to_owned();
            told.insert(0, (Mood::Odd, headline, body));
        }
        told
    }
}

fn tell(outcome: &Outcome, names: &[String]) -> (Mood, String, String) {
    let shown = if outcome.mood() == Mood::Bad {
        FAILED_NAMES
    } else {
        NAMES
    };
    let mut list: Vec<&str> = names.iter().take(shown).map(String::as_str).collect();
    let more = names.len().saturating_sub(shown);
    let rest = format!("and {more} more");
    if more > 0 {
        list.push(&rest);
    }
    let headline = match names {
        [name] => format!("{} {name}", outcome.verb),
        _ => format!("{}s ({}): {}", outcome.verb, names.len(), list.join(", ")),
    };
    (outcome.mood(), headline, outcome.body.clone())
}

#[cfg(test)]
mod tests {
    use orchestrator_api::NodeState;
    use serde_json::json;

    use super::super::outcome::{Manner, outcome, tests::node};
    use super::*;

    #[test]
    fn equal_outcomes_are_told_once_and_failures_last() {
        let mut groups = Groups::default();
        for number in 0..30 {
            let name = format!("web{number:02}");
            let result = json!({"status": "ok"});
            groups.add(
                outcome(
                    &node(&name, NodeState::Finished, &result, None),
                    Manner::default(),
                ),
                &name,
            );
        }
        for name in ["db2", "db1"] {
            let result = json!({"_error": {"msg": "no disk"}});
            groups.add(
                outcome(
                    &node(name, NodeState::Failed, &result, None),
                    Manner::default(),
                ),
                name,
            );
        }
        let text: String = groups
            .render()
            .into_iter()
            .map(|(_, head, body)| format!("{head}\n{body}"))
            .collect();
        assert_eq!(
            text,
            "Finished on nodes (30): web00, web01, web02, web03, web04, and 25 more\n  status : ok\n\
             Failed on nodes (2): db1, db2\n  Error: no disk\n"
        );
    }

    #[test]
    fn outputs_that_all_differ_are_not_all_told() {
        let mut groups = Groups::default();
        for number in 0..100 {
            let name = format!("n{number}");
            let result = json!({"number": number});
            groups.add(
                outcome(
                    &node(&name, NodeState::Finished, &result, None),
                    Manner::default(),
                ),
                &name,
            );
        }
        let told = groups.render();
        assert_eq!(told.len(), GROUPS + 1);
        assert!(told[0].1.starts_with("50 more"));
    }
}
