//! Waiting for a state, never for a time: the one place of the tests that pauses.

use std::fmt::{Debug, Display};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks. Short beside anything that is waited for, long beside the cost of looking.
const POLL: Duration = Duration::from_millis(20);

/// What was waited for did not come.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: not within {deadline:?}; last seen: {last}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub deadline: Duration,
    /// The last state that was not it.
    pub last: String,
}

/// Looks again and again until `state` gives `Ok`, whose value is returned. `Err` holds the state as
/// it is instead, for the error. It looks at levels and not at edges: what was true for a moment
/// between two looks does not count.
///
/// # Errors
/// When the deadline passes, with the last state seen.
pub fn wait_until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut state: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + deadline;
    loop {
        match state() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => {
                return Err(TimedOut {
                    what: what.to_owned(),
                    deadline,
                    last: last.to_string(),
                });
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_returned_once_it_is_there() {
        let mut looks = 0;
        let value = wait_until("three looks", Duration::from_secs(10), || {
            looks += 1;
            if looks < 3 { Err(looks) } else { Ok("there") }
        });
        assert_eq!(value.unwrap(), "there");
    }

    #[test]
    fn the_error_tells_the_last_state() {
        let error = wait_until::<(), _>("rain", Duration::ZERO, || Err("sunshine")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rain: not within 0ns; last seen: sunshine"
        );
    }
}
