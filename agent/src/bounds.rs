//! How much is kept: by age, by size, by number. Pure: what there is comes in, what is to go comes out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The bounds of a directory whose entries can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// How long an entry is kept; `None` for ever.
    pub age: Option<Duration>,
    /// How many bytes all of them may take; `None` for any number.
    pub bytes: Option<u64>,
    /// How many are kept; `None` for any number.
    pub count: Option<usize>,
}

/// Something that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// What it is.
    pub what: T,
    /// When it was last of use.
    pub used: Timestamp,
    /// What it takes.
    pub bytes: u64,
    /// Whether it may go at all: what is running, promised or in use may not.
    pub removable: bool,
}

impl Bounds {
    /// Which entries must go: those that are too old, and then the oldest until the rest fits. What
    /// may not go counts, and stays, so that the rest may not fit after all.
    #[must_use]
    pub fn excess<T>(&self, mut entries: Vec<Entry<T>>, now: Timestamp) -> Vec<Entry<T>> {
        let cutoff = self.age.map(|age| before(now, age));
        let mut bytes = entries
            .iter()
            .fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
        let mut count = entries.len();
        entries.sort_by_key(|entry| entry.used);
        let mut gone = Vec::new();
        for entry in entries {
            let too_old = cutoff.is_some_and(|cutoff| entry.used < cutoff);
            let too_much = self.bytes.is_some_and(|most| bytes > most)
                || self.count.is_some_and(|most| count > most);
            if entry.removable && (too_old || too_much) {
                bytes = bytes.saturating_sub(entry.bytes);
                count -= 1;
                gone.push(entry);
            }
        }
        gone
    }
}

/// So long before now; the beginning of time when that is earlier.
#[must_use]
pub fn before(now: Timestamp, age: Duration) -> Timestamp {
    SignedDuration::try_from(age)
        .ok()
        .and_then(|age| now.checked_sub(age).ok())
        .unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(what: u32, used: i64, bytes: u64, removable: bool) -> Entry<u32> {
        Entry {
            what,
            used: Timestamp::from_second(used).unwrap(),
            bytes,
            removable,
        }
    }

    fn gone(bounds: Bounds, entries: Vec<Entry<u32>>, now: i64) -> Vec<u32> {
        let now = Timestamp::from_second(now).unwrap();
        let gone = bounds.excess(entries, now);
        gone.into_iter().map(|entry| entry.what).collect()
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_must() {
        let entries = vec![
            entry(1, 30, 10, true),
            entry(2, 10, 10, true),
            entry(3, 20, 10, true),
        ];
        let bytes = |bytes| Bounds {
            bytes: Some(bytes),
            ..Bounds::default()
        };
        assert_eq!(gone(bytes(30), entries.clone(), 100), Vec::<u32>::new());
        assert_eq!(gone(bytes(29), entries.clone(), 100), [2]);
        assert_eq!(gone(bytes(10), entries.clone(), 100), [2, 3]);
        let count = Bounds {
            count: Some(1),
            ..Bounds::default()
        };
        assert_eq!(gone(count, entries.clone(), 100), [2, 3]);
        let age = Bounds {
            age: Some(Duration::from_secs(75)),
            ..Bounds::default()
        };
        assert_eq!(gone(age, entries, 100), [2, 3]);
    }

    #[test]
    fn a_clock_that_jumps_back_removes_nothing_for_its_age() {
        let age = Bounds {
            age: Some(Duration::from_secs(1)),
            ..Bounds::default()
        };
        assert_eq!(
            gone(age, vec![entry(1, 5000, 1, true)], 10),
            Vec::<u32>::new()
        );
    }

    proptest! {
        #[test]
        fn what_may_not_go_stays_and_the_rest_fits(
            entries in prop::collection::vec((0_i64..100, 0_u64..50, any::<bool>()), 0..30),
            bytes in prop::option::of(0_u64..500),
            count in prop::option::of(0_usize..30),
            age in prop::option::of(0_u64..100),
        ) {
            let entries: Vec<_> = (0..).zip(entries)
                .map(|(what, (used, bytes, removable))| entry(what, used, bytes, removable))
                .collect();
            let bounds = Bounds { age: age.map(Duration::from_secs), bytes, count };
            let now = Timestamp::from_second(100).unwrap();
            let gone = bounds.excess(entries.clone(), now);
            prop_assert!(gone.iter().all(|entry| entry.removable));
            let left: Vec<_> = entries.iter().filter(|entry| !gone.contains(entry)).collect();
            // Whatever is left and could have gone fits.
            if left.iter().any(|entry| entry.removable) {
                let total: u64 = left.iter().map(|entry| entry.bytes).sum();
                prop_assert!(bytes.is_none_or(|most| total <= most));
                prop_assert!(count.is_none_or(|most| left.len() <= most));
            }
            // Nothing went that is younger than something removable that stayed.
            let youngest_gone = gone.iter().map(|entry| entry.used).max();
            let oldest_left = left.iter().filter(|e| e.removable).map(|e| e.used).min();
            if let (Some(gone), Some(left)) = (youngest_gone, oldest_left) {
                prop_assert!(gone <= left);
            }
        }
    }
}
