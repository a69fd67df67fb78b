//! Who is connected now, and who has ever been.

use std::collections::{HashMap, HashSet};

use pcp::body::{InventoryChange, InventoryResponse};
use pcp::uri::{Certname, ClientType};

use super::Now;
use crate::store::SeenNode;

/// Every node that has ever been connected.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: HashMap<Certname, Presence>,
    connected: usize,
    /// Each broker's name once, however many nodes are there.
    brokers: HashSet<Certname>,
}

/// A node, as far as brokers have told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presence {
    /// The broker that it is connected to; nothing when it is not, or nobody has said.
    pub(crate) broker: Option<Certname>,
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
                broker: None,
                connected: false,
                changed: node.changed,
                since: now.mono,
            });
        }
    }

    /// Takes a whole inventory. Gives the nodes that came and those that went.
    pub(crate) fn replace(
        &mut self,
        now: Now,
        response: &InventoryResponse,
    ) -> (Vec<Certname>, Vec<Certname>) {
        // Brokers that are no more are forgotten.
        self.brokers.clear();
        let mut gone: HashSet<Certname> = self
            .nodes
            .iter()
            .filter(|(_, presence)| presence.connected)
            .map(|(certname, _)| certname.clone())
            .collect();
        let mut came = vec![];
        for (index, uri) in response.uris.iter().enumerate() {
            if uri.client_type() != &ClientType::agent() {
                continue;
            }
            let certname = uri.certname();
            gone.remove(certname);
            if self.set(now, certname, true) {
                came.push(certname.clone());
            }
            let broker = response
                .places
                .as_ref()
                .and_then(|places| places.broker(index));
            self.place(certname, broker);
        }
        let gone: Vec<_> = gone.into_iter().collect();
        for certname in &gone {
            self.set(now, certname, false);
        }
        (came, gone)
    }

    /// A node came, went, or is at another broker. Gives whether it is news that it is there, or is not.
    pub(crate) fn change(&mut self, now: Now, change: &InventoryChange) -> bool {
        let certname = change.client.certname();
        let is_news = match change.change {
            InventoryChange::MOVED => false,
            change => self.set(now, certname, change > 0),
        };
        self.place(certname, change.broker.as_ref());
        is_news
    }

    /// What is known of a node; nothing when it has never been connected.
    pub(crate) fn presence(&self, certname: &Certname) -> Option<Presence> {
        self.nodes.get(certname).cloned()
    }

    pub(crate) fn is_connected(&self, certname: &Certname) -> bool {
        self.nodes.get(certname).is_some_and(|node| node.connected)
    }

    /// Every node and its presence, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Certname, &Presence)> {
        self.nodes.iter()
    }

    /// How many nodes are connected.
    pub(crate) fn connected(&self) -> usize {
        self.connected
    }

    /// The node is at this broker.
    fn place(&mut self, certname: &Certname, broker: Option<&Certname>) {
        let Some(presence) = self.nodes.get_mut(certname).filter(|node| node.connected) else {
            return;
        };
        if presence.broker.as_ref() == broker {
            return;
        }
        presence.broker = broker.map(|broker| {
            if let Some(known) = self.brokers.get(broker) {
                return known.clone();
            }
            self.brokers.insert(broker.clone());
            broker.clone()
        });
    }

    fn set(&mut self, now: Now, certname: &Certname, connected: bool) -> bool {
        let new = Presence {
            broker: None,
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
