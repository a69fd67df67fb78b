//! The simulated world: brokers (real nodes), clients, and the network between them. Time is a
//! number, and everything that is on its way stands in one queue, so that a seed decides all.
//!
//! A connection keeps the order of what is sent on it, as a QUIC stream does, except that large
//! messages overtake and are overtaken, as those on streams of their own are. Connections do not
//! wait for each other. What is on its way when a connection is cut is lost, and each end notices
//! on its own, up to an idle timeout later.

use std::collections::{BTreeMap, BTreeSet};

use pcp::{Certname, ErrorKind, LinkFrame, Message, MessageId, Uri};
use pcp_mesh::{Node, Role, Verdict};

use crate::random::Random;

/// How long an end may take to notice that the other one is gone (the idle timeout of sessions).
pub(crate) const IDLE_TIMEOUT: u64 = 45_000;

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
    pub queue: BTreeMap<(u64, u64), Event>,
    pub scheduled: u64,
}

pub(crate) struct Broker {
    pub certname: Certname,
    pub role: Role,
    /// The start of the last session that it has dialled.
    pub started: u64,
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
    /// When what was last sent to each end arrives.
    pub last: [u64; 2],
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

pub(crate) enum Event {
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
pub(crate) enum Item {
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

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), event);
    }

    pub(crate) fn happen(&mut self, event: Event) {
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
}

/// The life of clients' ids, which the ledger numbers.
pub(crate) const LIFE: u64 = 7;

/// The life of ids of inventory requests.
pub(crate) const SUBSCRIPTIONS: u64 = 8;

/// A body above so many bytes travels outside the order, in this world.
pub(crate) const LARGE: usize = 64;

/// The place in the ledger that an id stands for.
pub(crate) fn number(id: MessageId) -> Option<usize> {
    let bytes = id.0.as_u128();
    if bytes >> 80 != u128::from(LIFE) {
        return None;
    }
    usize::try_from(bytes & 0xffff_ffff).ok()
}
