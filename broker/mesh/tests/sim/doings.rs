//! What the tests do to the simulated world.

use pcp::{Envelope, ErrorKind, Flags, Message, MessageId, MessageType, Target, Uri};
use pcp_mesh::{Node, NodeConfig, Role, Verdict};

use crate::world::{
    Broker, Dial, End, Event, GRACE_MESSAGES, GRACE_PERIOD, Item, LARGE, LIFE, SUBSCRIPTIONS, Sent,
    World,
};

impl World {
    pub(crate) fn add_broker(&mut self, name: &str, role: Role) -> usize {
        self.brokers.push(Broker {
            certname: name.parse().unwrap(),
            role,
            started: 0,
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
        let connections = &self.connections;
        self.queue.retain(|_, event| match event {
            Event::Arrive {
                connection,
                side,
                item: Item::Hello,
            } => connections[*connection].ends[*side] != end,
            _ => true,
        });
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
