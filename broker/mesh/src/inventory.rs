//! Who is connected where, as far as this broker knows: for each client the places it was seen in.
//!
//! A client seen in two places belongs to the session that started last. Two places with the same
//! start are nearly always one session that is heard of on two ways, so the nearer place wins, and
//! between equally near ones the later news.

use std::collections::HashMap;

use pcp::{Announcement, InventoryChange, Uri};

use crate::SessionId;

/// How near a place is to this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nearness {
    /// Announced by another primary.
    Beside,
    /// Announced by a compiler of ours.
    Below,
    /// Connected to us.
    Here,
}

/// One place in which a client was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The client's own session, or the link that announced it.
    pub(crate) session: SessionId,
    /// The start of the client's session by the client's clock.
    pub(crate) started: u64,
    pub(crate) nearness: Nearness,
}

/// What follows from one piece of news.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// What subscribers are to hear, as [`InventoryChange`] has it.
    pub(crate) presence: Option<i8>,
    /// What the other primaries (of a compiler: its primaries) are to hear.
    pub(crate) announce: Option<Announcement>,
    /// Older sessions of the client, here or at our compilers, that are to be closed.
    pub(crate) superseded: Vec<Superseded>,
}

/// A session that a newer one replaces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Superseded {
    pub(crate) place: Place,
    /// The start of the newer session.
    pub(crate) by: u64,
}

/// All clients that are known.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    clients: HashMap<Uri, Places>,
}

/// At least one place; more than one is rare and short, so it costs no memory to be ready for it.
/// The order is that of arrival.
#[derive(Debug)]
struct Places {
    first: Place,
    more: Vec<Place>,
}

impl Inventory {
    /// The client was seen in a place, or seen there again.
    pub(crate) fn put(&mut self, uri: &Uri, place: Place) -> Change {
        let Some(places) = self.clients.get_mut(uri) else {
            let places = Places {
                first: place,
                more: Vec::new(),
            };
            let after = places.view();
            self.clients.insert(uri.clone(), places);
            return change(uri, View::default(), after);
        };
        let before = places.view();
        places.put(place);
        let superseded = places.supersede();
        Change {
            superseded,
            ..change(uri, before, places.view())
        }
    }

    /// The client is no longer there.
    pub(crate) fn remove(&mut self, uri: &Uri, session: SessionId) -> Change {
        let Some(places) = self.clients.get_mut(uri) else {
            return Change::default();
        };
        let before = places.view();
        if places.remove(session) {
            change(uri, before, places.view())
        } else {
            self.clients.remove(uri);
            change(uri, before, View::default())
        }
    }

    /// The best place that `allowed` lets pass: of the newest session, and the nearest.
    pub(crate) fn best(&self, uri: &Uri, allowed: impl Fn(&Place) -> bool) -> Option<Place> {
        let places = self.clients.get(uri)?;
        places
            .iter()
            .filter(|place| allowed(place))
            .max_by_key(|place| (place.started, place.nearness))
            .copied()
    }

    /// Whether the client is connected anywhere.
    pub(crate) fn contains(&self, uri: &Uri) -> bool {
        self.clients.contains_key(uri)
    }

    /// All clients with their best places, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Uri, Place)> {
        self.clients
            .iter()
            .map(|(uri, places)| (uri, places.newest()))
    }

    /// What a new link upwards or sideways is to hear first, sorted.
    pub(crate) fn announcements(&self) -> Vec<Announcement> {
        let mut all: Vec<_> = self
            .clients
            .iter()
            .filter(|(uri, _)| !uri.is_dialled())
            .filter_map(|(uri, places)| {
                Some(Announcement {
                    uri: uri.clone(),
                    started: places.view().ours?,
                    connected: true,
                })
            })
            .collect();
        all.sort_unstable_by(|a, b| a.uri.cmp(&b.uri));
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }
}

/// What others care for.
#[derive(Debug, Default, Clone, Copy)]
struct View {
    /// The start of the client's newest session anywhere, and the session or link that leads there.
    newest: Option<(u64, SessionId)>,
    /// The start of its newest session here or at our compilers: what we answer for.
    ours: Option<u64>,
}

impl Places {
    fn iter(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.first).chain(&self.more)
    }

    fn newest(&self) -> Place {
        self.iter()
            .max_by_key(|place| (place.started, place.nearness))
            .copied()
            .unwrap_or(self.first)
    }

    fn view(&self) -> View {
        let ours = self.iter().filter(|p| p.nearness > Nearness::Beside);
        let newest = self.newest();
        View {
            newest: Some((newest.started, newest.session)),
            ours: ours.map(|place| place.started).max(),
        }
    }

    /// Adds a place as the latest, instead of what the same session said before.
    fn put(&mut self, place: Place) {
        if self.first.session == place.session && self.more.is_empty() {
            self.first = place;
        } else {
            self.remove(place.session);
            self.more.push(place);
        }
    }

    /// Removes a session's place. False when it was the only one, which then still stands here.
    fn remove(&mut self, session: SessionId) -> bool {
        if self.first.session == session {
            if self.more.is_empty() {
                return false;
            }
            self.first = self.more.remove(0);
        } else {
            self.more.retain(|place| place.session != session);
        }
        if self.more.is_empty() {
            self.more = Vec::new();
        }
        true
    }

    /// Finds the sessions here and at our compilers that a newer one replaces, and takes those here
    /// out. Of two sessions here only one stays, even if both claim the same start.
    fn supersede(&mut self) -> Vec<Superseded> {
        let newest = self.newest();
        let older: Vec<Place> = self
            .iter()
            .filter(|place| match place.nearness {
                Nearness::Beside => false,
                Nearness::Below => place.started < newest.started,
                Nearness::Here => place.session != newest.session,
            })
            .copied()
            .collect();
        for place in &older {
            if place.nearness == Nearness::Here {
                self.remove(place.session);
            }
        }
        older
            .into_iter()
            .map(|place| Superseded {
                place,
                by: newest.started,
            })
            .collect()
    }
}

fn change(uri: &Uri, before: View, after: View) -> Change {
    let presence = match (before.newest, after.newest) {
        (_, None) => before.newest.map(|_| InventoryChange::GONE),
        (None, Some(_)) => Some(InventoryChange::CAME),
        (Some((old, _)), Some((new, _))) if new > old => Some(InventoryChange::CAME),
        (old, new) => (old != new).then_some(InventoryChange::MOVED),
    };
    let announce = (before.ours != after.ours).then(|| Announcement {
        uri: uri.clone(),
        started: after.ours.or(before.ours).unwrap_or_default(),
        connected: after.ours.is_some(),
    });
    Change {
        presence,
        announce,
        superseded: Vec::new(),
    }
}
