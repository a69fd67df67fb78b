//! Who is connected now, and who has ever been.

use std::collections::{HashMap, HashSet};

use pcp::uri::{Certname, ClientType, Uri};

use super::Now;
use crate::store::SeenNode;

/// Every node that has ever been connected.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: HashMap<Certname, Presence>,
    connected: usize,
}

/// A node, as far as brokers have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) connected: bool,
    /// When it came or went, in milliseconds since 1970.
    pub(crate) changed: i64,
    /// The same on the monotonic clock; before the start counts as the start.
    pub(crate) since: u64,
}

impl Fleet {
    /// What was known when the orchestrator last ran. Nobody counts as connected until a broker
    /// says so.
    pub(crate) fn restore(&mut self, now: Now, nodes: Vec<SeenNode>) {
        for node in nodes {
            self.nodes.entry(node.certname).or_insert(Presence {
                connected: false,
                changed: node.changed,
                since: now.mono,
            });
        }
    }

    /// Takes a whole inventory. Gives the nodes that came and those that went.
    pub(crate) fn replace(&mut self, now: Now, uris: &[Uri]) -> (Vec<Certname>, Vec<Certname>) {
        let mut gone: HashSet<Certname> = self
            .nodes
            .iter()
            .filter(|(_, presence)| presence.connected)
            .map(|(certname, _)| certname.clone())
            .collect();
        let mut came = vec![];
        for certname in agents(uris) {
            gone.remove(certname);
            if self.set(now, certname, true) {
                came.push(certname.clone());
            }
        }
        let gone: Vec<_> = gone.into_iter().collect();
        for certname in &gone {
            self.set(now, certname, false);
        }
        (came, gone)
    }

    /// One client came or went. Gives whether that is news about a node.
    pub(crate) fn change(&mut self, now: Now, uri: &Uri, connected: bool) -> bool {
        uri.client_type() == &ClientType::agent() && self.set(now, uri.certname(), connected)
    }

    /// What is known of a node; nothing when it has never been connected.
    pub(crate) fn presence(&self, certname: &Certname) -> Option<Presence> {
        self.nodes.get(certname).copied()
    }

    pub(crate) fn is_connected(&self, certname: &Certname) -> bool {
        self.presence(certname).is_some_and(|node| node.connected)
    }

    /// Every node and its presence, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Certname, &Presence)> {
        self.nodes.iter()
    }

    /// How many nodes are connected.
    pub(crate) fn connected(&self) -> usize {
        self.connected
    }

    fn set(&mut self, now: Now, certname: &Certname, connected: bool) -> bool {
        let new = Presence {
            connected,
            changed: now.wall,
            since: now.mono,
        };
        let before = match self.nodes.get_mut(certname) {
            Some(presence) if presence.connected == connected => return false,
            Some(presence) => std::mem::replace(presence, new).connected,
            // Going without having come is news about nobody.
            None if !connected => return false,
            None => {
                self.nodes.insert(certname.clone(), new);
                false
            }
        };
        self.connected = self.connected - usize::from(before) + usize::from(connected);
        true
    }
}

fn agents(uris: &[Uri]) -> impl Iterator<Item = &Certname> {
    uris.iter()
        .filter(|uri| uri.client_type() == &ClientType::agent())
        .map(Uri::certname)
}
