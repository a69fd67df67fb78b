//! The node: one broker's whole state, and one method for each thing that can happen to it.
//! Connections and announcements are handled here, messages in `messages`.

mod messages;

use std::collections::{BTreeMap, HashMap, VecDeque};

use pcp::{
    Announcement, Certname, ClientType, ErrorKind, GoodbyeCode, InventoryChange, LinkFrame, Uri,
};

use crate::absent::Absent;
use crate::config::{NodeConfig, Role};
use crate::counters::{Counters, Sizes};
use crate::delivery::{Author, GraceQueue};
use crate::inventory::{Change, Inventory, Nearness, Place, Superseded};
use crate::link::{Link, Misbehaved, superseded_elsewhere};
use crate::route::Uplinks;
use crate::subscription::Subscriptions;
use crate::{InventoryEntry, LinkKind, Output, SessionId};

/// One broker's knowledge of the mesh.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    /// The epoch of the newest snapshot that was sent on any link.
    epoch: u64,
    /// The clients connected to this broker, by session.
    clients: HashMap<SessionId, Uri>,
    /// Those of them who are on the way out, and count as connected here no more.
    leaving: HashMap<Uri, SessionId>,
    /// Sorted, so that a simulation replays.
    links: BTreeMap<SessionId, Link>,
    inventory: Inventory,
    subscriptions: Subscriptions,
    uplinks: Uplinks,
    waiting: GraceQueue,
    absent: Absent,
    /// Clients that are back, and whose messages have to be sent now.
    back: Vec<Uri>,
    author: Author,
    /// What the input at hand has changed for other brokers, to be sent in as few frames as it fits.
    news: Vec<Announcement>,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Node {
    /// A node that knows nobody yet. `epoch` is above that of the broker's life before: its start
    /// time in milliseconds since 1970 will do.
    #[must_use]
    pub fn new(config: NodeConfig, epoch: u64) -> Self {
        let waiting = GraceQueue::new(
            config.grace_messages,
            config.grace_bytes,
            config.grace_period,
        );
        let uri = Uri::new(config.certname.clone(), ClientType::server());
        Self {
            absent: Absent::new(config.grace_messages, config.grace_bytes),
            back: Vec::new(),
            author: Author::new(uri, epoch),
            config,
            epoch,
            clients: HashMap::new(),
            leaving: HashMap::new(),
            links: BTreeMap::new(),
            inventory: Inventory::default(),
            subscriptions: Subscriptions::default(),
            uplinks: Uplinks::default(),
            waiting,
            news: Vec::new(),
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A client has said hello. `started` is that of its hello. Of two sessions of one client the
    /// one that started later stays; the other is closed, even if it is this one.
    pub fn client_connected(&mut self, now: u64, session: SessionId, uri: Uri, started: u64) {
        if uri.is_broker() {
            self.close(
                session,
                GoodbyeCode::Unauthorized,
                "client type server is reserved",
            );
            return;
        }
        let replaces = || {
            self.inventory
                .best(&uri, |place| place.nearness == Nearness::Here)
        };
        if self.clients.len() >= self.config.max_clients && replaces().is_none() {
            self.close(
                session,
                GoodbyeCode::Unavailable,
                "connection limit exceeded",
            );
            return;
        }
        let client = uri.clone();
        self.clients.insert(session, uri);
        let place = Place {
            session,
            started,
            nearness: Nearness::Here,
        };
        let change = self.inventory.put(&client, place);
        self.apply(now, &client, change);
        self.publish();
        self.send_absent(now);
    }

    /// A client's session has ended, for whatever reason.
    pub fn client_disconnected(&mut self, now: u64, session: SessionId) {
        let Some(uri) = self.clients.remove(&session) else {
            return;
        };
        if self.leaving.get(&uri) == Some(&session) {
            self.leaving.remove(&uri);
        }
        self.subscriptions.cancel(session);
        let change = self.inventory.remove(&uri, session);
        self.apply(now, &uri, change);
        self.publish();
        self.send_absent(now);
    }

    /// A client is about to be sent to another broker, since this one is being stopped: from now on the
    /// mesh lets messages wait for its return. What is on its way here still reaches it, and what it
    /// still sends is still taken.
    pub fn client_leaving(&mut self, now: u64, session: SessionId) {
        let Some(uri) = self.clients.get(&session).cloned() else {
            return;
        };
        let change = self.inventory.remove(&uri, session);
        self.apply(now, &uri, change);
        self.leaving.insert(uri, session);
        self.publish();
    }

    /// A session with another broker is open. `broker` is the certname of its certificate, `started` that
    /// of its hello, or the same for all that we dial ourselves, which come in their order. Of two links
    /// that the same broker has dialled the one that started later stays, or else the later arrival: the
    /// dialler has given the other one up.
    pub fn link_connected(
        &mut self,
        now: u64,
        session: SessionId,
        broker: Certname,
        kind: LinkKind,
        started: u64,
    ) {
        if self.config.role == Role::Compiler && kind != LinkKind::Up {
            self.close(
                session,
                GoodbyeCode::Unauthorized,
                "a compiler takes no links",
            );
            return;
        }
        let same = |link: &Link| link.kind == kind && link.broker == broker;
        let mut others = self.links.values();
        if others.any(|link| same(link) && link.started > started) {
            // No reason to stay away for long: when the clock of a broker was set back and this link is
            // the living one after all, it is taken as soon as the other is found dead.
            self.close(
                session,
                GoodbyeCode::Unavailable,
                "a link of the same broker is open that started later",
            );
            return;
        }
        let others = self.links.iter().filter(|(_, link)| same(link));
        let earlier: Vec<SessionId> = others.map(|(session, _)| *session).collect();
        for link in earlier {
            self.close(
                link,
                GoodbyeCode::Superseded,
                "a newer link of the same broker",
            );
            self.link_disconnected(now, link);
        }
        let published = (kind != LinkKind::Down).then(|| {
            self.epoch += 1;
            self.epoch
        });
        if let Some(epoch) = published {
            self.send_snapshot(session, epoch);
        }
        self.links
            .insert(session, Link::new(broker, kind, started, published));
        if self.config.role == Role::Compiler {
            self.uplinks.add(session);
            self.send_waiting(now);
        }
    }

    /// A session with another broker has ended.
    pub fn link_disconnected(&mut self, now: u64, session: SessionId) {
        let Some(link) = self.links.remove(&session) else {
            return;
        };
        self.uplinks.remove(session);
        self.counters.dropped += link.early.len() as u64;
        for uri in link.into_clients() {
            let change = self.inventory.remove(&uri, session);
            self.apply(now, &uri, change);
        }
        self.publish();
        self.send_absent(now);
    }

    /// A broker says who is connected to it.
    ///
    /// # Errors
    /// [`Misbehaved`]: close the link with [`GoodbyeCode::ProtocolError`] and report it as
    /// disconnected.
    pub fn link_frame(
        &mut self,
        now: u64,
        session: SessionId,
        frame: LinkFrame,
    ) -> Result<(), Misbehaved> {
        let Some(link) = self.links.get_mut(&session) else {
            return Ok(());
        };
        let nearness = link.nearness();
        if self.config.role == Role::Compiler {
            for newer in superseded_elsewhere(frame)? {
                self.close_older(now, &newer);
            }
        } else {
            for announcement in link.accept(frame, self.config.max_announced)? {
                let uri = announcement.uri;
                if nearness == Nearness::Below && uri.client_type().as_str() != "agent" {
                    // A compiler speaks for agents alone: one that was taken over must not be able
                    // to take the orchestrator's place, and with it all that agents answer.
                    continue;
                }
                let change = if announcement.connected {
                    let place = Place {
                        session,
                        started: announcement.started,
                        nearness,
                    };
                    self.inventory.put(&uri, place)
                } else {
                    self.inventory.remove(&uri, session)
                };
                self.apply(now, &uri, change);
            }
        }
        self.publish();
        self.take_early(now, session);
        self.send_absent(now);
        Ok(())
    }

    /// Time has passed: sends collected inventory updates, and gives up what has waited too long.
    pub fn tick(&mut self, now: u64) {
        if self.subscriptions.due().is_some_and(|due| due <= now) {
            self.send_updates();
        }
        while let Some(message) = self.waiting.expired(now) {
            self.give_up(now, &message, ErrorKind::Unreachable);
        }
        while let Some(waited) = self.absent.expired(now) {
            for (_, message) in waited {
                self.give_up(now, &message, ErrorKind::NotConnected);
            }
        }
    }

    /// When [`Node::tick`] is due next.
    #[must_use]
    pub fn next_tick(&self) -> Option<u64> {
        let due = [
            self.subscriptions.due(),
            self.waiting.next(),
            self.absent.next(),
        ];
        due.into_iter().flatten().min()
    }

    /// The next thing to do, until there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() && self.outputs.capacity() > KEPT_OUTPUTS {
            // A snapshot or a fan-out of updates once made room that is not needed again.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// All clients that this broker knows, in no particular order.
    pub fn inventory(&self) -> impl Iterator<Item = InventoryEntry<'_>> {
        self.inventory.iter().map(|(uri, place)| InventoryEntry {
            uri,
            started: place.started,
            via: self.links.get(&place.session).map(|link| &link.broker),
        })
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the node holds just now.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            clients: self.clients.len(),
            known: self.inventory.len(),
            links: self.links.len(),
            subscriptions: self.subscriptions.len(),
            waiting_messages: self.waiting.len(),
            waiting_bytes: self.waiting.bytes(),
            absent_messages: self.absent.messages(),
            absent_bytes: self.absent.bytes(),
            early_messages: self.links.values().map(|link| link.early.len()).sum(),
        }
    }

    /// Tells everyone concerned what one piece of news about a client means.
    fn apply(&mut self, now: u64, uri: &Uri, change: Change) {
        // Each broker dials its controllers itself, and speaks for none of them to others.
        let announce = change.announce.filter(|news| !news.uri.is_dialled());
        self.news.extend(announce);
        for Superseded { place, by } in change.superseded {
            match place.nearness {
                Nearness::Here => self.close_client(place.session),
                Nearness::Below => self.tell_superseded(place.session, uri, by),
                Nearness::Beside => {}
            }
        }
        match change.presence {
            Some(InventoryChange::CAME) => self.back.push(uri.clone()),
            Some(InventoryChange::GONE) => {
                let period = if uri.client_type().as_str() == "agent" {
                    self.config.return_period
                } else {
                    self.config.grace_period
                };
                self.absent.left(uri, now.saturating_add(period));
            }
            Some(_) | None => {}
        }
        if let Some(presence) = change.presence
            && self.subscriptions.note(now, uri, presence)
        {
            self.send_updates();
        }
    }

    /// Closes a session that the inventory has already dropped for a newer one.
    fn close_client(&mut self, session: SessionId) {
        self.clients.remove(&session);
        self.subscriptions.cancel(session);
        self.counters.superseded += 1;
        self.close(session, GoodbyeCode::Superseded, "a newer session");
    }

    /// A primary says that a client has a newer session elsewhere: ours is a leftover.
    fn close_older(&mut self, now: u64, newer: &Announcement) {
        let older = self.inventory.best(&newer.uri, |place| {
            place.nearness == Nearness::Here && place.started < newer.started
        });
        if let Some(place) = older {
            let change = self.inventory.remove(&newer.uri, place.session);
            self.apply(now, &newer.uri, change);
            self.close_client(place.session);
        }
    }

    fn tell_superseded(&mut self, link: SessionId, uri: &Uri, by: u64) {
        let newer = Announcement {
            uri: uri.clone(),
            started: by,
            connected: true,
        };
        self.outputs.push_back(Output::SendLink {
            session: link,
            frame: LinkFrame::Delta {
                // Nothing is announced down a link, so there is no snapshot that this continues.
                epoch: 0,
                changes: vec![newer],
            },
        });
    }

    /// Sends what has changed to all brokers that we announce our clients to.
    fn publish(&mut self) {
        if self.news.is_empty() {
            return;
        }
        let chunks = LinkFrame::chunks(std::mem::take(&mut self.news));
        for (session, link) in &self.links {
            let Some(epoch) = link.published else {
                continue;
            };
            for changes in chunks.clone() {
                self.outputs.push_back(Output::SendLink {
                    session: *session,
                    frame: LinkFrame::Delta { epoch, changes },
                });
            }
        }
    }

    fn send_snapshot(&mut self, session: SessionId, epoch: u64) {
        let mut parts = LinkFrame::chunks(self.inventory.announcements());
        // An empty inventory is news, too: the last part must be said.
        let last = parts.pop().unwrap_or_default();
        for (clients, last) in parts
            .into_iter()
            .map(|clients| (clients, false))
            .chain([(last, true)])
        {
            self.outputs.push_back(Output::SendLink {
                session,
                frame: LinkFrame::Snapshot {
                    epoch,
                    last,
                    clients,
                },
            });
        }
    }

    fn close(&mut self, session: SessionId, code: GoodbyeCode, reason: &str) {
        self.outputs.push_back(Output::Close {
            session,
            code,
            reason: reason.to_owned(),
        });
    }
}

/// Room for so many outputs is kept between inputs.
const KEPT_OUTPUTS: usize = 1024;
