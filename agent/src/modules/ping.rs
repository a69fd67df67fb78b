//! `ping ping`: shows that requests reach this agent.

use serde::{Deserialize, Serialize};

/// The parameters.
#[derive(Debug, Deserialize)]
pub struct Ping {
    /// When the requester sent it, in its own words; not looked at, as in the original.
    #[serde(rename = "sender_timestamp", default)]
    _sender_timestamp: Option<String>,
}

/// The results. Hops were known in PCP 1; since PCP 2 the list is always empty.
#[derive(Debug, Default, Serialize)]
pub struct Pong {
    request_hops: [(); 0],
}

impl Ping {
    /// Does it.
    #[must_use]
    pub fn run(self) -> Pong {
        Pong::default()
    }
}
