//! The only task that owns the mesh's node. It takes what happens on all connections from one bounded
//! queue, tells the node, and hands out what the node wants done. It never waits for a peer: a queue
//! that is full refuses, and the node tells the sender.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pcp::{ClientType, ErrorKind, Frame, Goodbye, GoodbyeCode, LinkFrame, Message, Uri};
use pcp_client::handle::LinkSendError;
use pcp_client::{SendError, TrySendError};
use pcp_mesh::{LinkKind, Node, Output, Role, SessionId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::authorize::{Origin, Rules};
use crate::input::{Exit, Input, Whereabouts};
use crate::look::{Known, Question, Received, Seen, Totals, Traffic};
use crate::outbox::NotTaken;
use crate::refusals::Refusals;

/// How many inputs are taken at once.
const BATCH: usize = 256;

/// The driver's state.
#[derive(Debug)]
pub(crate) struct Driver {
    node: Node,
    role: Role,
    rules: Arc<Rules>,
    refusals: Arc<Refusals>,
    access_log: AccessLog,
    received: Received,
    connected: HashMap<SessionId, Connected>,
    born: Instant,
    draining: bool,
}

#[derive(Debug)]
struct Connected {
    exit: Exit,
    origin: Origin,
    /// Who it is, by its certificate.
    peer: Uri,
    address: Option<Whereabouts>,
    traffic: Traffic,
    /// It was sent elsewhere: it takes nothing more, and what it still says counts.
    told: bool,
}

impl Connected {
    fn send_elsewhere(&mut self) {
        if let Exit::Session(outbox) = &self.exit {
            outbox.close(going_away());
            self.told = true;
        }
    }
}

impl Driver {
    pub(crate) fn new(
        node: Node,
        role: Role,
        rules: Arc<Rules>,
        refusals: Arc<Refusals>,
        access_log: AccessLog,
    ) -> Self {
        Self {
            node,
            role,
            rules,
            refusals,
            access_log,
            received: Received::default(),
            connected: HashMap::new(),
            born: Instant::now(),
            draining: false,
        }
    }

    /// Runs until the shutdown.
    pub(crate) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        shutdown: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let tick = self.next_tick();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep_until(tick) => self.node.tick(self.now()),
                taken = inputs.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            }
            self.carry_out();
            for input in batch.drain(..) {
                self.handle(input);
                self.carry_out();
            }
        }
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the node wants to be woken; with nothing due, in an hour.
    fn next_tick(&self) -> Instant {
        const IDLE: u64 = 3_600_000;
        let due = self.node.next_tick();
        let due = due.unwrap_or_else(|| self.now().saturating_add(IDLE));
        self.born + Duration::from_millis(due)
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Client {
                session,
                uri,
                address,
                started,
                outbox,
            } => {
                if self.draining {
                    outbox.close(going_away());
                    return;
                }
                let origin = if uri.is_dialled() {
                    Origin::Dialled
                } else {
                    Origin::Client
                };
                let connected = Connected {
                    exit: Exit::Session(outbox),
                    origin,
                    peer: uri.clone(),
                    address: Some(address),
                    traffic: Traffic::default(),
                    told: false,
                };
                self.connected.insert(session, connected);
                self.node.client_connected(now, session, uri, started);
            }
            Input::Link {
                session,
                broker,
                kind,
                started,
                address,
                exit,
            } => {
                let origin = match (self.role, kind) {
                    (Role::Compiler, LinkKind::Up) => Origin::Above,
                    (Role::Primary, LinkKind::Up | LinkKind::Peer) => Origin::Beside,
                    // A compiler takes no links: the node says so to whoever opens one.
                    (_, LinkKind::Down) | (Role::Compiler, LinkKind::Peer) => Origin::Below,
                };
                if self.draining {
                    exit.close(going_away());
                    return;
                }
                let connected = Connected {
                    exit,
                    origin,
                    peer: Uri::new(broker.clone(), ClientType::server()),
                    address,
                    traffic: Traffic::default(),
                    told: false,
                };
                self.connected.insert(session, connected);
                self.node
                    .link_connected(now, session, broker, kind, started);
            }
            Input::Message { session, message } => self.message(now, session, message),
            Input::LinkFrame { session, frame } => {
                if let Err(error) = self.node.link_frame(now, session, frame) {
                    let reason = daemon::error_chain(&error);
                    tracing::warn!(session = session.0, error = %reason, "link misbehaves");
                    self.close(session, GoodbyeCode::ProtocolError, reason);
                    self.node.link_disconnected(now, session);
                }
            }
            Input::Close {
                session,
                code,
                reason,
            } => self.end(session, code, reason),
            Input::Undeliverable {
                session,
                message,
                why,
            } => self.node.undeliverable(now, session, message, why),
            Input::Closed { session } => self.gone(session),
            Input::Look(question) => self.show(question),
            Input::Leaving { sessions } => {
                for session in sessions {
                    self.node.client_leaving(now, session);
                }
            }
            Input::Goodbye { sessions } => {
                for session in sessions {
                    if let Some(connected) = self.connected.get_mut(&session) {
                        connected.send_elsewhere();
                    }
                }
            }
            Input::GiveBack => self.node.tick(u64::MAX),
            Input::Drain => {
                self.draining = true;
                self.connected
                    .values_mut()
                    .for_each(Connected::send_elsewhere);
            }
        }
    }

    /// Ends a session, and what comes over it from now on is not looked at.
    fn end(&mut self, session: SessionId, code: GoodbyeCode, reason: String) {
        let Some(connected) = self.connected.get(&session) else {
            return;
        };
        let client = connected.origin.is_client();
        self.close(session, code, reason);
        let now = self.now();
        if client {
            self.node.client_disconnected(now, session);
        } else {
            self.node.link_disconnected(now, session);
        }
    }

    /// A session has ended. Said twice it does no harm.
    fn gone(&mut self, session: SessionId) {
        let now = self.now();
        match self.connected.remove(&session) {
            Some(gone) if gone.origin.is_client() => {
                self.node.client_disconnected(now, session);
            }
            Some(_) => self.node.link_disconnected(now, session),
            None => {}
        }
    }

    fn message(&mut self, now: u64, session: SessionId, message: Message) {
        let Some(connected) = self.connected.get_mut(&session) else {
            // Its session was closed while the message was on its way.
            return;
        };
        connected.traffic.received.add(message.size());
        let verdict = self.rules.message(connected.origin, &message.envelope);
        tracing::debug!(
            message_id = %message.envelope.id,
            message_type = %message.envelope.message_type,
            sender = %message.envelope.sender,
            target = %message.envelope.target,
            session = session.0,
            ?verdict,
            "message"
        );
        let envelope = message.envelope.clone();
        let refused = self.node.message(now, session, message, verdict);
        self.received.count(&envelope.message_type, refused);
        let Connected { peer, address, .. } = connected;
        let address = || address.as_ref().map(Whereabouts::now);
        self.access_log.note(refused, peer, address, &envelope);
        if let Some(kind) = refused {
            self.refusals.message(kind, peer, &envelope);
        }
    }

    /// Answers a question. Who has gone meanwhile does not get the answer.
    fn show(&self, question: Question) {
        match question {
            Question::Totals(asker) => {
                let totals = Totals {
                    counters: *self.node.counters(),
                    sizes: self.node.sizes(),
                    received: self.received.clone(),
                };
                drop(asker.send(totals));
            }
            Question::Sessions(asker) => {
                let connected = self.connected.iter();
                let seen = connected.map(|(session, connected)| Seen {
                    session: *session,
                    peer: connected.peer.clone(),
                    address: connected.address.as_ref().map(Whereabouts::now),
                    traffic: connected.traffic,
                });
                drop(asker.send(seen.collect()));
            }
            Question::Inventory(asker) => {
                let known = self.node.inventory().map(|entry| Known {
                    uri: entry.uri.clone(),
                    started: entry.started,
                    via: entry.via.cloned(),
                });
                drop(asker.send(known.collect()));
            }
        }
    }

    /// Does all that the node wants done.
    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { session, message } => self.send(session, message),
                Output::SendLink { session, frame } => self.send_link(session, frame),
                Output::Close {
                    session,
                    code,
                    reason,
                } => self.close(session, code, reason),
            }
        }
    }

    fn send(&mut self, session: SessionId, message: Message) {
        let size = message.size();
        let sent = match self.connected.get_mut(&session) {
            Some(connected) => {
                let sent = connected.exit.send(message);
                if sent.is_ok() {
                    connected.traffic.sent.add(size);
                }
                sent
            }
            None => Err((ErrorKind::NotConnected, Box::new(message))),
        };
        if let Err((why, message)) = sent {
            tracing::debug!(
                message_id = %message.envelope.id,
                target = %message.envelope.target,
                session = session.0,
                why = why.text(),
                "message not handed over"
            );
            let told = self.connected.get(&session).is_some_and(|to| to.told);
            if !told && matches!(why, ErrorKind::NotConnected | ErrorKind::Unreachable) {
                // It has ended, which it says itself, later. The message is to take another way.
                self.gone(session);
            }
            let now = self.now();
            self.node.undeliverable(now, session, *message, why);
        }
    }

    fn send_link(&mut self, session: SessionId, frame: LinkFrame) {
        let Some(connected) = self.connected.get(&session) else {
            return;
        };
        if connected.exit.send_link(frame).is_err() {
            tracing::warn!(session = session.0, "link is closed: its queue is full");
            let reason = "the queue of this link is full".to_owned();
            self.close(session, GoodbyeCode::Unavailable, reason);
            let now = self.now();
            self.node.link_disconnected(now, session);
        }
    }

    fn close(&mut self, session: SessionId, code: GoodbyeCode, reason: String) {
        if let Some(connected) = self.connected.remove(&session) {
            tracing::info!(session = session.0, ?code, %reason, "closing session");
            connected.exit.close(Goodbye { code, reason });
        }
    }
}

impl Exit {
    fn send(&self, message: Message) -> Result<(), (ErrorKind, Box<Message>)> {
        match self {
            Self::Session(outbox) => match outbox.push(Frame::Message(message)) {
                Ok(()) => Ok(()),
                Err((why, frame)) => match *frame {
                    Frame::Message(message) => Err((why.into(), Box::new(message))),
                    // What comes back is what was given.
                    _ => Ok(()),
                },
            },
            Self::Uplink(handle) => handle.try_send(message).map_err(|error| match error {
                TrySendError::Full(message) => (ErrorKind::Busy, message),
                TrySendError::Refused(message, SendError::TooLarge { .. }) => {
                    (ErrorKind::TooLarge, message)
                }
                TrySendError::Refused(message, SendError::NotConnected | SendError::Closed) => {
                    (ErrorKind::Unreachable, message)
                }
            }),
        }
    }

    fn send_link(&self, frame: LinkFrame) -> Result<(), LinkSendError> {
        match self {
            Self::Session(outbox) => {
                outbox
                    .push(Frame::Link(frame))
                    .map_err(|(why, _)| match why {
                        NotTaken::Full => LinkSendError::Full,
                        NotTaken::Closed => LinkSendError::NotConnected,
                    })
            }
            Self::Uplink(handle) => handle.try_send_link(frame),
        }
    }

    fn close(&self, goodbye: Goodbye) {
        match self {
            Self::Session(outbox) => outbox.close(goodbye),
            // The client dials anew, and the link begins with a fresh snapshot.
            Self::Uplink(handle) => handle.reconnect(),
        }
    }
}

impl From<NotTaken> for ErrorKind {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Full => Self::Busy,
            NotTaken::Closed => Self::NotConnected,
        }
    }
}

fn going_away() -> Goodbye {
    Goodbye {
        code: GoodbyeCode::GoingAway,
        reason: "the broker is being stopped".to_owned(),
    }
}
