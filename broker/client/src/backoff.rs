//! When to dial next, and which broker: pure, randomness is handed in.
//!
//! A broker's restart drops thousands of clients in the same moment. What keeps them from coming back
//! in the same moment is that each waits a random time over the *full* range, and that the range
//! grows ("decorrelated jitter"): no two clients stay in step.

use std::time::Duration;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait after a failed attempt, and the longest before the first attempt after a
    /// session was dropped.
    pub base: Duration,
    /// The longest wait after a failed attempt.
    pub cap: Duration,
}

impl Default for Backoff {
    /// Half a second is what a healthy broker needs to restart; half a minute is what an operator
    /// waits for agents after a repair without doubting it.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
        }
    }
}

/// How an attempt, or the session that it gave, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No session came about, or it was over before it was of use ([`STABLE`]).
    Failed,
    /// A session that had lasted was lost.
    Dropped,
    /// The broker is being stopped.
    GoingAway,
    /// The broker asked to wait this many seconds at least.
    Retry {
        /// As it said; more than [`LONGEST_RETRY`] counts as that.
        seconds: u32,
    },
    /// Another session of our own address took this one's place.
    Superseded,
    /// We have left it for the first broker.
    GoneHome,
}

/// A session that lasted this long is a good one: after its end the first attempt is quick, and goes
/// to the same broker. Below that a broker that accepts and drops would be dialled without pause.
pub const STABLE: Duration = Duration::from_secs(10);

/// The longest that a broker can send us away for: it may be wrong, and we must come back.
pub const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// The longest cap that counts: a client that stays away for an hour is taken for lost.
const LONGEST_CAP: Duration = Duration::from_secs(3600);

/// How many caps to wait, at least, after being superseded. Two processes with one certificate throw
/// each other out in turn; waiting long keeps that from loading the brokers while a person notices.
const SUPERSEDED_CAPS: u32 = 2;

/// The position in the list of brokers, and the last wait.
#[derive(Debug)]
pub struct Redial {
    backoff: Backoff,
    brokers: usize,
    broker: usize,
    wait: Duration,
    attempt: u32,
    /// How many brokers in a row have asked us to come back later.
    busy: usize,
}

impl Redial {
    /// Starts at the first of so many brokers.
    #[must_use]
    pub fn new(backoff: Backoff, brokers: usize) -> Self {
        let cap = backoff.cap.min(LONGEST_CAP);
        let base = backoff.base.min(cap);
        Self {
            backoff: Backoff { base, cap },
            brokers,
            broker: 0,
            wait: base,
            attempt: 1,
            busy: 0,
        }
    }

    /// The broker to dial now, as an index.
    #[must_use]
    pub fn broker(&self) -> usize {
        self.broker
    }

    /// How many attempts there have been since the last good session, this one included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long to wait before the next attempt. `random` is uniform in `0.0..1.0`.
    pub fn next(&mut self, ended: Ended, random: f64) -> Duration {
        self.attempt = self.attempt.saturating_add(1);
        self.busy = match ended {
            Ended::Retry { .. } => self.busy.saturating_add(1),
            _ => 0,
        };
        match ended {
            Ended::Dropped => {
                self.restart();
                between(Duration::ZERO, self.backoff.base, random)
            }
            Ended::GoingAway => {
                self.restart();
                self.rotate();
                // With another broker to go to there is no reason to wait for the old one's
                // restart; with one broker the whole fleet is about to hit it as it comes up.
                let longest = if self.brokers > 1 {
                    self.backoff.base
                } else {
                    self.backoff.base.saturating_mul(4)
                };
                between(Duration::ZERO, longest.min(self.backoff.cap), random)
            }
            Ended::Failed => {
                self.rotate();
                self.grow(random)
            }
            Ended::Retry { seconds } => {
                self.rotate();
                if self.busy < self.brokers {
                    // The next one need not be busy.
                    return self.grow(random);
                }
                // Thousands are told the same number at once: they come back over as long a time.
                let asked = Duration::from_secs(seconds.into()).min(LONGEST_RETRY);
                asked + asked.mul_f64(unit(random)).max(self.grow(random))
            }
            Ended::GoneHome => {
                self.restart();
                self.broker = 0;
                Duration::ZERO
            }
            Ended::Superseded => {
                let cap = self.backoff.cap.saturating_mul(SUPERSEDED_CAPS);
                between(cap, cap.saturating_mul(2), random)
            }
        }
    }

    fn restart(&mut self) {
        self.attempt = 1;
        self.wait = self.backoff.base;
    }

    fn rotate(&mut self) {
        self.broker = (self.broker + 1).checked_rem(self.brokers).unwrap_or(0);
    }

    fn grow(&mut self, random: f64) -> Duration {
        let longest = self.wait.saturating_mul(3).min(self.backoff.cap);
        self.wait = between(self.backoff.base, longest, random).min(self.backoff.cap);
        self.wait
    }
}

fn between(low: Duration, high: Duration, random: f64) -> Duration {
    low + high.saturating_sub(low).mul_f64(unit(random))
}

fn unit(random: f64) -> f64 {
    if random.is_finite() {
        random.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALMOST_ONE: f64 = 0.999_999;

    fn redial(brokers: usize) -> Redial {
        Redial::new(Backoff::default(), brokers)
    }

    #[test]
    fn waits_between_base_and_cap_after_failures_and_never_more() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut redial = redial(3);
        for _ in 0..10_000 {
            let wait = redial.next(Ended::Failed, random.f64());
            assert!(wait >= Duration::from_millis(500), "{wait:?}");
            assert!(wait <= Duration::from_secs(30), "{wait:?}");
        }
        assert_eq!(redial.attempt(), 10_001);
    }

    #[test]
    fn uses_the_full_range_once_it_has_grown() {
        let mut redial = redial(1);
        for _ in 0..10 {
            redial.next(Ended::Failed, ALMOST_ONE);
        }
        assert!(redial.next(Ended::Failed, 0.0) == Duration::from_millis(500));
    }

    #[test]
    fn goes_to_the_next_broker_after_a_failure_and_round() {
        let mut redial = redial(2);
        let visited: Vec<usize> = (0..4)
            .map(|_| {
                redial.next(Ended::Failed, 0.5);
                redial.broker()
            })
            .collect();
        assert_eq!(visited, [1, 0, 1, 0]);
    }

    #[test]
    fn returns_quickly_to_the_same_broker_after_a_drop() {
        let mut redial = redial(2);
        redial.next(Ended::Failed, ALMOST_ONE);
        redial.next(Ended::Failed, ALMOST_ONE);
        redial.next(Ended::Failed, ALMOST_ONE);
        assert_eq!(redial.broker(), 1);
        assert!(redial.next(Ended::Dropped, ALMOST_ONE) < Duration::from_millis(500));
        assert_eq!((redial.broker(), redial.attempt()), (1, 1));
    }

    #[test]
    fn leaves_a_broker_that_goes_away_for_another() {
        let mut redial = redial(2);
        assert!(redial.next(Ended::GoingAway, ALMOST_ONE) < Duration::from_millis(500));
        assert_eq!(redial.broker(), 1);
    }

    #[test]
    fn honours_the_broker_s_wish_as_a_minimum_but_not_for_ever() {
        let mut redial = redial(1);
        let wait = redial.next(Ended::Retry { seconds: 20 }, 0.0);
        assert!(wait >= Duration::from_secs(20));
        let wait = redial.next(Ended::Retry { seconds: u32::MAX }, ALMOST_ONE);
        assert!(wait <= LONGEST_RETRY * 2);
    }

    #[test]
    fn those_who_are_asked_to_come_back_at_once_come_back_over_as_long_a_time() {
        let mut random = fastrand::Rng::with_seed(7);
        let waits = (0..1000).map(|_| redial(1).next(Ended::Retry { seconds: 20 }, random.f64()));
        let waits: Vec<u64> = waits.map(|wait| wait.as_secs()).collect();
        for second in 20..40 {
            let same = waits.iter().filter(|wait| **wait == second).count();
            assert!((20..80).contains(&same), "{same} of 1000 after {second} s");
        }
    }

    #[test]
    fn tries_the_next_broker_before_it_comes_back_to_a_busy_one() {
        let mut redial = redial(2);
        let busy = Ended::Retry { seconds: 20 };
        assert!(redial.next(busy, 0.5) < Duration::from_secs(2));
        assert_eq!(redial.broker(), 1);
        assert!(redial.next(busy, 0.5) >= Duration::from_secs(20));
        assert_eq!(redial.broker(), 0);
    }

    #[test]
    fn stays_away_long_when_superseded() {
        assert!(redial(1).next(Ended::Superseded, 0.0) >= Duration::from_secs(60));
    }

    #[test]
    fn survives_odd_configurations() {
        let odd = Backoff {
            base: Duration::MAX,
            cap: Duration::ZERO,
        };
        let mut redial = Redial::new(odd, 0);
        for ended in [
            Ended::Failed,
            Ended::GoingAway,
            Ended::Superseded,
            Ended::Retry { seconds: 1 },
        ] {
            redial.next(ended, f64::NAN);
            assert_eq!(redial.broker(), 0);
        }
    }
}
