//! Tells of nodes as they start, write and end. A node whose output is shown ends after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future;

use orchestrator_api::{Node, NodeState};

use crate::follow::News;
use crate::output::{Outputs, Piece};
use crate::printable::printable;
use crate::render::{self, Manner};
use crate::screen::{Mood, Screen};

/// How many of many nodes are told of one by one when they do not end well and a bar counts: enough to
/// see what it is about. All are told at the end.
const TOLD: u64 = 50;
const MORE: u64 = TOLD + 1;

/// What the end of one of many nodes is worth on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// A line of its own.
    Line,
    /// One for it and all that follow.
    Remark,
    Nothing,
}

/// With a bar that counts, only what went wrong is worth a line, and not thousands of times. `told` is how
/// many that were.
fn worth(has_bar: bool, mood: Mood, told: &mut u64) -> Worth {
    if !has_bar {
        return Worth::Line;
    }
    if mood == Mood::Good {
        return Worth::Nothing;
    }
    *told += 1;
    match *told {
        ..=TOLD => Worth::Line,
        MORE => Worth::Remark,
        _ => Worth::Nothing,
    }
}

/// What has been told, and what is left to tell.
pub(crate) struct Teller {
    manner: Manner,
    ended: BTreeMap<NodeState, u64>,
    groups: render::Groups,
    running: u64,
    /// How many were told of that did not end well.
    told: u64,
    /// When output is shown while it is written.
    outputs: Option<Outputs>,
    /// Nodes that have ended, and whose output has not been shown to its end.
    held: HashMap<String, Box<Node>>,
    /// Nodes whose output has been shown to its end before they were said to have ended.
    shown: HashSet<String>,
}

impl Teller {
    pub(crate) fn new(manner: Manner, outputs: Option<Outputs>) -> Self {
        Self {
            manner,
            ended: BTreeMap::new(),
            groups: render::Groups::default(),
            running: 0,
            told: 0,
            outputs,
            held: HashMap::new(),
            shown: HashSet::new(),
        }
    }

    /// The outcomes to tell at the end.
    pub(crate) fn into_groups(self) -> render::Groups {
        self.groups
    }

    /// Whether output has to be waited for.
    pub(crate) fn is_waiting(&self) -> bool {
        self.outputs.as_ref().is_some_and(|it| !it.is_empty())
    }

    /// What is written next; for ever nothing when output is not shown. May be dropped and called
    /// again.
    pub(crate) async fn next_piece(&mut self) -> Piece {
        let next = match &mut self.outputs {
            Some(outputs) => outputs.next().await,
            None => None,
        };
        match next {
            Some(piece) => piece,
            None => future::pending().await,
        }
    }

    pub(crate) fn tell_piece(&mut self, screen: &Screen, piece: Piece) {
        match piece {
            Piece::Lines(text) => screen.output(&text),
            Piece::End { node, is_whole } => {
                if is_whole {
                    self.shown.insert(node.clone());
                }
                if let Some(node) = self.held.remove(&node) {
                    self.tell_end(screen, &node);
                    self.progress(screen);
                }
            }
        }
    }

    pub(crate) fn tell(&mut self, screen: &Screen, news: Vec<News>, running: u64) {
        self.running = running;
        for item in news {
            match item {
                News::Started(name) => {
                    if let Some(outputs) = &mut self.outputs {
                        outputs.add(&name);
                    }
                    if !self.manner.is_grouped {
                        screen.lines(&format!("Started on {} ...", printable(&name)));
                    }
                }
                News::Ended(node) if self.outputs.as_ref().is_some_and(|it| it.has(&node.name)) => {
                    self.held.insert(node.name.clone(), node);
                }
                News::Ended(node) => self.tell_end(screen, &node),
                News::Stopping => screen.lines("The job is stopping ..."),
            }
        }
        self.progress(screen);
    }

    fn progress(&self, screen: &Screen) {
        screen.progress(
            self.ended.values().sum(),
            render::counts(self.running, &self.ended),
        );
    }

    fn tell_end(&mut self, screen: &Screen, node: &Node) {
        let manner = Manner {
            is_followed: self.shown.remove(&node.name),
            ..self.manner
        };
        *self.ended.entry(node.state).or_default() += 1;
        let outcome = render::outcome(node, manner);
        let name = printable(&node.name);
        let headline = format!("{} {name}", outcome.verb);
        if self.manner.is_grouped {
            match worth(screen.has_bar(), outcome.mood(), &mut self.told) {
                Worth::Line => screen.headline(outcome.mood(), &headline, ""),
                Worth::Remark => {
                    screen.remark("Others that do not end well are listed at the end.");
                }
                Worth::Nothing => {}
            }
            self.groups.add(outcome, &name);
        } else {
            screen.headline(outcome.mood(), &headline, &outcome.body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_bar_fifty_failures_are_told_and_the_others_once() {
        let mut told = 0;
        let mut lines = |mood, nodes: usize| {
            let all: Vec<_> = (0..nodes).map(|_| worth(true, mood, &mut told)).collect();
            let count = |what| all.iter().filter(|worth| **worth == what).count();
            (count(Worth::Line), count(Worth::Remark))
        };
        assert_eq!(lines(Mood::Good, 1000), (0, 0));
        assert_eq!(lines(Mood::Bad, 50), (50, 0));
        assert_eq!(lines(Mood::Good, 1000), (0, 0));
        assert_eq!(lines(Mood::Bad, 9000), (0, 1));
    }

    #[test]
    fn without_a_bar_every_node_has_its_line() {
        let mut told = 0;
        for mood in [Mood::Good, Mood::Bad].repeat(100) {
            assert_eq!(worth(false, mood, &mut told), Worth::Line);
        }
    }
}
