//! [`Path`]: what happens to frames from one host to another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What happens to frames from one host to another, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Path {
    cut: bool,
    /// A part of one.
    loss: f64,
    /// Seconds.
    delay: f64,
    /// Seconds.
    jitter: f64,
    no_udp: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
}

impl Path {
    /// Everything passes, at once.
    #[must_use]
    pub fn good() -> Self {
        Self::default()
    }

    /// Nothing passes.
    #[must_use]
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }

    /// No UDP passes, and nobody is told.
    #[must_use]
    pub fn without_udp() -> Self {
        Self {
            no_udp: true,
            ..Self::default()
        }
    }

    /// What is longer than this, IP header and all, does not pass, and nobody is told: a black hole.
    #[must_use]
    pub fn swallowing_above(mtu: u16) -> Self {
        Self {
            mtu: Some(mtu),
            ..Self::default()
        }
    }

    /// So many of a hundred frames are lost, each by chance.
    #[must_use]
    pub fn losing(self, percent: u8) -> Self {
        Self {
            loss: f64::from(percent) / 100.0,
            ..self
        }
    }

    /// Each frame takes at least `least` and at most `most`, by chance, so that they overtake each other.
    #[must_use]
    pub fn taking(self, least: Duration, most: Duration) -> Self {
        Self {
            delay: least.as_secs_f64(),
            jitter: most.saturating_sub(least).as_secs_f64(),
            ..self
        }
    }
}

/// What became of frames from one host to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Went on.
    pub passed: u64,
    /// Did not.
    pub dropped: u64,
}
