//! The simulated world: brokers (real nodes), clients, and the network between them. Time is a
//! number, and everything that is on its way stands in one queue, so that a seed decides all.
//!
//! A connection keeps the order of what is sent on it, as a QUIC stream does, except that large
//! messages overtake and are overtaken, as those on streams of their own are. Connections do not
//! wait for each other. What is on its way when a connection is cut is lost, and each end notices
//! on its own, up to an idle timeout later.

use std::collections::{BTreeMap, BTreeSet};

use pcp::{
    Certname, Envelope, ErrorKind, Flags, LinkFrame, Message, MessageId, MessageType, Target, Uri,
};
use pcp_mesh::{LinkKind, Node, NodeConfig, Output, Role, SessionId, Verdict};

use crate::random::Random;

/// How long an end may take to notice that the other one is gone (the idle timeout of sessions).
const IDLE_TIMEOUT: u64 = 45_000;

/// The grace period of the simulated compilers.
pub(crate) const GRACE_PERIOD: u64 = 20_000;

/// How many messages the simulated compilers keep without a primary.
pub(crate) const GRACE_MESSAGES: usize = 8;

pub(crate) struct World {
    pub now: u64,
    pub random: Random,
    pub brokers: Vec<Broker>,
    pub clients: Vec<Client>,
    pub connections: Vec<Connection>,
    pub dials: Vec<Dial>,
    /// Pairs of brokers, the lower first, that cannot reach each other.
    pub cuts: BTreeSet<(usize, usize)>,
    pub ledger: Vec<Sent>,
    /// Queues of the drivers are full now and then.
    pub pressure: bool,
    /// Agents answer what they get.
    pub replies: bool,
    /// What happened, when it is to be told.
    pub log: Option<Vec<String>>,
    /// The first promise that was broken.
    pub fault: Option<String>,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
}

pub(crate) struct Broker {
    pub certname: Certname,
    pub role: Role,
    /// Nothing while it is down.
    pub node: Option<Node>,
}

pub(crate) struct Client {
    pub uri: Uri,
    pub controller: bool,
    /// The broker it wants to be connected to.
    pub wants: Option<usize>,
    /// Its connection, from dialling until it knows of its end.
    pub connection: Option<usize>,
    /// What its clock shows beyond the world's.
    pub skew: u64,
    /// The start of its last session.
    pub started: u64,
    /// What it knows of the inventory, by its subscription with this request.
    pub view: Option<(MessageId, Option<BTreeSet<Uri>>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Client(usize),
    Broker(usize),
}

pub(crate) struct Connection {
    /// The dialler and the one it dialled.
    pub ends: [End; 2],
    /// Which end thinks that it is open.
    pub open: [bool; 2],
    pub cut: bool,
    pub started: u64,
    last: [u64; 2],
}

/// A link that a broker wants to another.
pub(crate) struct Dial {
    pub from: usize,
    pub to: usize,
    pub connection: Option<usize>,
}

/// One message that a client sent, and what became of it.
pub(crate) struct Sent {
    /// The session that it was sent in.
    pub connection: usize,
    pub from: usize,
    pub message: Message,
    /// The broker must stop it: a forged sender, or a rule.
    pub forbidden: Option<ErrorKind>,
    pub verdict: Verdict,
    pub delivered: u32,
    /// How many brokers had passed it on when it was delivered.
    pub hops: u8,
    pub errors: Vec<ErrorKind>,
    /// It, or its error, was on its way from or to a client that left: nobody can help that.
    pub missed_its_client: bool,
}

enum Event {
    Arrive {
        connection: usize,
        side: usize,
        item: Item,
    },
    /// An end notices that a connection was cut.
    Lost {
        connection: usize,
        side: usize,
    },
    Dial(usize),
    Connect(usize),
}

#[derive(Debug)]
enum Item {
    Hello,
    Welcome,
    Message(Message),
    Link(LinkFrame),
    Goodbye,
}

impl World {
    pub(crate) fn new(random: Random, log: bool) -> Self {
        Self {
            now: 0,
            random,
            brokers: Vec::new(),
            clients: Vec::new(),
            connections: Vec::new(),
            dials: Vec::new(),
            cuts: BTreeSet::new(),
            ledger: Vec::new(),
            pressure: false,
            replies: true,
            log: log.then(Vec::new),
            fault: None,
            queue: BTreeMap::new(),
            scheduled: 0,
        }
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>8} {}", self.now, text()));
        }
    }

    pub(crate) fn fail(&mut self, text: String) {
        self.note(|| format!("FAULT {text}"));
        self.fault.get_or_insert(text);
    }

    /// Lets `span` milliseconds pass.
    pub(crate) fn run(&mut self, span: u64) {
        let end = self.now + span;
        while self.fault.is_none() {
            let event = self.queue.first_key_value().map(|(key, _)| key.0);
            let tick = self
                .brokers
                .iter()
                .filter_map(|broker| broker.node.as_ref()?.next_tick())
                .min();
            let Some(next) = event.into_iter().chain(tick).min().filter(|t| *t <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= next) {
                let (_, event) = self.queue.pop_first().unwrap();
                self.happen(event);
            } else {
                for broker in 0..self.brokers.len() {
                    self.with_node(broker, |node, now| node.tick(now));
                }
            }
        }
        self.now = end;
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Dial(dial) => self.dial(dial),
            Event::Connect(client) => self.connect(client),
            Event::Lost { connection, side } => {
                if self.connections[connection].open[side] {
                    self.ended(connection, side);
                }
            }
            Event::Arrive {
                connection,
                side,
                item,
            } => self.arrive(connection, side, item),
        }
    }

    fn arrive(&mut self, index: usize, side: usize, item: Item) {
        let connection = &self.connections[index];
        let fits = match item {
            Item::Hello | Item::Welcome => true,
            _ => connection.open[side],
        };
        if connection.cut || !fits {
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
                        self.with_node(broker, |node, now| {
                            node.link_connected(now, session, certname, kind);
                        });
                    }
                }
            }
            (End::Broker(broker), Item::Welcome) => {
                self.connections[index].open[0] = true;
                let End::Broker(peer) = peer else { return };
                let certname = self.brokers[peer].certname.clone();
                self.with_node(broker, |node, now| {
                    node.link_connected(now, session, certname, LinkKind::Up);
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

    fn verdict(&self, message: &Message) -> Verdict {
        number(message.envelope.id)
            .and_then(|number| self.ledger.get(number))
            .map_or(Verdict::Allowed, |sent| sent.verdict)
    }

    /// Puts something on its way to one side of a connection.
    fn send(&mut self, index: usize, side: usize, item: Item) {
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
    fn lose(&mut self, index: usize, item: &Item) {
        if let (Item::Message(message), End::Client(_)) = (item, self.connections[index].ends[0]) {
            for id in [Some(message.envelope.id), message.envelope.in_reply_to] {
                if let Some(sent) = id.and_then(number).and_then(|n| self.ledger.get_mut(n)) {
                    sent.missed_its_client = true;
                }
            }
        }
    }

    /// One end of a connection ends, by goodbye or by silence.
    fn ended(&mut self, index: usize, side: usize) {
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

    fn dial_later(&mut self, connection: usize) {
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

    fn connect_later(&mut self, client: usize) {
        let at = self.now + self.random.between(100, 5000);
        self.schedule(at, Event::Connect(client));
    }

    /// Gives a node an input and carries out what it wants.
    fn with_node(&mut self, broker: usize, input: impl FnOnce(&mut Node, u64)) {
        let now = self.now;
        let Some(node) = &mut self.brokers[broker].node else {
            return;
        };
        input(node, now);
        let mut outputs = Vec::new();
        while let Some(output) = node.poll() {
            match output {
                Output::Send { session, message } if self.pressure && self.random.one_in(10) => {
                    node.undeliverable(now, session, message, ErrorKind::Busy);
                }
                output => outputs.push(output),
            }
        }
        let sizes = node.sizes();
        if sizes.waiting_messages > GRACE_MESSAGES {
            self.fail(format!("{} messages wait", sizes.waiting_messages));
        }
        for output in outputs {
            self.carry_out(broker, output);
        }
    }

    fn carry_out(&mut self, broker: usize, output: Output) {
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

    fn open(&mut self, ends: [End; 2], started: u64) -> usize {
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

    fn dial(&mut self, dial: usize) {
        let Dial {
            from,
            to,
            connection,
        } = self.dials[dial];
        if connection.is_some() || self.brokers[from].node.is_none() {
            return;
        }
        if self.reachable(from, to) {
            let index = self.open([End::Broker(from), End::Broker(to)], 0);
            self.dials[dial].connection = Some(index);
        } else {
            let at = self.now + self.random.between(1000, 5000);
            self.schedule(at, Event::Dial(dial));
        }
    }

    fn connect(&mut self, client: usize) {
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
    fn cut(&mut self, index: usize, notices: [bool; 2]) {
        if self.connections[index].cut {
            return;
        }
        self.connections[index].cut = true;
        for (side, notices) in notices.into_iter().enumerate() {
            if notices {
                // Also an end that waits for a welcome gives up in time.
                self.connections[index].open[side] |= side == 0;
                let at = self.now + self.random.between(1, IDLE_TIMEOUT);
                self.schedule(
                    at,
                    Event::Lost {
                        connection: index,
                        side,
                    },
                );
            }
        }
    }

    // What the tests do to the world.

    pub(crate) fn add_broker(&mut self, name: &str, role: Role) -> usize {
        self.brokers.push(Broker {
            certname: name.parse().unwrap(),
            role,
            node: None,
        });
        self.brokers.len() - 1
    }

    pub(crate) fn add_dial(&mut self, from: usize, to: usize) {
        self.dials.push(Dial {
            from,
            to,
            connection: None,
        });
    }

    pub(crate) fn start(&mut self, broker: usize) {
        if self.brokers[broker].node.is_some() {
            return;
        }
        self.note(|| format!("broker {broker} starts"));
        let mut config = NodeConfig::new(
            self.brokers[broker].certname.clone(),
            self.brokers[broker].role,
        );
        config.grace_period = GRACE_PERIOD;
        config.grace_messages = GRACE_MESSAGES;
        self.brokers[broker].node = Some(Node::new(config, 1_000_000 + self.now));
        for dial in 0..self.dials.len() {
            if self.dials[dial].from == broker {
                self.schedule(self.now, Event::Dial(dial));
            }
        }
    }

    pub(crate) fn crash(&mut self, broker: usize) {
        if self.brokers[broker].node.take().is_none() {
            return;
        }
        self.note(|| format!("broker {broker} crashes"));
        let end = End::Broker(broker);
        for index in 0..self.connections.len() {
            let ends = self.connections[index].ends;
            if ends.contains(&end) {
                self.cut(index, [ends[0] != end, ends[1] != end]);
                for (side, own) in ends.iter().enumerate() {
                    if *own == end {
                        self.connections[index].open[side] = false;
                    }
                }
            }
        }
        for dial in &mut self.dials {
            if dial.from == broker {
                dial.connection = None;
            }
        }
    }

    pub(crate) fn cut_path(&mut self, a: usize, b: usize) {
        self.note(|| format!("path {a} - {b} is cut"));
        self.cuts.insert((a.min(b), a.max(b)));
        for index in 0..self.connections.len() {
            let ends = self.connections[index].ends;
            if ends.contains(&End::Broker(a)) && ends.contains(&End::Broker(b)) {
                self.cut(index, [true, true]);
            }
        }
    }

    pub(crate) fn heal_path(&mut self, a: usize, b: usize) {
        self.note(|| format!("path {a} - {b} heals"));
        self.cuts.remove(&(a.min(b), a.max(b)));
    }

    /// The client goes to a broker, from wherever it was.
    pub(crate) fn go(&mut self, client: usize, broker: usize) {
        if self.clients[client].wants != Some(broker) {
            let quietly = self.random.one_in(2);
            self.leave(client, quietly);
        }
        self.note(|| format!("client {client} goes to broker {broker}"));
        self.clients[client].wants = Some(broker);
        self.schedule(self.now, Event::Connect(client));
    }

    /// The client leaves; quietly means that its broker has to find out.
    pub(crate) fn leave(&mut self, client: usize, quietly: bool) {
        self.note(|| format!("client {client} leaves, quietly: {quietly}"));
        let actor = &mut self.clients[client];
        actor.wants = None;
        actor.view = None;
        let Some(index) = actor.connection.take() else {
            return;
        };
        if quietly {
            self.cut(index, [false, true]);
        } else {
            self.send(index, 1, Item::Goodbye);
        }
        self.connections[index].open[0] = false;
    }

    /// Whether the client has a working session.
    pub(crate) fn live(&self, client: usize) -> Option<usize> {
        let index = self.clients[client].connection?;
        let connection = &self.connections[index];
        let End::Broker(broker) = connection.ends[1] else {
            return None;
        };
        (!connection.cut && connection.open == [true, true]).then_some(broker)
    }

    /// Whether a working link joins two brokers.
    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        self.dials.iter().any(|dial| {
            let joins = (dial.from, dial.to) == (a, b) || (dial.from, dial.to) == (b, a);
            joins
                && dial.connection.is_some_and(|index| {
                    let connection = &self.connections[index];
                    !connection.cut && connection.open == [true, true]
                })
        })
    }

    /// A client sends a message as itself, or with somebody else's address.
    pub(crate) fn say(&mut self, from: usize, to: Uri, as_whom: Option<Uri>, verdict: Verdict) {
        let Some(index) = self.clients[from].connection else {
            return;
        };
        if !self.connections[index].open[0] {
            return;
        }
        let number = self.ledger.len();
        let forbidden = match (&as_whom, verdict) {
            (Some(_), _) => Some(ErrorKind::NotAuthenticated),
            (None, Verdict::Denied) => Some(ErrorKind::NotAuthorized),
            (None, Verdict::Allowed) => None,
        };
        let mut body = number.to_be_bytes().to_vec();
        if self.random.one_in(5) {
            body.resize(LARGE + 1, 7);
        }
        let sender = as_whom.unwrap_or_else(|| self.clients[from].uri.clone());
        let message = Message {
            envelope: Envelope {
                id: MessageId::numbered(LIFE, number as u64),
                message_type: MessageType::of("rpc_request"),
                sender,
                target: Target::Client(to),
                in_reply_to: None,
                // A client may write what it likes here.
                hops: 250,
                flags: Flags::default(),
            },
            body: body.into(),
        };
        self.note(|| format!("client {from} says {message:?}"));
        self.ledger.push(Sent {
            connection: index,
            from,
            message: message.clone(),
            forbidden,
            verdict,
            delivered: 0,
            hops: 0,
            errors: Vec::new(),
            missed_its_client: false,
        });
        self.send(index, 1, Item::Message(message));
    }

    /// A controller asks for the inventory and all that changes.
    pub(crate) fn subscribe(&mut self, client: usize) {
        let Some(index) = self.clients[client].connection else {
            return;
        };
        if !self.connections[index].open[0] {
            return;
        }
        self.note(|| format!("client {client} subscribes"));
        let id = MessageId::numbered(SUBSCRIPTIONS, self.scheduled);
        self.clients[client].view = Some((id, None));
        let message = Message {
            envelope: Envelope {
                id,
                message_type: pcp::body::inventory_request(),
                sender: self.clients[client].uri.clone(),
                target: Target::Broker,
                in_reply_to: None,
                hops: 0,
                flags: Flags::default(),
            },
            body: br#"{"query":["pcp://*/agent"],"subscribe":true}"#.to_vec().into(),
        };
        self.send(index, 1, Item::Message(message));
    }
}

/// The life of clients' ids, which the ledger numbers.
pub(crate) const LIFE: u64 = 7;

/// The life of ids of inventory requests.
const SUBSCRIPTIONS: u64 = 8;

/// A body above so many bytes travels outside the order, in this world.
const LARGE: usize = 64;

/// The place in the ledger that an id stands for.
pub(crate) fn number(id: MessageId) -> Option<usize> {
    let bytes = id.0.as_u128();
    if bytes >> 80 != u128::from(LIFE) {
        return None;
    }
    usize::try_from(bytes & 0xffff_ffff).ok()
}
