//! What the driver shows to who asks: for metrics, and for an operator. A question is an input like any
//! other, so what it shows is of one moment, and whoever asks waits in the same line.

use std::net::SocketAddr;

use pcp::{Certname, ErrorKind, MessageType, Uri};
use pcp_mesh::{Counters, SessionId, Sizes};
use tokio::sync::oneshot;

/// What can be asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// How much of everything.
    Totals(oneshot::Sender<Totals>),
    /// What goes over each session.
    Sessions(oneshot::Sender<Vec<Seen>>),
    /// Every client that is known.
    Inventory(oneshot::Sender<Vec<Known>>),
}

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    pub(crate) sizes: Sizes,
    pub(crate) received: Received,
}

/// What went over one session, and is not known outside the driver.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) session: SessionId,
    pub(crate) peer: Uri,
    /// Nothing when we have dialled the peer.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) traffic: Traffic,
}

/// Messages of one session, and the bytes of their envelopes and bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// From the peer.
    pub(crate) received: Amount,
    /// To the peer.
    pub(crate) sent: Amount,
}

/// So many messages of so many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// A client that the broker knows.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) uri: Uri,
    /// By the client's clock.
    pub(crate) started: u64,
    /// The broker that announced it; nothing when it is connected here.
    pub(crate) via: Option<Certname>,
}

/// Messages that came in, by type and by what became of them at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received([[u64; OUTCOMES]; TYPES.len()]);

/// The types that are told apart; the last one stands for all others, which peers may invent.
const TYPES: [&str; 9] = [
    "rpc_blocking_request",
    "rpc_non_blocking_request",
    "rpc_provisional_response",
    "rpc_blocking_response",
    "rpc_non_blocking_response",
    "rpc_error_message",
    "rpc_outcome_acknowledgement",
    "inventory_request",
    "other",
];

/// Passed on, and each error.
const OUTCOMES: usize = 1 + Counters::REFUSALS.len();

impl Received {
    /// One more.
    pub(crate) fn count(&mut self, message_type: &MessageType, refused: Option<ErrorKind>) {
        let name = message_type.name();
        let kind = TYPES.iter().position(|known| Some(*known) == name);
        let outcome = refused.and_then(|kind| Counters::REFUSALS.iter().position(|k| *k == kind));
        let row = self.0.get_mut(kind.unwrap_or(TYPES.len() - 1));
        if let Some(count) = row.and_then(|row| row.get_mut(outcome.map_or(0, |at| at + 1))) {
            *count += 1;
        }
    }

    /// Each type with each outcome that has occurred.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, Option<ErrorKind>, u64)> {
        TYPES.iter().zip(&self.0).flat_map(|(name, counts)| {
            let refusals = Counters::REFUSALS.into_iter().map(Some);
            let outcomes = std::iter::once(None).chain(refusals).zip(counts);
            outcomes
                .filter(|(_, count)| **count > 0)
                .map(|(outcome, count)| (*name, outcome, *count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_type_and_outcome_and_strange_types_together() {
        let mut received = Received::default();
        let request = MessageType::of("rpc_blocking_request");
        received.count(&request, None);
        received.count(&request, None);
        received.count(&request, Some(ErrorKind::NotAuthorized));
        let strange = MessageType::parse("http://example.com/own").expect("a type");
        received.count(&strange, Some(ErrorKind::Undecodable));
        let rows: Vec<_> = received.rows().collect();
        assert_eq!(
            rows,
            [
                ("rpc_blocking_request", None, 2),
                ("rpc_blocking_request", Some(ErrorKind::NotAuthorized), 1),
                ("other", Some(ErrorKind::Undecodable), 1),
            ]
        );
    }
}
