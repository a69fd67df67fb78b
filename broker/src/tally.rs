//! How many connections each certificate has: whoever has got hold of one, or of a client that dials
//! without pause, takes no more than its share of the broker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcp::Certname;

/// How many connections a certificate may have at a time. A client has one, and two for a moment when
/// it comes back before the old one is missed; one certname may be agent, controller and broker.
const MAX_CONNECTIONS_EACH: usize = 16;

/// In how many seconds one that has too many may come back: sooner it would find them still there.
pub(crate) const COME_BACK: u32 = 60;

/// The numbers, by certname.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<HashMap<Certname, usize>>);

/// One connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    tally: Arc<Tally>,
    certname: Certname,
}

impl Tally {
    /// Counts a connection, unless its certificate has as many as it may have.
    pub(crate) fn count(self: &Arc<Self>, certname: &Certname) -> Option<Counted> {
        let mut numbers = self.lock();
        let number = numbers.entry(certname.clone()).or_default();
        if *number >= MAX_CONNECTIONS_EACH {
            return None;
        }
        *number += 1;
        Some(Counted {
            tally: Arc::clone(self),
            certname: certname.clone(),
        })
    }

    /// Never held over an await; the numbers are right at every step.
    fn lock(&self) -> MutexGuard<'_, HashMap<Certname, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut numbers = self.tally.lock();
        if let Some(number) = numbers.get_mut(&self.certname) {
            *number -= 1;
            if *number == 0 {
                numbers.remove(&self.certname);
            }
        }
        if numbers.len() < numbers.capacity() / 4 {
            // After a storm the map does not stay as large as it ever was.
            numbers.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_its_share_and_again_when_one_is_given_back() {
        let tally = Arc::new(Tally::default());
        let node = Certname::parse("node").expect("a certname");
        let mut all: Vec<_> = (0..MAX_CONNECTIONS_EACH)
            .map(|_| tally.count(&node).expect("room"))
            .collect();
        assert!(tally.count(&node).is_none());
        let other = Certname::parse("other").expect("a certname");
        assert!(tally.count(&other).is_some());
        all.pop();
        all.push(tally.count(&node).expect("room again"));
        drop(all);
        assert!(tally.lock().is_empty());
    }
}
