//! Who was refused what, in the log: each cause once a minute, with how often it came besides. Pure:
//! the present is handed in.

use std::collections::HashMap;
use std::time::Duration;

/// How long the same refusal is only counted.
const QUIET: Duration = Duration::from_secs(60);

/// How many causes are told apart. Beyond that the rest are told together, so that neither memory nor
/// log grows with the number of those who knock.
const MAX_CAUSES: usize = 1024;

/// Which refusals are in the log.
#[derive(Debug, Default)]
pub struct Refusals {
    causes: HashMap<String, Told>,
    rest: Option<Told>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    since: u64,
}

impl Refusals {
    /// Whether a refusal is to be logged: then how many of the same cause came since the last time.
    /// `now` counts from any point in time, always the same.
    #[must_use]
    pub fn note(&mut self, cause: String, now: Duration) -> Option<u64> {
        if self.causes.len() >= MAX_CAUSES {
            self.causes
                .retain(|_, told| now.saturating_sub(told.at) < QUIET);
        }
        if let Some(told) = self.causes.get_mut(&cause) {
            return told.again(now);
        }
        if self.causes.len() < MAX_CAUSES {
            self.causes.insert(cause, Told { at: now, since: 0 });
            return Some(0);
        }
        match &mut self.rest {
            Some(told) => told.again(now),
            rest => {
                *rest = Some(Told { at: now, since: 0 });
                Some(0)
            }
        }
    }
}

impl Told {
    fn again(&mut self, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.at) < QUIET {
            self.since += 1;
            return None;
        }
        self.at = now;
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_a_minute_with_a_count() {
        let mut refusals = Refusals::default();
        let at = Duration::from_secs;
        assert_eq!(refusals.note("a".into(), at(1)), Some(0));
        assert_eq!(refusals.note("a".into(), at(2)), None);
        assert_eq!(refusals.note("b".into(), at(2)), Some(0));
        assert_eq!(refusals.note("a".into(), at(60)), None);
        assert_eq!(refusals.note("a".into(), at(61)), Some(2));
        assert_eq!(refusals.note("a".into(), at(62)), None);
    }

    #[test]
    fn more_causes_than_are_told_apart_are_told_together() {
        let mut refusals = Refusals::default();
        for number in 0..MAX_CAUSES {
            assert_eq!(refusals.note(number.to_string(), Duration::ZERO), Some(0));
        }
        assert_eq!(refusals.note("late".into(), Duration::ZERO), Some(0));
        assert_eq!(refusals.note("later".into(), Duration::ZERO), None);
        assert_eq!(refusals.note("0".into(), Duration::ZERO), None);
        assert_eq!(refusals.causes.len(), MAX_CAUSES);
        assert_eq!(refusals.note("new".into(), 2 * QUIET), Some(0));
        assert_eq!(refusals.causes.len(), 1);
    }
}
