//! The node: one broker's whole state, and one method for each thing that can happen to it.

use std::collections::VecDeque;

use pcp::{Certname, ErrorKind, LinkFrame, Message, Uri};

use crate::config::NodeConfig;
use crate::counters::{Counters, Sizes};
use crate::link::Misbehaved;
use crate::{InventoryEntry, LinkKind, Output, SessionId, Verdict};

/// One broker's knowledge of the mesh.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    epoch: u64,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Node {
    /// A node that knows nobody yet. `epoch` is above that of the broker's life before: its start
    /// time in milliseconds since 1970 will do.
    #[must_use]
    pub fn new(config: NodeConfig, epoch: u64) -> Self {
        Self {
            config,
            epoch,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    /// A client has said hello. `started` is that of its hello.
    pub fn client_connected(&mut self, now: u64, session: SessionId, uri: Uri, started: u64) {}

    /// A client's session has ended, for whatever reason.
    pub fn client_disconnected(&mut self, now: u64, session: SessionId) {}

    /// A session with another broker is open. `broker` is the certname of its certificate.
    pub fn link_connected(
        &mut self,
        now: u64,
        session: SessionId,
        broker: Certname,
        kind: LinkKind,
    ) {
    }

    /// A session with another broker has ended.
    pub fn link_disconnected(&mut self, now: u64, session: SessionId) {}

    /// A broker says who is connected to it.
    ///
    /// # Errors
    /// [`Misbehaved`]: close the link with [`pcp::GoodbyeCode::ProtocolError`] and report it as
    /// disconnected.
    pub fn link_frame(
        &mut self,
        now: u64,
        session: SessionId,
        frame: LinkFrame,
    ) -> Result<(), Misbehaved> {
        Ok(())
    }

    /// A message has arrived over `session`. `verdict` is what the broker's rules say of it.
    pub fn message(&mut self, now: u64, session: SessionId, message: Message, verdict: Verdict) {}

    /// A message of [`Output::Send`] could not be handed over to `session`: its sender is told why.
    pub fn undeliverable(
        &mut self,
        now: u64,
        session: SessionId,
        message: Message,
        why: ErrorKind,
    ) {
    }

    /// Time has passed: sends collected inventory updates, and gives up what has waited too long.
    pub fn tick(&mut self, now: u64) {}

    /// When [`Node::tick`] is due next.
    #[must_use]
    pub fn next_tick(&self) -> Option<u64> {
        None
    }

    /// The next thing to do, until there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// All clients that this broker knows, in no particular order.
    pub fn inventory(&self) -> impl Iterator<Item = InventoryEntry<'_>> {
        std::iter::empty()
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the node holds just now.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes::default()
    }
}
