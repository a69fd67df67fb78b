//! When outcomes are sent: at once, then again and again until they are acknowledged, and at every
//! new session. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use pxp::TransactionId;
use tokio::time::Instant;

/// The pause after the first sending; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause. A requester that is away for long asks anyway when it comes back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The pause when the outbox is full: as soon as it may have emptied.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// What came of handing an outcome over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way; whether it arrives shows the acknowledgement.
    Delivered,
    /// There was no session, or none any more.
    NotDelivered,
    /// It did not even get into the outbox.
    QueueFull,
}

/// The schedule of all outcomes that are to be sent.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    connected: bool,
    waiting: HashMap<TransactionId, Waiting>,
    due: BTreeSet<(Instant, TransactionId)>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How often it was sent in this session.
    attempts: u32,
    due: Option<Instant>,
}

impl Deliveries {
    /// A new outcome, to be sent at once.
    pub(super) fn add(&mut self, now: Instant, id: &TransactionId) {
        self.waiting.insert(id.clone(), Waiting::default());
        if self.connected {
            self.schedule(now, id);
        }
    }

    /// It need not be sent any more.
    pub(super) fn remove(&mut self, id: &TransactionId) {
        if let Some(Waiting { due: Some(due), .. }) = self.waiting.remove(id) {
            self.due.remove(&(due, id.clone()));
        }
    }

    /// A new session: everything is sent, for what was sent on the last one may be lost.
    pub(super) fn connected(&mut self, now: Instant, ids: impl Iterator<Item = TransactionId>) {
        self.connected = true;
        self.due.clear();
        self.waiting.clear();
        for id in ids {
            self.add(now, &id);
        }
    }

    /// No session: nothing is due.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.due.clear();
        for waiting in self.waiting.values_mut() {
            *waiting = Waiting::default();
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes one that is due. Tell [`Deliveries::sent`] what came of it.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<TransactionId> {
        let first = self.due.first()?;
        if first.0 > now {
            return None;
        }
        let (_, id) = self.due.pop_first()?;
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.due = None;
        }
        Some(id)
    }

    /// What came of sending.
    pub(super) fn sent(&mut self, now: Instant, id: &TransactionId, sent: Sent) {
        let Some(waiting) = self.waiting.get_mut(id) else {
            return;
        };
        // Already scheduled anew by a new session, or there is none.
        if waiting.due.is_some() || !self.connected {
            return;
        }
        let pause = match sent {
            Sent::QueueFull => QUEUE_PAUSE,
            Sent::Delivered | Sent::NotDelivered => {
                let pause = pause(waiting.attempts);
                waiting.attempts = waiting.attempts.saturating_add(1);
                pause
            }
        };
        self.schedule(now + pause, id);
    }

    fn schedule(&mut self, due: Instant, id: &TransactionId) {
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.due = Some(due);
            self.due.insert((due, id.clone()));
        }
    }
}

/// 5 s, 10 s, 20 s … 5 min.
fn pause(attempts: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempts);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TransactionId {
        TransactionId::parse(text).unwrap()
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses: Vec<_> = (0..8).map(|n| pause(n).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn nothing_is_due_without_a_session_and_everything_with_a_new_one() {
        let mut deliveries = Deliveries::default();
        let now = Instant::now();
        deliveries.add(now, &id("a"));
        assert_eq!((deliveries.next(), deliveries.take_due(now)), (None, None));
        deliveries.connected(now, [id("a"), id("b")].into_iter());
        assert_eq!(deliveries.take_due(now), Some(id("a")));
        assert_eq!(deliveries.take_due(now), Some(id("b")));
        assert_eq!(deliveries.take_due(now), None);
        deliveries.disconnected();
        deliveries.sent(now, &id("a"), Sent::NotDelivered);
        assert_eq!(deliveries.next(), None);
    }

    #[test]
    fn an_outcome_is_sent_until_it_is_removed() {
        let mut deliveries = Deliveries::default();
        let mut now = Instant::now();
        deliveries.connected(now, std::iter::empty());
        deliveries.add(now, &id("a"));
        for pause in [5, 10, 20] {
            assert_eq!(deliveries.take_due(now), Some(id("a")));
            deliveries.sent(now, &id("a"), Sent::Delivered);
            let due = deliveries.next().unwrap();
            assert_eq!(due - now, Duration::from_secs(pause));
            assert_eq!(deliveries.take_due(now), None);
            now = due;
        }
        deliveries.remove(&id("a"));
        assert_eq!(deliveries.next(), None);
        deliveries.sent(now, &id("a"), Sent::Delivered);
        assert_eq!(deliveries.next(), None);
    }

    #[test]
    fn a_full_outbox_counts_as_no_attempt() {
        let mut deliveries = Deliveries::default();
        let now = Instant::now();
        deliveries.connected(now, [id("a")].into_iter());
        deliveries.take_due(now);
        deliveries.sent(now, &id("a"), Sent::QueueFull);
        assert_eq!(deliveries.next(), Some(now + QUEUE_PAUSE));
        deliveries.take_due(now + QUEUE_PAUSE);
        deliveries.sent(now, &id("a"), Sent::Delivered);
        assert_eq!(deliveries.next(), Some(now + FIRST_PAUSE));
    }
}
