//! When a client on WebSocket tries QUIC again: pure, randomness is handed in.
//!
//! A try costs a few packets, so it may come often at first: most blocks are a broker's restart or an
//! operator's mistake. Where QUIC comes back and breaks down again and again (a path that lets a
//! handshake through and loses what follows), the pauses grow, so that a client does not go to and fro.

use std::time::Duration;

/// About how long the first pause is.
pub(crate) const PROBE_BASE: Duration = Duration::from_secs(30);

/// The longest pause.
const PROBE_CAP: Duration = Duration::from_secs(600);

/// A session over QUIC that lasted this long shows that UDP gets through.
const LASTING: Duration = Duration::from_secs(600);

/// The pauses so far.
#[derive(Debug)]
pub(crate) struct Reprobe {
    base: Duration,
    pause: Duration,
}

impl Reprobe {
    pub(crate) fn new(base: Duration) -> Self {
        let base = base.min(PROBE_CAP);
        Self { base, pause: base }
    }

    /// How long to wait before the next try. `random` is uniform in `0.0..1.0`; half of the pause is
    /// chance, so that a fleet does not try in step.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let random = if random.is_finite() { random } else { 0.0 };
        let wait = self.pause.mul_f64(0.5 + random.clamp(0.0, 1.0));
        self.pause = self.pause.saturating_mul(2).min(PROBE_CAP);
        wait
    }

    /// A session over QUIC has ended, after so long.
    pub(crate) fn quic_ended(&mut self, after: Duration) {
        if after >= LASTING {
            self.pause = self.base;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_soon_at_first_and_seldom_later() {
        let mut reprobe = Reprobe::new(PROBE_BASE);
        let first = reprobe.next(0.0);
        assert_eq!(first, PROBE_BASE / 2);
        for _ in 0..20 {
            let wait = reprobe.next(0.999);
            assert!(wait <= PROBE_CAP.mul_f64(1.5), "{wait:?}");
        }
        assert_eq!(reprobe.next(0.5), PROBE_CAP);
    }

    #[test]
    fn a_way_that_breaks_down_again_is_tried_later_and_later() {
        let mut reprobe = Reprobe::new(PROBE_BASE);
        let mut last = Duration::ZERO;
        for _ in 0..4 {
            let wait = reprobe.next(0.5);
            assert!(wait > last);
            last = wait;
            reprobe.quic_ended(Duration::from_secs(46));
        }
        reprobe.quic_ended(LASTING);
        assert_eq!(reprobe.next(0.5), PROBE_BASE);
    }
}
