//! What the mesh promises, checked at every message a client gets and whenever the world is quiet.

use std::collections::{BTreeMap, BTreeSet};

use pcp::message::MAX_HOPS;
use pcp::{ErrorKind, InventoryResponse, InventoryUpdate, Message, Target, Uri};
use pcp_mesh::{Role, Verdict};

use crate::world::{GRACE_PERIOD, World, number};

/// Long enough for idle timeouts, redials and reconnects to be over, with clocks up to a minute off.
const SETTLE: u64 = 180_000;

/// What may become of a message in a quiet world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Delivered,
    Refused,
    /// It depends on which primary its compiler chooses.
    Either,
}

impl World {
    /// A client got a message.
    pub(crate) fn received(&mut self, client: usize, message: &Message) {
        let envelope = &message.envelope;
        if envelope.hops > MAX_HOPS {
            self.fail(format!("too many hops: {envelope:?}"));
        }
        if envelope.target != Target::Client(self.clients[client].uri.clone()) {
            self.fail(format!(
                "client {client} got a stranger's message: {envelope:?}"
            ));
            return;
        }
        match envelope.message_type.name() {
            Some("error_message") => self.received_error(client, message),
            Some("inventory_response") => {
                let body: InventoryResponse = serde_json::from_slice(&message.body).unwrap();
                if let Some((id, view)) = &mut self.clients[client].view
                    && Some(*id) == envelope.in_reply_to
                {
                    *view = Some(body.uris.into_iter().collect());
                }
            }
            Some("inventory_update") => {
                let body: InventoryUpdate = serde_json::from_slice(&message.body).unwrap();
                if let Some((_, Some(view))) = &mut self.clients[client].view {
                    for change in body.changes {
                        match change.change {
                            1 => view.insert(change.client),
                            _ => view.remove(&change.client),
                        };
                    }
                }
            }
            _ => self.received_request(client, message),
        }
    }

    fn received_error(&mut self, client: usize, message: &Message) {
        let kind = ErrorKind::from_body(&message.body).unwrap();
        let cause = message.envelope.in_reply_to.and_then(number);
        let Some(sent) = cause.and_then(|number| self.ledger.get_mut(number)) else {
            // About a request for the inventory: it will ask again.
            self.clients[client].view = None;
            return;
        };
        sent.errors.push(kind);
        let (from, outcomes) = (sent.from, sent.outcomes());
        if kind == ErrorKind::TooManyHops {
            self.fail(format!("went in circles: {message:?}"));
        }
        if from != client {
            self.fail(format!("client {client} got the error of client {from}"));
        }
        if outcomes > 1 {
            self.fail(format!("a second outcome: {message:?}"));
        }
    }

    fn received_request(&mut self, client: usize, message: &Message) {
        let Some(sent) = number(message.envelope.id).and_then(|n| self.ledger.get_mut(n)) else {
            self.fail(format!("nobody has sent {message:?}"));
            return;
        };
        sent.delivered += 1;
        sent.hops = message.envelope.hops;
        let outcomes = sent.outcomes();
        let mut original = sent.message.clone();
        original.envelope.hops = message.envelope.hops;
        let forbidden = sent.forbidden;
        if original != *message {
            self.fail(format!(
                "{original:?} was changed on its way to {message:?}"
            ));
        }
        if outcomes > 1 {
            self.fail(format!("a second outcome: {message:?}"));
        }
        if let Some(kind) = forbidden {
            self.fail(format!("delivered in spite of {kind:?}: {message:?}"));
        }
        if self.replies && !self.clients[client].controller && self.random.one_in(2) {
            let back = message.envelope.sender.clone();
            self.say(client, back, None, Verdict::Allowed);
        }
    }

    /// Lets the world come to rest as it is, and checks that everybody knows the truth and that
    /// messages find their way, or come back.
    pub(crate) fn check_quiet(&mut self) {
        self.note(|| "to rest".to_owned());
        self.pressure = false;
        self.replies = false;
        self.run(SETTLE);
        for client in 0..self.clients.len() {
            let wanted = self.clients[client].wants;
            let up = wanted.is_some_and(|broker| self.brokers[broker].node.is_some());
            if up && self.live(client) != wanted {
                self.fail(format!("client {client} is not at broker {wanted:?}"));
            }
            // Who has followed the inventory so far must know the truth from that alone.
            if self.clients[client].controller && self.clients[client].view.is_none() {
                self.subscribe(client);
            }
        }
        self.run(2_000);
        self.check_inventories();
        if self.fault.is_none() {
            self.check_messages();
        }
        self.replies = true;
    }

    fn check_inventories(&mut self) {
        for broker in 0..self.brokers.len() {
            let Some(node) = &self.brokers[broker].node else {
                continue;
            };
            let known: BTreeMap<Uri, u64> = node
                .inventory()
                .map(|entry| (entry.uri.clone(), entry.started))
                .collect();
            let sizes = node.sizes();
            let mut truth = BTreeMap::new();
            let mut own = 0;
            for client in 0..self.clients.len() {
                let Some(at) = self.live(client) else {
                    continue;
                };
                own += usize::from(at == broker);
                let primary = self.brokers[broker].role == Role::Primary;
                if at == broker || (primary && self.knows(broker, at)) {
                    let actor = &self.clients[client];
                    truth.insert(actor.uri.clone(), actor.started);
                }
            }
            if known != truth {
                self.fail(format!(
                    "broker {broker} knows {known:?}, the truth is {truth:?}"
                ));
            }
            if sizes.clients != own
                || sizes.waiting_messages + sizes.waiting_bytes + sizes.early_messages != 0
                || sizes.absent_messages + sizes.absent_bytes != 0
            {
                self.fail(format!(
                    "broker {broker} has {own} clients and holds {sizes:?}"
                ));
            }
            let agents: BTreeSet<&Uri> = truth
                .keys()
                .filter(|uri| uri.client_type().as_str() == "agent")
                .collect();
            for client in 0..self.clients.len() {
                if self.live(client) != Some(broker) || !self.clients[client].controller {
                    continue;
                }
                let view = self.clients[client].view.as_ref();
                let view: Option<BTreeSet<&Uri>> =
                    view.and_then(|(_, view)| view.as_ref().map(|view| view.iter().collect()));
                if view.as_ref() != Some(&agents) {
                    let text = format!("client {client} sees {view:?}, the truth is {agents:?}");
                    self.fail(text);
                    return;
                }
            }
        }
    }

    /// Whether a primary knows the clients of another broker: its compilers', those of the other
    /// primaries, and those of their compilers.
    fn knows(&self, primary: usize, other: usize) -> bool {
        self.linked(primary, other)
            || self.brokers.iter().enumerate().any(|(third, broker)| {
                broker.role == Role::Primary
                    && self.linked(primary, third)
                    && self.brokers[other].role == Role::Compiler
                    && self.linked(third, other)
            })
    }

    fn fate(&self, from: usize, to: &Uri) -> Fate {
        let target = self.clients.iter().position(|client| client.uri == *to);
        let Some(at) = target.and_then(|target| self.live(target)) else {
            return Fate::Refused;
        };
        let Some(start) = self.live(from) else {
            return Fate::Either;
        };
        let reach = |primary: usize| primary == at || self.knows(primary, at);
        let certain = |found: bool| {
            if found {
                Fate::Delivered
            } else {
                Fate::Refused
            }
        };
        if start == at {
            return Fate::Delivered;
        }
        if self.brokers[start].role == Role::Primary {
            return certain(reach(start));
        }
        let ways: Vec<bool> = (0..self.brokers.len())
            .filter(|up| self.brokers[*up].role == Role::Primary && self.linked(start, *up))
            .map(reach)
            .collect();
        if ways.iter().any(|way| *way) && ways.iter().any(|way| !way) {
            Fate::Either
        } else {
            certain(ways.contains(&true))
        }
    }

    fn check_messages(&mut self) {
        let first = self.ledger.len();
        let mut fates = Vec::new();
        for from in 0..self.clients.len() {
            let mut targets: Vec<Uri> = self.clients.iter().map(|c| c.uri.clone()).collect();
            targets.push("pcp://nobody/agent".parse().unwrap());
            for to in targets {
                let fate = self.fate(from, &to);
                let before = self.ledger.len();
                self.say(from, to, None, Verdict::Allowed);
                if self.ledger.len() > before {
                    fates.push(fate);
                }
            }
        }
        self.run(GRACE_PERIOD + 5_000);
        for (offset, fate) in fates.into_iter().enumerate() {
            let sent = &self.ledger[first + offset];
            let fits = match fate {
                Fate::Delivered => sent.delivered == 1 && sent.errors.is_empty(),
                Fate::Refused => sent.delivered == 0 && sent.errors.len() == 1,
                Fate::Either => sent.outcomes() == 1,
            };
            if !fits {
                self.fail(format!(
                    "{:?} should be {fate:?}, was delivered {} times, with errors {:?}",
                    sent.message, sent.delivered, sent.errors
                ));
                return;
            }
        }
        self.check_answers(first);
    }

    /// An answer finds its way back to whoever has just asked, even when the primaries do not see
    /// each other.
    fn check_answers(&mut self, first: usize) {
        let end = self.ledger.len();
        for asked in first..end {
            let sent = &self.ledger[asked];
            let (from, Target::Client(to)) = (sent.from, sent.message.envelope.target.clone())
            else {
                continue;
            };
            let to = self.clients.iter().position(|client| client.uri == to);
            if let (1, true, Some(to)) = (sent.delivered, self.clients[from].controller, to) {
                let back = self.clients[from].uri.clone();
                self.say(to, back, None, Verdict::Allowed);
            }
        }
        self.run(5_000);
        for answer in end..self.ledger.len() {
            let sent = &self.ledger[answer];
            if sent.delivered != 1 {
                let (message, errors) = (&sent.message, &sent.errors);
                self.fail(format!(
                    "an answer got lost: {message:?}, errors {errors:?}"
                ));
                return;
            }
        }
    }

    /// Checks what must hold although clients have just moved and left, while all links and brokers
    /// are sound: `first` is the first message since they are.
    pub(crate) fn check_calm(&mut self, first: usize) {
        self.replies = false;
        // Whoever was on its way when the last messages went out is waited for.
        self.run(GRACE_PERIOD + 2_000);
        for sent in first..self.ledger.len() {
            let sent = &self.ledger[sent];
            // An error goes to the session that asked, and is lost when that has ended.
            let left = self.clients[sent.from].connection != Some(sent.connection);
            if sent.outcomes() != 1 && !sent.missed_its_client && !left {
                self.fail(format!("no outcome: {:?}", sent.message));
                return;
            }
        }
        let probes = self.ledger.len();
        for client in 0..self.clients.len() {
            let Some(at) = self.live(client) else {
                continue;
            };
            let (uri, started) = (
                self.clients[client].uri.clone(),
                self.clients[client].started,
            );
            for broker in 0..self.brokers.len() {
                let Some(node) = &self.brokers[broker].node else {
                    continue;
                };
                let entry = node.inventory().find(|entry| *entry.uri == uri);
                let entry = entry.map(|entry| (entry.started, entry.via.cloned()));
                let fits = match (&entry, self.brokers[broker].role) {
                    (None, Role::Compiler) => at != broker,
                    (None, Role::Primary) => false,
                    (Some((newest, None)), _) => at == broker && *newest == started,
                    (Some((newest, Some(_))), _) => at != broker && *newest == started,
                };
                if !fits {
                    self.fail(format!(
                        "client {client} is at broker {at} since {started}, \
                         broker {broker} believes {entry:?}"
                    ));
                    return;
                }
            }
            for from in 0..self.clients.len() {
                self.say(from, uri.clone(), None, Verdict::Allowed);
            }
        }
        self.run(2_000);
        for sent in &self.ledger[probes..] {
            if sent.delivered != 1 {
                let (message, errors) = (&sent.message, &sent.errors);
                self.fail(format!("not delivered: {message:?}, errors {errors:?}"));
                return;
            }
        }
    }
}

impl crate::world::Sent {
    fn outcomes(&self) -> usize {
        self.delivered as usize + self.errors.len()
    }
}
