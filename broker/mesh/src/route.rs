//! Where a message goes next.

use std::collections::{HashMap, VecDeque};

use pcp::{ErrorKind, Uri};

use crate::inventory::{Inventory, Nearness};
use crate::{Role, SessionId};

/// How many senders a compiler remembers the way to. Only controllers and other brokers send down,
/// and a site has a handful of them.
const MAX_WAYS_BACK: usize = 1024;

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This broker itself, or a client of it.
    Here,
    /// A link of a compiler to its primary.
    Above(SessionId),
    /// Another primary.
    Beside(SessionId),
    /// A compiler of ours.
    Below(SessionId),
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Hand it to this client.
    Client(SessionId),
    /// Hand it to the broker on this link.
    Link(SessionId),
    /// Keep it until a primary is there.
    Wait,
    /// Tell the sender.
    Refuse(ErrorKind),
}

/// A compiler's ways up.
#[derive(Debug, Default)]
pub(crate) struct Uplinks {
    /// In the order in which they came up: traffic stays where it is while that link lives.
    links: Vec<SessionId>,
    /// Over which uplink each sender's messages come, so that answers go back the same way even
    /// while the primaries do not see each other.
    ways_back: HashMap<Uri, SessionId>,
    /// The order in which the ways were found: the oldest is forgotten first.
    found: VecDeque<Uri>,
}

impl Uplinks {
    pub(crate) fn add(&mut self, link: SessionId) {
        self.links.push(link);
    }

    pub(crate) fn remove(&mut self, link: SessionId) {
        self.links.retain(|known| *known != link);
        self.ways_back.retain(|_, way| *way != link);
        let ways = &self.ways_back;
        self.found.retain(|uri| ways.contains_key(uri));
    }

    /// A message of `sender` came down this link.
    pub(crate) fn came_down(&mut self, sender: &Uri, link: SessionId) {
        if let Some(way) = self.ways_back.get_mut(sender) {
            *way = link;
            return;
        }
        if self.found.len() == MAX_WAYS_BACK
            && let Some(oldest) = self.found.pop_front()
        {
            self.ways_back.remove(&oldest);
        }
        self.found.push_back(sender.clone());
        self.ways_back.insert(sender.clone(), link);
    }

    fn to(&self, target: &Uri) -> Option<SessionId> {
        self.ways_back
            .get(target)
            .or_else(|| self.links.first())
            .copied()
    }
}

/// The next hop of a message for `target`.
pub(crate) fn next_hop(
    role: Role,
    inventory: &Inventory,
    uplinks: &Uplinks,
    origin: Origin,
    target: &Uri,
) -> Hop {
    let place = inventory.best(target, |place| match origin {
        Origin::Here => true,
        // What came down is delivered here or nowhere, and what came from another primary here or
        // below: so no message can go in circles.
        Origin::Above(_) => place.nearness == Nearness::Here,
        Origin::Beside(_) => place.nearness >= Nearness::Below,
        Origin::Below(link) => place.session != link,
    });
    match (place, origin) {
        (Some(place), _) if place.nearness == Nearness::Here => Hop::Client(place.session),
        (Some(place), _) => Hop::Link(place.session),
        (None, Origin::Here) if role == Role::Compiler => {
            uplinks.to(target).map_or(Hop::Wait, Hop::Link)
        }
        (None, _) => Hop::Refuse(ErrorKind::NotConnected),
    }
}
