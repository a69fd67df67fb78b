//! What a node does with messages: who may have sent them, where they go, and what their senders
//! hear when they cannot go on.

use pcp::body::{MAX_QUERY, MAX_QUERY_BYTES, inventory_response, inventory_update};
use pcp::{
    Certname, Envelope, ErrorKind, Flags, GoodbyeCode, InventoryRequest, InventoryResponse,
    InventoryUpdate, Message, Places, Target, Uri,
};
use serde_json::to_vec;

use super::Node;
use crate::delivery::{is_error, pass_on};
use crate::inventory::Nearness;
use crate::route::{Hop, Origin, next_hop};
use crate::subscription::Query;
use crate::{LinkKind, Output, Role, SessionId, Verdict};

impl Node {
    /// A message has arrived over `session`. `verdict` is what the broker's rules say of it.
    ///
    /// The sender's address must be the client's own; over a link, that of a client which the link
    /// has announced. A compiler believes its primaries.
    ///
    /// Gives the error that the sender gets at once; nothing when the message went on its way, waits, or
    /// belongs to a session that is closed.
    pub fn message(
        &mut self,
        now: u64,
        session: SessionId,
        mut message: Message,
        verdict: Verdict,
    ) -> Option<ErrorKind> {
        let Some(origin) = self.origin(session) else {
            // The session was closed while this was on its way.
            self.counters.dropped += 1;
            return None;
        };
        let genuine = match self.clients.get(&session) {
            Some(uri) => {
                message.envelope.hops = 0;
                *uri == message.envelope.sender
            }
            None => self.may_relay(session, &message.envelope),
        };
        if !genuine
            && verdict == Verdict::Allowed
            && let Some(link) = self.links.get_mut(&session)
            && !link.is_whole()
            && !message.envelope.sender.client_type().is_server()
        {
            let message = link.early.push(now, message).err()?;
            return Some(self.refuse(now, session, &message.envelope, ErrorKind::Busy));
        }
        let fault = match (genuine, verdict) {
            (false, _) => Some(ErrorKind::NotAuthenticated),
            (true, Verdict::Denied) => Some(ErrorKind::NotAuthorized),
            (true, Verdict::Allowed) => None,
        };
        if let Some(kind) = fault {
            return Some(self.refuse(now, session, &message.envelope, kind));
        }
        if let Origin::Above(link) = origin {
            self.uplinks.came_down(&message.envelope.sender, link);
        }
        match &message.envelope.target {
            Target::Client(uri) if *uri != self.author.uri => {
                let uri = uri.clone();
                let (message, kind) = *self.pass(now, origin, &uri, message).err()?;
                Some(self.refuse(now, session, &message.envelope, kind))
            }
            _ => self.for_broker(now, session, &message),
        }
    }

    /// A message of [`Output::Send`] could not be handed over to `session`: its sender is told why,
    /// unless the session was found dead (and reported as disconnected) and there is another way.
    pub fn undeliverable(
        &mut self,
        now: u64,
        session: SessionId,
        message: Message,
        why: ErrorKind,
    ) {
        if message.envelope.sender == self.author.uri && !is_error(&message.envelope) {
            self.own_undeliverable(now, session, &message);
            return;
        }
        match self.another_way(now, session, message, why) {
            Ok(()) => {}
            Err(message) => self.give_up(now, &message, why),
        }
    }

    /// What a message does whose session was found dead: it waits for the client, or takes the next
    /// way up. It goes nowhere else, so that none can go in circles.
    fn another_way(
        &mut self,
        now: u64,
        session: SessionId,
        mut message: Message,
        why: ErrorKind,
    ) -> Result<(), Box<Message>> {
        let Target::Client(target) = message.envelope.target.clone() else {
            return Err(Box::new(message));
        };
        // It was counted when it was handed out, and did not leave.
        message.envelope.hops = message.envelope.hops.saturating_sub(1);
        match (why, self.config.role) {
            (ErrorKind::NotConnected, _) => {
                let origin = self.origin_of_sender(session, &message.envelope.sender);
                self.absent.push(&target, origin, message)?;
                self.counters.waited += 1;
                Ok(())
            }
            // A link that still counts as open would be taken again.
            (ErrorKind::Unreachable, Role::Compiler) if !self.links.contains_key(&session) => self
                .pass(now, Origin::Here, &target, message)
                .map_err(|refused| Box::new(refused.0)),
            _ => Err(Box::new(message)),
        }
    }

    /// Where a message has come from whose session is not known any more, as far as it matters: what
    /// another primary has passed on is not passed on to a third.
    fn origin_of_sender(&self, session: SessionId, sender: &Uri) -> Origin {
        let place = self.inventory.best(sender, |_| true);
        let ours = place.is_some_and(|place| place.nearness > Nearness::Beside);
        if ours || *sender == self.author.uri {
            Origin::Here
        } else {
            Origin::Beside(session)
        }
    }

    /// Sends what has waited for clients that are back.
    pub(super) fn send_absent(&mut self, now: u64) {
        while let Some(uri) = self.back.pop() {
            for (origin, message) in self.absent.returned(&uri) {
                if let Err(refused) = self.pass(now, origin, &uri, message) {
                    let (message, kind) = *refused;
                    self.give_up(now, &message, kind);
                }
            }
        }
    }

    /// Handles what came before its link's snapshot, once that is whole.
    pub(super) fn take_early(&mut self, now: u64, session: SessionId) {
        while let Some(link) = self.links.get_mut(&session)
            && link.is_whole()
            && let Some(message) = link.early.pop()
        {
            self.message(now, session, message, Verdict::Allowed);
        }
    }

    /// Where a session stands; nothing when it is not known (any more).
    fn origin(&self, session: SessionId) -> Option<Origin> {
        if self.clients.contains_key(&session) {
            return Some(Origin::Here);
        }
        let link = self.links.get(&session)?;
        Some(match (self.config.role, link.kind) {
            (Role::Compiler, _) => Origin::Above(session),
            (Role::Primary, LinkKind::Down) => Origin::Below(session),
            (Role::Primary, LinkKind::Up | LinkKind::Peer) => Origin::Beside(session),
        })
    }

    /// Whether a link may bring a message of this sender.
    fn may_relay(&self, session: SessionId, envelope: &Envelope) -> bool {
        let Some(link) = self.links.get(&session) else {
            return false;
        };
        if self.config.role == Role::Compiler {
            return true;
        }
        let sender = &envelope.sender;
        if sender.client_type().is_server() {
            // Brokers speak for themselves only to say what went wrong. Another primary passes on
            // what its compilers say.
            return is_error(envelope)
                && (link.kind != LinkKind::Down || *sender.certname() == link.broker);
        }
        link.announced(sender)
    }

    /// Sends a message to its next hop, or gives it back with the reason why it has none.
    fn pass(
        &mut self,
        now: u64,
        origin: Origin,
        target: &Uri,
        mut message: Message,
    ) -> Result<(), Box<(Message, ErrorKind)>> {
        let hop = next_hop(
            self.config.role,
            &self.inventory,
            &self.uplinks,
            origin,
            target,
        );
        let hop = match (hop, self.leaving.get(target)) {
            (Hop::Refuse(_), Some(session)) => Hop::Client(*session),
            (hop, _) => hop,
        };
        let session = match hop {
            Hop::Client(session) | Hop::Link(session) => session,
            Hop::Refuse(kind) => {
                return match self.absent.push(target, origin, message) {
                    Ok(()) => {
                        self.counters.waited += 1;
                        Ok(())
                    }
                    Err(message) => Err(Box::new((*message, kind))),
                };
            }
            Hop::Wait => {
                return match self.waiting.push(now, message) {
                    Ok(()) => {
                        self.counters.waited += 1;
                        Ok(())
                    }
                    Err(message) => Err(Box::new((*message, ErrorKind::Unreachable))),
                };
            }
        };
        if !pass_on(&mut message.envelope) {
            return Err(Box::new((message, ErrorKind::TooManyHops)));
        }
        match hop {
            Hop::Client(_) => self.counters.delivered += 1,
            _ => self.counters.forwarded += 1,
        }
        self.outputs.push_back(Output::Send { session, message });
        Ok(())
    }

    /// Tells the sender, over the session that the message came from, what it gives back.
    fn refuse(
        &mut self,
        now: u64,
        session: SessionId,
        cause: &Envelope,
        kind: ErrorKind,
    ) -> ErrorKind {
        let to = self.clients.get(&session).unwrap_or(&cause.sender).clone();
        let Some(mut error) = self.author.error(cause, to, kind) else {
            self.counters.dropped += 1;
            return kind;
        };
        self.counters.count_refusal(kind);
        if !self.clients.contains_key(&session) && !self.links.contains_key(&session) {
            self.send_error(now, error);
            return kind;
        }
        pass_on(&mut error.envelope);
        self.outputs.push_back(Output::Send {
            session,
            message: error,
        });
        kind
    }

    /// Tells the sender, wherever it is, of a message whose origin is no longer known.
    pub(super) fn give_up(&mut self, now: u64, message: &Message, kind: ErrorKind) {
        let to = message.envelope.sender.clone();
        match self.author.error(&message.envelope, to, kind) {
            Some(error) => {
                self.counters.count_refusal(kind);
                self.send_error(now, error);
            }
            None => self.counters.dropped += 1,
        }
    }

    fn send_error(&mut self, now: u64, error: Message) {
        let Target::Client(to) = error.envelope.target.clone() else {
            return;
        };
        if self.pass(now, Origin::Here, &to, error).is_err() {
            self.counters.dropped += 1;
        }
    }

    /// Sends what has waited for a primary. A message whose sender has left is dropped: the primary
    /// would not know the sender, and nobody is there to hear of it.
    pub(super) fn send_waiting(&mut self, now: u64) {
        while let Some(message) = self.waiting.pop() {
            let sender = &message.envelope.sender;
            let Target::Client(target) = message.envelope.target.clone() else {
                continue;
            };
            if *sender != self.author.uri && !self.inventory.contains(sender) {
                self.counters.dropped += 1;
            } else if let Err(refused) = self.pass(now, Origin::Here, &target, message) {
                let (message, kind) = *refused;
                self.give_up(now, &message, kind);
            }
        }
    }

    /// Answers a message for the broker itself, or gives the error that its sender gets.
    fn for_broker(&mut self, now: u64, session: SessionId, message: &Message) -> Option<ErrorKind> {
        let envelope = &message.envelope;
        let (true, Some(client)) = (
            envelope.message_type.name() == Some("inventory_request"),
            self.clients.get(&session).cloned(),
        ) else {
            return Some(self.refuse(now, session, envelope, ErrorKind::Undecodable));
        };
        let request = if message.body.len() > MAX_QUERY_BYTES {
            None
        } else {
            serde_json::from_slice::<InventoryRequest>(&message.body).ok()
        };
        let Some(request) = request.filter(|r| r.query.len() <= MAX_QUERY) else {
            return Some(self.refuse(now, session, envelope, ErrorKind::Undecodable));
        };
        // Every request replaces the subscription before it. What that has not told yet is told now: the
        // answer may be overtaken, and its reader must not take an older word for the last one.
        if self.subscriptions.due().is_some() {
            self.send_updates();
        }
        self.subscriptions.cancel(session);
        let with_places = envelope.flags.contains(Flags::PLACES);
        let query = Query::new(request.query);
        let uris = query.answer(&self.inventory);
        let subscriptions = &mut self.subscriptions;
        if request.subscribe
            && !subscriptions.subscribe(session, client.clone(), query, with_places)
        {
            return Some(self.refuse(now, session, envelope, ErrorKind::Busy));
        }
        let here = &self.config.certname;
        let brokers = uris.iter().map(|uri| self.broker_of(uri).unwrap_or(here));
        let places = with_places.then(|| Places::of(brokers));
        let body = to_vec(&InventoryResponse { uris, places }).unwrap_or_default();
        let response = self
            .author
            .write(inventory_response(), client, Some(envelope.id), body);
        self.answer(session, response);
        None
    }

    /// Sends what subscribers have not heard yet.
    pub(super) fn send_updates(&mut self) {
        let mut subscriptions = std::mem::take(&mut self.subscriptions);
        let updates = subscriptions.updates(|uri| self.broker_of(uri));
        self.subscriptions = subscriptions;
        for update in updates {
            let changes = update.changes;
            let body = to_vec(&InventoryUpdate { changes }).unwrap_or_default();
            let message = self
                .author
                .write(inventory_update(), update.uri, None, body);
            self.answer(update.session, message);
        }
    }

    /// The broker that a client is connected to, as far as is known here: another primary's compilers
    /// are known as that primary.
    fn broker_of(&self, uri: &Uri) -> Option<&Certname> {
        let place = self.inventory.best(uri, |_| true)?;
        let link = self.links.get(&place.session);
        Some(link.map_or(&self.config.certname, |link| &link.broker))
    }

    fn answer(&mut self, session: SessionId, mut message: Message) {
        pass_on(&mut message.envelope);
        self.counters.answered += 1;
        self.outputs.push_back(Output::Send { session, message });
    }

    /// The broker's own message found no room: an update is repeated, since a subscriber that misses
    /// one would be wrong for ever. A client that does not take the answer to its own question, or
    /// has missed more than can be kept, is closed, and may ask again. Errors are dropped.
    fn own_undeliverable(&mut self, now: u64, session: SessionId, message: &Message) {
        let message_type = &message.envelope.message_type;
        let followed = if *message_type == inventory_update() {
            self.counters.updates_repeated += 1;
            let update = serde_json::from_slice::<InventoryUpdate>(&message.body);
            let changes = update.map(|update| update.changes).unwrap_or_default();
            let clients = changes.into_iter().map(|change| change.client);
            self.subscriptions.missed(now, session, clients)
        } else {
            self.counters.dropped += 1;
            *message_type != inventory_response()
        };
        if !followed && self.clients.contains_key(&session) {
            self.client_disconnected(now, session);
            self.close(
                session,
                GoodbyeCode::Unavailable,
                "too slow to follow the inventory",
            );
        }
    }
}
