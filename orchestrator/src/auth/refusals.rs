//! Who was refused what, in the log: each cause once a minute, with how often it came besides. Pure:
//! the present is handed in.

use std::collections::HashMap;
use std::time::Duration;

/// How long the same refusal is only counted.
const QUIET: Duration = Duration::from_secs(60);

/// How many causes are told apart. Beyond that all are told: none is dropped for room.
const MAX_CAUSES: usize = 1024;

/// Which refusals are in the log.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    causes: HashMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    since: u64,
}

impl Refusals {
    /// Whether a refusal is to be logged: then how many of the same cause came since the last time.
    pub(crate) fn note(&mut self, cause: String, now: Duration) -> Option<u64> {
        if self.causes.len() >= MAX_CAUSES {
            self.causes
                .retain(|_, told| now.saturating_sub(told.at) < QUIET);
        }
        match self.causes.get_mut(&cause) {
            Some(told) if now.saturating_sub(told.at) < QUIET => {
                told.since += 1;
                None
            }
            Some(told) => {
                told.at = now;
                Some(std::mem::take(&mut told.since))
            }
            None => {
                if self.causes.len() < MAX_CAUSES {
                    self.causes.insert(cause, Told { at: now, since: 0 });
                }
                Some(0)
            }
        }
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
    fn causes_are_bounded_and_none_is_lost() {
        let mut refusals = Refusals::default();
        for number in 0..MAX_CAUSES + 10 {
            assert_eq!(refusals.note(number.to_string(), Duration::ZERO), Some(0));
        }
        assert_eq!(refusals.causes.len(), MAX_CAUSES);
        assert_eq!(refusals.note("late".into(), Duration::ZERO), Some(0));
        assert_eq!(refusals.note("new".into(), 2 * QUIET), Some(0));
        assert_eq!(refusals.causes.len(), 1);
    }
}
