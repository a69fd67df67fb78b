//! One link to another broker: what it has announced, and whether it may say what it says.

use std::collections::{HashSet, VecDeque};

use pcp::message::{DEFAULT_MAX_MESSAGE, MAX_ENVELOPE};
use pcp::{Announcement, Certname, LinkFrame, Uri};

use crate::LinkKind;
use crate::delivery::GraceQueue;
use crate::inventory::Nearness;

/// How many clients a link remembers after they left. A message above the inline limit travels on a
/// stream of its own and may arrive after the news that its sender is gone; it is genuine all the
/// same. Enough for what a burst of departures leaves in flight.
const RECENTLY_GONE: usize = 1024;

/// How many messages a link keeps whose senders its snapshot has not named yet.
const EARLY_MESSAGES: usize = 4096;

/// Their bytes, at most: the largest message there can be.
const EARLY_BYTES: usize = DEFAULT_MAX_MESSAGE + MAX_ENVELOPE;

/// A broker on a link broke the rules of announcing: the link is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// A delta that does not continue a complete snapshot of its epoch.
    #[error("a delta of epoch {0} came without its snapshot")]
    DeltaWithoutSnapshot(u64),
    /// A primary sent a snapshot to a compiler, which only takes deltas about superseded sessions.
    #[error("a snapshot may not be sent down a link")]
    SnapshotFromAbove,
    /// A snapshot says of a client that it is gone.
    #[error("a snapshot names a client that is gone")]
    GoneInSnapshot,
    /// A broker was announced as a client.
    #[error("a broker may not be announced as a client")]
    BrokerAsClient,
    /// More clients than the configured limit.
    #[error("a link may announce at most {0} clients")]
    TooManyClients(usize),
}

/// The state of one link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) broker: Certname,
    pub(crate) kind: LinkKind,
    /// Of the hello.
    pub(crate) started: u64,
    /// The epoch of the snapshot that we have sent on it; nothing on a link that gets none.
    pub(crate) published: Option<u64>,
    received: Received,
    clients: HashSet<Uri>,
    gone: VecDeque<Uri>,
    /// Messages that came before the snapshot was whole, and whose senders it may yet name: large
    /// ones, on streams of their own, are faster than the snapshot of a large fleet. They leave
    /// when the snapshot is whole, or with the link, so they have no time of their own.
    pub(crate) early: GraceQueue,
}

/// How far the other side's snapshot has come.
#[derive(Debug)]
enum Received {
    Nothing,
    /// `unnamed` are the clients of an earlier snapshot that no part has named so far.
    Parts {
        epoch: u64,
        unnamed: HashSet<Uri>,
    },
    Whole {
        epoch: u64,
    },
}

impl Link {
    pub(crate) fn new(
        broker: Certname,
        kind: LinkKind,
        started: u64,
        published: Option<u64>,
    ) -> Self {
        Self {
            broker,
            kind,
            started,
            published,
            received: Received::Nothing,
            clients: HashSet::new(),
            gone: VecDeque::new(),
            early: GraceQueue::new(EARLY_MESSAGES, EARLY_BYTES, 0),
        }
    }

    /// How near the clients are that this link announces.
    pub(crate) fn nearness(&self) -> Nearness {
        match self.kind {
            LinkKind::Down => Nearness::Below,
            LinkKind::Up | LinkKind::Peer => Nearness::Beside,
        }
    }

    /// Whether the other broker has said who is connected to it.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.received, Received::Whole { .. })
    }

    /// Whether a message of this sender may come over this link.
    pub(crate) fn announced(&self, sender: &Uri) -> bool {
        self.clients.contains(sender) || self.gone.contains(sender)
    }

    /// Takes what the other broker says, and gives back what is news: in a snapshot's last part also
    /// the clients of an earlier snapshot that it did not name.
    ///
    /// # Errors
    /// [`Misbehaved`] when it may not say so; nothing of the frame counts then.
    pub(crate) fn accept(
        &mut self,
        frame: LinkFrame,
        max_announced: usize,
    ) -> Result<Vec<Announcement>, Misbehaved> {
        match frame {
            LinkFrame::Snapshot {
                epoch,
                last,
                clients,
            } => {
                if clients.iter().any(|client| !client.connected) {
                    return Err(Misbehaved::GoneInSnapshot);
                }
                check_clients(&clients)?;
                let known = match &self.received {
                    Received::Nothing => None,
                    Received::Parts { epoch, .. } | Received::Whole { epoch } => Some(*epoch),
                };
                let complete = matches!(self.received, Received::Whole { .. });
                if known.is_some_and(|known| epoch < known || (complete && epoch == known)) {
                    // A part of a snapshot that a newer one has already replaced.
                    return Ok(Vec::new());
                }
                let unnamed = match std::mem::replace(&mut self.received, Received::Nothing) {
                    Received::Parts {
                        epoch: same,
                        unnamed,
                    } if same == epoch => unnamed,
                    Received::Parts { unnamed, .. } => {
                        self.clients.extend(unnamed);
                        std::mem::take(&mut self.clients)
                    }
                    Received::Nothing | Received::Whole { .. } => std::mem::take(&mut self.clients),
                };
                self.received = Received::Parts { epoch, unnamed };
                self.part(epoch, last, clients, max_announced)
            }
            LinkFrame::Delta { epoch, changes } => {
                check_clients(&changes)?;
                match self.received {
                    Received::Whole { epoch: known } if epoch == known => {
                        self.delta(changes, max_announced)
                    }
                    Received::Whole { epoch: known } | Received::Parts { epoch: known, .. }
                        if epoch < known =>
                    {
                        Ok(Vec::new())
                    }
                    _ => Err(Misbehaved::DeltaWithoutSnapshot(epoch)),
                }
            }
        }
    }

    fn part(
        &mut self,
        epoch: u64,
        last: bool,
        mut clients: Vec<Announcement>,
        max_announced: usize,
    ) -> Result<Vec<Announcement>, Misbehaved> {
        let Received::Parts { unnamed, .. } = &mut self.received else {
            return Ok(Vec::new());
        };
        for client in &clients {
            unnamed.remove(&client.uri);
            self.clients.insert(client.uri.clone());
        }
        // Those of an earlier snapshot count too, until this one is whole: snapshots that are begun
        // again and again and never finished would else take memory without end.
        if self.clients.len() + unnamed.len() > max_announced {
            return Err(Misbehaved::TooManyClients(max_announced));
        }
        if last {
            let mut gone: Vec<Uri> = std::mem::take(unnamed).into_iter().collect();
            gone.sort_unstable();
            self.received = Received::Whole { epoch };
            for uri in gone {
                self.leave(uri.clone());
                clients.push(Announcement {
                    uri,
                    started: 0,
                    connected: false,
                });
            }
        }
        Ok(clients)
    }

    fn delta(
        &mut self,
        changes: Vec<Announcement>,
        max_announced: usize,
    ) -> Result<Vec<Announcement>, Misbehaved> {
        for change in &changes {
            if change.connected {
                self.clients.insert(change.uri.clone());
            } else if self.clients.remove(&change.uri) {
                self.leave(change.uri.clone());
            }
        }
        if self.clients.len() > max_announced {
            return Err(Misbehaved::TooManyClients(max_announced));
        }
        Ok(changes)
    }

    fn leave(&mut self, uri: Uri) {
        if self.gone.len() == RECENTLY_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(uri);
    }

    /// All clients that the link has announced, sorted, when it is over.
    pub(crate) fn into_clients(self) -> Vec<Uri> {
        let mut clients = self.clients;
        if let Received::Parts { unnamed, .. } = self.received {
            clients.extend(unnamed);
        }
        let mut clients: Vec<Uri> = clients.into_iter().collect();
        clients.sort_unstable();
        clients
    }
}

/// The sessions that a delta down a link speaks of: newer ones than ours, elsewhere.
///
/// # Errors
/// [`Misbehaved::SnapshotFromAbove`]: a primary announces nothing down.
pub(crate) fn superseded_elsewhere(frame: LinkFrame) -> Result<Vec<Announcement>, Misbehaved> {
    match frame {
        LinkFrame::Snapshot { .. } => Err(Misbehaved::SnapshotFromAbove),
        LinkFrame::Delta { changes, .. } => Ok(changes),
    }
}

fn check_clients(announcements: &[Announcement]) -> Result<(), Misbehaved> {
    if announcements
        .iter()
        .any(|a| a.uri.client_type().is_server())
    {
        Err(Misbehaved::BrokerAsClient)
    } else {
        Ok(())
    }
}
