//! Controllers that follow the inventory: what they asked for, and what they have not heard yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pcp::{Certname, InventoryChange, Uri, UriPattern};

use crate::SessionId;
use crate::inventory::Inventory;

/// Changes are collected for this long, in milliseconds, as the original broker does.
pub(crate) const UPDATE_PERIOD: u64 = 1000;

/// The most subscriptions of one broker. They are for controllers, of which a site has a handful.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 256;

/// Collected changes are sent early when there are so many: a storm must not pile up a second of
/// changes of any size.
const MAX_COLLECTED: usize = 16 * 1024;

/// The most clients whose news a subscriber may have missed, before its session is given up: more
/// than a whole fleet that comes back at once.
const MAX_MISSED: usize = 256 * 1024;

/// One update has about so many bytes of body at most, so that it fits an inline message.
const UPDATE_BYTES: usize = 12 * 1024;

/// The bytes of one change in JSON beside the address: `{"client":"…","change":-1},`.
const CHANGE_BYTES: usize = 26;

/// The bytes of a change's broker in JSON: `,"broker":"…"`.
fn broker_bytes(broker: &Certname) -> usize {
    12 + broker.as_str().len()
}

/// The clients a controller asked about. Named ones are looked up; only wildcards are tried one by
/// one, so that a query that names a whole fleet costs no more than one that says `pcp://*/agent`.
#[derive(Debug)]
pub(crate) struct Query {
    named: HashSet<Uri>,
    wild: Vec<UriPattern>,
}

/// All subscriptions of a broker and the changes since the last update.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_session: BTreeMap<SessionId, Subscription>,
    collected: Vec<InventoryChange>,
    due: Option<u64>,
}

#[derive(Debug)]
struct Subscription {
    uri: Uri,
    query: Query,
    /// Whether it is told at which broker each client is.
    places: bool,
    /// How many of the collected changes are older than the subscription.
    from: usize,
    /// Clients of updates that could not be handed over: their state is told in the next one.
    missed: BTreeSet<Uri>,
}

/// The changes of one update.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) session: SessionId,
    pub(crate) uri: Uri,
    pub(crate) changes: Vec<InventoryChange>,
}

impl Query {
    pub(crate) fn new(patterns: Vec<UriPattern>) -> Self {
        let mut query = Self {
            named: HashSet::new(),
            wild: Vec::new(),
        };
        for pattern in patterns {
            match pattern.exact() {
                Some(uri) => {
                    query.named.insert(uri);
                }
                None if query.wild.contains(&pattern) => {}
                None => query.wild.push(pattern),
            }
        }
        query
    }

    fn matches(&self, uri: &Uri) -> bool {
        self.named.contains(uri) || self.wild.iter().any(|pattern| pattern.matches(uri))
    }

    /// The connected clients that are asked about, sorted.
    pub(crate) fn answer(&self, inventory: &Inventory) -> Vec<Uri> {
        let mut uris: Vec<Uri> = if self.wild.is_empty() {
            let connected = self.named.iter().filter(|uri| inventory.contains(uri));
            connected.cloned().collect()
        } else {
            let all = inventory.iter().map(|(uri, _)| uri);
            all.filter(|uri| self.matches(uri)).cloned().collect()
        };
        uris.sort_unstable();
        uris
    }
}

impl Subscriptions {
    /// Begins a subscription from now on, in the place of an earlier one of the session. False when
    /// there are too many.
    pub(crate) fn subscribe(
        &mut self,
        session: SessionId,
        uri: Uri,
        query: Query,
        places: bool,
    ) -> bool {
        if self.by_session.len() >= MAX_SUBSCRIPTIONS && !self.by_session.contains_key(&session) {
            return false;
        }
        let subscription = Subscription {
            uri,
            query,
            places,
            from: self.collected.len(),
            missed: BTreeSet::new(),
        };
        self.by_session.insert(session, subscription);
        true
    }

    /// Ends a session's subscription, if it has one.
    pub(crate) fn cancel(&mut self, session: SessionId) {
        self.by_session.remove(&session);
        if self.by_session.is_empty() {
            self.collected = Vec::new();
            self.due = None;
        }
    }

    /// Collects a change. True when so many are collected that they are due at once.
    pub(crate) fn note(&mut self, now: u64, client: &Uri, change: i8) -> bool {
        let is_news = |subscription: &Subscription| subscription.hears(change);
        if !self.by_session.values().any(is_news) {
            return false;
        }
        self.collected.push(InventoryChange {
            client: client.clone(),
            change,
            broker: None,
        });
        self.due.get_or_insert(now.saturating_add(UPDATE_PERIOD));
        self.collected.len() >= MAX_COLLECTED
    }

    /// An update could not be handed over: what has become of its clients is told in the next one,
    /// since an update must not overtake another that names the same client. False when the
    /// subscriber has missed too much to go on.
    pub(crate) fn missed(
        &mut self,
        now: u64,
        session: SessionId,
        clients: impl Iterator<Item = Uri>,
    ) -> bool {
        let Some(subscription) = self.by_session.get_mut(&session) else {
            // It was cancelled in the meantime: nobody waits for the news.
            return true;
        };
        subscription.missed.extend(clients);
        self.due.get_or_insert(now.saturating_add(UPDATE_PERIOD));
        subscription.missed.len() <= MAX_MISSED
    }

    /// When the next update is due.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due
    }

    pub(crate) fn len(&self) -> usize {
        self.by_session.len()
    }

    /// The updates for all subscribers, in order for each. `broker` says where a client is now.
    pub(crate) fn updates<'a>(
        &mut self,
        broker: impl Fn(&Uri) -> Option<&'a Certname>,
    ) -> Vec<Update> {
        let collected = std::mem::take(&mut self.collected);
        self.due = None;
        let mut updates = Vec::new();
        for (session, subscription) in &mut self.by_session {
            let missed = std::mem::take(&mut subscription.missed);
            let from = std::mem::take(&mut subscription.from);
            let subscription = &*subscription;
            let told = missed.iter().map(|uri| InventoryChange {
                client: uri.clone(),
                change: match broker(uri) {
                    Some(_) => InventoryChange::CAME,
                    None => InventoryChange::GONE,
                },
                broker: None,
            });
            let news = collected.iter().skip(from).filter(|change| {
                subscription.hears(change.change)
                    && !missed.contains(&change.client)
                    && subscription.query.matches(&change.client)
            });
            let placed = |mut change: InventoryChange| {
                if subscription.places && change.change != InventoryChange::GONE {
                    change.broker = broker(&change.client).cloned();
                }
                change
            };
            for changes in chunks(told.chain(news.cloned()).map(placed)) {
                updates.push(Update {
                    session: *session,
                    uri: subscription.uri.clone(),
                    changes,
                });
            }
        }
        updates
    }
}

impl Subscription {
    fn hears(&self, change: i8) -> bool {
        self.places || change != InventoryChange::MOVED
    }
}

/// Splits changes into lists that each fit one update.
fn chunks(changes: impl Iterator<Item = InventoryChange>) -> Vec<Vec<InventoryChange>> {
    let mut chunks: Vec<Vec<InventoryChange>> = Vec::new();
    let mut bytes = UPDATE_BYTES;
    for change in changes {
        let client = &change.client;
        let size = CHANGE_BYTES
            + "pcp:///".len()
            + client.certname().as_str().len()
            + client.client_type().as_str().len()
            + change.broker.as_ref().map_or(0, broker_bytes);
        bytes += size;
        match chunks.last_mut() {
            Some(chunk) if bytes <= UPDATE_BYTES => chunk.push(change),
            _ => {
                chunks.push(vec![change]);
                bytes = size;
            }
        }
    }
    chunks
}
