//! How fast passwords may be guessed. After a few failures in a row each further one doubles the time
//! for which nothing more is tried, counted by login and by address. Pure: the present is handed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How many logins and addresses are remembered. When there are more, the one whose last failure is
/// the longest ago is forgotten: whoever tries that many names is held up by the address.
const MAX_ENTRIES: usize = 10_000;

/// The pause after the first failure too many. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause: a typing user is not kept out for the day, a guesser gets 100 tries a day.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// After this time without a failure all is forgiven.
const FORGET: Duration = Duration::from_secs(3600);

/// An address may stand for many people, so it has this many times the failures of a login.
const ADDRESS_FACTOR: u32 = 5;

/// Who has failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Login(String),
    Address(IpAddr),
}

/// Failures so far.
#[derive(Debug)]
pub(crate) struct Lockout {
    free: u32,
    entries: HashMap<Who, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    /// Since the beginning of the process.
    last: Duration,
}

impl Lockout {
    /// Lets this many failures in a row pass for each login.
    pub(crate) fn new(free: u32) -> Self {
        Self {
            free,
            entries: HashMap::new(),
        }
    }

    /// How long nothing may be tried; zero when it may. `now` counts from the beginning of the process.
    pub(crate) fn pause(&self, who: &[Who], now: Duration) -> Duration {
        who.iter()
            .filter_map(|who| {
                let entry = self.entries.get(who)?;
                let until = entry.last + self.pause_after(who, entry.failures);
                Some(until.saturating_sub(now))
            })
            .max()
            .unwrap_or_default()
    }

    /// Notes a failure; gives the pause that follows it. An attempt is noted as one before its
    /// password is checked, so that many at once are no way around the pauses.
    pub(crate) fn failed(&mut self, who: &[Who], now: Duration) -> Duration {
        for who in who {
            if !self.entries.contains_key(who) && self.entries.len() >= MAX_ENTRIES {
                self.forget(now);
            }
            let entry = self.entries.entry(who.clone()).or_insert(Entry {
                failures: 0,
                last: now,
            });
            if now.saturating_sub(entry.last) > FORGET {
                entry.failures = 0;
            }
            entry.failures = entry.failures.saturating_add(1);
            entry.last = now;
        }
        self.pause(who, now)
    }

    /// Takes back what was noted before a password was checked that was right: the login's failures
    /// are forgiven; of the address only this one is, or whoever has one account could guess the
    /// passwords of all others.
    pub(crate) fn succeeded(&mut self, who: &[Who]) {
        for who in who {
            match who {
                Who::Login(_) => drop(self.entries.remove(who)),
                Who::Address(_) => {
                    if let Some(entry) = self.entries.get_mut(who) {
                        entry.failures = entry.failures.saturating_sub(1);
                    }
                }
            }
        }
    }

    fn pause_after(&self, who: &Who, failures: u32) -> Duration {
        let free = match who {
            Who::Login(_) => self.free,
            Who::Address(_) => self.free.saturating_mul(ADDRESS_FACTOR),
        };
        let Some(doubled) = failures.checked_sub(free.max(1)) else {
            return Duration::ZERO;
        };
        FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(doubled))
            .min(LONGEST_PAUSE)
    }

    fn forget(&mut self, now: Duration) {
        self.entries
            .retain(|_, entry| now.saturating_sub(entry.last) <= FORGET);
        if self.entries.len() >= MAX_ENTRIES
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.last)
        {
            let oldest = oldest.0.clone();
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ada() -> Vec<Who> {
        vec![Who::Login("ada".into()), address(1)]
    }

    fn address(last: u32) -> Who {
        Who::Address(IpAddr::from((0x0a00_0000 + last).to_be_bytes()))
    }

    #[test]
    fn pauses_begin_after_a_few_failures_double_and_end() {
        let mut lockout = Lockout::new(3);
        assert_eq!(lockout.failed(&ada(), SECOND), Duration::ZERO);
        assert_eq!(lockout.failed(&ada(), SECOND), Duration::ZERO);
        assert_eq!(lockout.failed(&ada(), SECOND), 2 * SECOND);
        assert_eq!(lockout.pause(&ada(), 2 * SECOND), SECOND);
        assert_eq!(lockout.pause(&ada(), 3 * SECOND), Duration::ZERO);
        assert_eq!(lockout.failed(&ada(), 3 * SECOND), 4 * SECOND);
        for _ in 0..100 {
            lockout.failed(&ada(), 3 * SECOND);
        }
        assert_eq!(lockout.pause(&ada(), 3 * SECOND), LONGEST_PAUSE);
        let late = 3 * SECOND + FORGET + SECOND;
        assert_eq!(lockout.failed(&ada(), late), Duration::ZERO);
    }

    #[test]
    fn a_success_forgives_the_login_and_not_the_address() {
        let mut lockout = Lockout::new(2);
        let bob = [Who::Login("bob".into()), address(1)];
        let others = |number: u32| [Who::Login(format!("user{number}")), address(1)];
        for number in 0..2 * ADDRESS_FACTOR - 1 {
            lockout.failed(&ada(), SECOND);
            lockout.succeeded(&ada());
            assert_eq!(lockout.failed(&others(number), SECOND), Duration::ZERO);
        }
        assert_eq!(lockout.pause(&ada(), SECOND), Duration::ZERO);
        lockout.failed(&bob, SECOND);
        assert!(lockout.pause(&ada(), SECOND) > Duration::ZERO, "by address");
        let elsewhere = [Who::Login("ada".into()), address(2)];
        assert_eq!(lockout.pause(&elsewhere, SECOND), Duration::ZERO);
        lockout.failed(&elsewhere, SECOND);
        assert_eq!(lockout.pause(&elsewhere, SECOND), Duration::ZERO);
        lockout.failed(&elsewhere, SECOND);
        assert!(lockout.pause(&elsewhere, SECOND) > Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let mut lockout = Lockout::new(1);
        for number in 0..u32::try_from(MAX_ENTRIES).unwrap() + 100 {
            let now = Duration::from_millis(number.into());
            lockout.failed(&[address(number)], now);
        }
        assert_eq!(lockout.entries.len(), MAX_ENTRIES);
        assert!(lockout.entries.contains_key(&address(10_000)));
        assert!(!lockout.entries.contains_key(&address(0)));
    }
}
