//! The network of the simulated world: connections, what travels on them, who dials whom, and the
//! drivers, which do nothing but carry out what their nodes say.

use pcp::{ErrorKind, Message};
use pcp_mesh::{LinkKind, Node, Output, Role, SessionId, Verdict};

use crate::world::{
    Connection, Dial, End, Event, GRACE_MESSAGES, IDLE_TIMEOUT, Item, LARGE, World, number,
};

impl World {
    pub(crate) fn arrive(&mut self, index: usize, side: usize, item: Item) {
        let connection = &self.connections[index];
        let fits = match item {
            Item::Hello | Item::Welcome => true,
            _ => connection.open[side],
        };
        // A broker may have taken a hello before the cut, and get to handling it behind that of the next
        // connection.
        let late = matches!((&item, connection.ends[0]), (Item::Hello, End::Broker(_)));
        if (connection.cut && !late) || !fits {
            self.lose(index, &item);
            return;
        }
        let (end, peer, started) = (
            connection.ends[side],
            connection.ends[1 - side],
            connection.started,
        );
        self.note(|| format!("#{index} to {end:?}: {item:?}"));
        let session = SessionId(index as u64);
        match (end, item) {
            (_, Item::Goodbye) => self.ended(index, side),
            (End::Broker(broker), Item::Hello) => {
                self.connections[index].open[1] = true;
                if self.connections[index].cut {
                    self.notice_later(index, 1);
                }
                self.send(index, 0, Item::Welcome);
                match peer {
                    End::Client(client) => {
                        let uri = self.clients[client].uri.clone();
                        self.with_node(broker, |node, now| {
                            node.client_connected(now, session, uri, started);
                        });
                    }
                    End::Broker(dialler) => {
                        let certname = self.brokers[dialler].certname.clone();
                        let kind = match self.brokers[dialler].role {
                            Role::Primary => LinkKind::Peer,
                            Role::Compiler => LinkKind::Down,
                        };
                        let newer = self.newer(index);
                        self.with_node(broker, |node, now| {
                            node.link_connected(now, session, certname, kind, started);
                        });
                        if self.newer(index) != newer {
                            self.fail(format!("link #{index} has closed a newer one"));
                        }
                    }
                }
            }
            (End::Broker(broker), Item::Welcome) => {
                self.connections[index].open[0] = true;
                let End::Broker(peer) = peer else { return };
                let certname = self.brokers[peer].certname.clone();
                self.with_node(broker, |node, now| {
                    node.link_connected(now, session, certname, LinkKind::Up, 0);
                });
            }
            (End::Broker(broker), Item::Message(message)) => {
                let verdict = match peer {
                    End::Client(_) => self.verdict(&message),
                    End::Broker(_) => Verdict::Allowed,
                };
                self.with_node(broker, |node, now| {
                    node.message(now, session, message, verdict);
                });
            }
            (End::Broker(broker), Item::Link(frame)) => {
                let mut result = Ok(());
                self.with_node(broker, |node, now| {
                    result = node.link_frame(now, session, frame);
                });
                if let Err(fault) = result {
                    self.fail(format!("a broker is said to misbehave: {fault}"));
                }
            }
            (End::Client(_), Item::Welcome) => self.connections[index].open[0] = true,
            (End::Client(client), Item::Message(message)) => self.received(client, &message),
            (End::Client(_), Item::Hello | Item::Link(_)) => {
                self.fail("a client got a broker's frame".to_owned());
            }
        }
    }

    pub(crate) fn verdict(&self, message: &Message) -> Verdict {
        number(message.envelope.id)
            .and_then(|number| self.ledger.get(number))
            .map_or(Verdict::Allowed, |sent| sent.verdict)
    }

    /// Puts something on its way to one side of a connection.
    pub(crate) fn send(&mut self, index: usize, side: usize, item: Item) {
        let delay = self.random.between(1, 150);
        if self.connections[index].cut {
            self.lose(index, &item);
            return;
        }
        let connection = &mut self.connections[index];
        let mut at = self.now + delay;
        let large = matches!(&item, Item::Message(message) if message.body.len() > LARGE);
        if !large {
            at = at.max(connection.last[side]);
            connection.last[side] = at;
        }
        self.schedule(
            at,
            Event::Arrive {
                connection: index,
                side,
                item,
            },
        );
    }

    /// Something gets lost: when it was between a broker and a client, nobody can help that.
    pub(crate) fn lose(&mut self, index: usize, item: &Item) {
        if let (Item::Message(message), End::Client(_)) = (item, self.connections[index].ends[0]) {
            for id in [Some(message.envelope.id), message.envelope.in_reply_to] {
                if let Some(sent) = id.and_then(number).and_then(|n| self.ledger.get_mut(n)) {
                    sent.missed_its_client = true;
                }
            }
        }
    }

    /// One end of a connection ends, by goodbye or by silence.
    pub(crate) fn ended(&mut self, index: usize, side: usize) {
        self.connections[index].open[side] = false;
        let session = SessionId(index as u64);
        match self.connections[index].ends {
            [End::Client(client), _] if side == 0 => {
                if self.clients[client].connection == Some(index) {
                    self.clients[client].connection = None;
                    self.clients[client].view = None;
                    self.connect_later(client);
                }
            }
            [End::Client(_), End::Broker(broker)] => {
                self.with_node(broker, |node, now| node.client_disconnected(now, session));
            }
            ends => {
                if let End::Broker(broker) = ends[side] {
                    self.with_node(broker, |node, now| node.link_disconnected(now, session));
                }
                if side == 0 {
                    self.dial_later(index);
                }
            }
        }
    }

    pub(crate) fn dial_later(&mut self, connection: usize) {
        if let Some(dial) = self
            .dials
            .iter()
            .position(|dial| dial.connection == Some(connection))
        {
            self.dials[dial].connection = None;
            let at = self.now + self.random.between(100, 5000);
            self.schedule(at, Event::Dial(dial));
        }
    }

    pub(crate) fn connect_later(&mut self, client: usize) {
        let at = self.now + self.random.between(100, 5000);
        self.schedule(at, Event::Connect(client));
    }

    /// Gives a node an input and carries out what it wants.
    pub(crate) fn with_node(&mut self, broker: usize, input: impl FnOnce(&mut Node, u64)) {
        let now = self.now;
        let Some(node) = &mut self.brokers[broker].node else {
            return;
        };
        input(node, now);
        let mut outputs = Vec::new();
        let mut dead = Vec::new();
        while let Some(output) = node.poll() {
            match output {
                Output::Send { session, message } if self.pressure && self.random.one_in(10) => {
                    node.undeliverable(now, session, message, ErrorKind::Busy);
                }
                Output::Send { session, message } if self.pressure && self.random.one_in(20) => {
                    // The driver finds the session dead.
                    let index = usize::try_from(session.0).unwrap();
                    if matches!(self.connections[index].ends[0], End::Client(_)) {
                        node.client_disconnected(now, session);
                        node.undeliverable(now, session, message, ErrorKind::NotConnected);
                    } else {
                        let up = self.connections[index].ends[0] == End::Broker(broker);
                        node.link_disconnected(now, session);
                        let kind = if up {
                            ErrorKind::Unreachable
                        } else {
                            ErrorKind::NotConnected
                        };
                        node.undeliverable(now, session, message, kind);
                    }
                    dead.push(index);
                }
                output => outputs.push(output),
            }
        }
        let sizes = node.sizes();
        if sizes.waiting_messages > GRACE_MESSAGES || sizes.absent_messages > GRACE_MESSAGES {
            self.fail(format!("more messages wait than may: {sizes:?}"));
        }
        for output in outputs {
            self.carry_out(broker, output);
        }
        for index in dead {
            self.die(broker, index);
        }
    }

    /// A broker has found one of its sessions dead; the other end finds out by itself.
    fn die(&mut self, broker: usize, index: usize) {
        let own = usize::from(self.connections[index].ends[0] != End::Broker(broker));
        self.note(|| format!("#{index} is dead to broker {broker}"));
        self.cut(index, [own != 0, own != 1]);
        self.connections[index].open[own] = false;
        if own == 0 {
            self.dial_later(index);
        }
    }

    pub(crate) fn carry_out(&mut self, broker: usize, output: Output) {
        let (Output::Send { session, .. }
        | Output::SendLink { session, .. }
        | Output::Close { session, .. }) = output;
        let index = usize::try_from(session.0).unwrap();
        let ends = self.connections[index].ends;
        let own = usize::from(ends[0] != End::Broker(broker));
        if !self.connections[index].open[own] {
            self.fail(format!("output for closed session #{index}: {output:?}"));
            return;
        }
        match output {
            Output::Send { message, .. } => self.send(index, 1 - own, Item::Message(message)),
            Output::SendLink { frame, .. } => self.send(index, 1 - own, Item::Link(frame)),
            Output::Close { code, .. } => {
                self.note(|| format!("#{index} closed by broker {broker}: {code:?}"));
                self.send(index, 1 - own, Item::Goodbye);
                self.connections[index].open[own] = false;
                if own == 0 {
                    self.dial_later(index);
                }
            }
        }
    }

    pub(crate) fn open(&mut self, ends: [End; 2], started: u64) -> usize {
        let index = self.connections.len();
        self.connections.push(Connection {
            ends,
            open: [false, false],
            cut: false,
            started,
            last: [0, 0],
        });
        self.send(index, 1, Item::Hello);
        index
    }

    pub(crate) fn reachable(&self, a: usize, b: usize) -> bool {
        !self.cuts.contains(&(a.min(b), a.max(b)))
            && self.brokers[a].node.is_some()
            && self.brokers[b].node.is_some()
    }

    pub(crate) fn dial(&mut self, dial: usize) {
        let Dial {
            from,
            to,
            connection,
        } = self.dials[dial];
        if connection.is_some() || self.brokers[from].node.is_none() {
            return;
        }
        if self.reachable(from, to) {
            let dialler = &mut self.brokers[from];
            dialler.started = (1_000_000 + self.now).max(dialler.started + 1);
            let started = dialler.started;
            let index = self.open([End::Broker(from), End::Broker(to)], started);
            self.dials[dial].connection = Some(index);
        } else {
            let at = self.now + self.random.between(1000, 5000);
            self.schedule(at, Event::Dial(dial));
        }
    }

    pub(crate) fn connect(&mut self, client: usize) {
        let actor = &self.clients[client];
        let (Some(broker), None) = (actor.wants, actor.connection) else {
            return;
        };
        if self.brokers[broker].node.is_none() {
            self.connect_later(client);
            return;
        }
        let actor = &mut self.clients[client];
        actor.started = (1_000_000 + self.now + actor.skew).max(actor.started + 1);
        let started = actor.started;
        let index = self.open([End::Client(client), End::Broker(broker)], started);
        self.clients[client].connection = Some(index);
    }

    /// Cuts a connection: each end that is still there notices some time later.
    pub(crate) fn cut(&mut self, index: usize, notices: [bool; 2]) {
        if self.connections[index].cut {
            return;
        }
        self.connections[index].cut = true;
        for (side, notices) in notices.into_iter().enumerate() {
            if notices {
                // Also an end that waits for a welcome gives up in time.
                self.connections[index].open[side] |= side == 0;
                self.notice_later(index, side);
            }
        }
    }

    /// One end notices some time later that a connection is cut.
    fn notice_later(&mut self, connection: usize, side: usize) {
        let at = self.now + self.random.between(1, IDLE_TIMEOUT);
        self.schedule(at, Event::Lost { connection, side });
    }

    /// The open links between the same brokers that were dialled after this one.
    fn newer(&self, index: usize) -> Vec<usize> {
        let (before, ends) = (index + 1, self.connections[index].ends);
        let newer = self.connections.iter().enumerate().skip(before);
        let newer = newer.filter(|(_, other)| other.ends == ends && other.open[1]);
        newer.map(|(index, _)| index).collect()
    }
}
