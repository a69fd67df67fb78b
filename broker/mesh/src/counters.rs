//! What a node has done and holds, for metrics.

use pcp::ErrorKind;

/// Events since the start; they only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages handed to clients of this broker.
    pub delivered: u64,
    /// Messages handed to other brokers.
    pub forwarded: u64,
    /// Messages that began to wait for a primary, or for a client that has just gone.
    pub waited: u64,
    /// Messages dropped without an answer: errors that could not be delivered, messages of sessions
    /// that had just ended, messages whose sender left while they waited.
    pub dropped: u64,
    /// Sessions of clients closed because a newer one exists.
    pub superseded: u64,
    /// Inventory updates that a subscriber's full queue refused, to be repeated.
    pub updates_repeated: u64,
    /// Answers of the broker itself (responses and updates of inventory).
    pub answered: u64,
    /// Errors returned, in the order of [`Counters::REFUSALS`].
    pub refused: [u64; 8],
}

impl Counters {
    /// The kinds behind [`Counters::refused`].
    pub const REFUSALS: [ErrorKind; 8] = [
        ErrorKind::NotConnected,
        ErrorKind::NotAuthenticated,
        ErrorKind::NotAuthorized,
        ErrorKind::Busy,
        ErrorKind::TooLarge,
        ErrorKind::Unreachable,
        ErrorKind::TooManyHops,
        ErrorKind::Undecodable,
    ];

    /// How often `kind` was returned to a sender.
    #[must_use]
    pub fn refused(&self, kind: ErrorKind) -> u64 {
        Self::REFUSALS
            .iter()
            .zip(self.refused)
            .find(|(known, _)| **known == kind)
            .map_or(0, |(_, count)| count)
    }

    pub(crate) fn count_refusal(&mut self, kind: ErrorKind) {
        for (known, count) in Self::REFUSALS.iter().zip(&mut self.refused) {
            if *known == kind {
                *count += 1;
            }
        }
    }
}

/// What a node holds just now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Clients connected to this broker.
    pub clients: usize,
    /// Clients known in the whole mesh, as far as this broker knows it.
    pub known: usize,
    /// Links to other brokers.
    pub links: usize,
    /// Inventory subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for a primary.
    pub waiting_messages: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// Messages that wait for clients that have just gone.
    pub absent_messages: usize,
    /// Their bytes.
    pub absent_bytes: usize,
    /// Messages that wait for the snapshot of the link they came over.
    pub early_messages: usize,
}
