//! What `doctor` finds over HTTPS: whether a port answers with a certificate of our CA, and what time it
//! is there. Any answer will do; nothing is logged in or changed by the question.

use std::time::{Duration, Instant};

use identity::Identity;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use pxp_agent::primaries::{self, PrimaryError};
use reqwest::header::DATE;
use reqwest::{Client, Proxy};

/// How long an answer may take. Somebody is waiting for all of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asked of everybody: brokers and Puppet Servers have it.
const PATH: &str = "/status/v1/simple";

/// An answer.
pub(super) struct Answer {
    /// How long it took.
    pub(super) took: Duration,
    /// How far the clock there is ahead of ours, in seconds, if it says the time.
    pub(super) ahead: Option<i64>,
}

/// Who asks.
pub(super) fn client(identity: &Identity, proxy: Option<&str>) -> Result<Client, PrimaryError> {
    let client = primaries::https(identity)?.timeout(PATIENCE);
    let client = match proxy {
        Some(proxy) => client.proxy(Proxy::all(proxy).map_err(PrimaryError::Client)?),
        None => client,
    };
    client.build().map_err(PrimaryError::Client)
}

/// Asks `https://HOST:PORT`.
pub(super) async fn ask(client: &Client, server: &str) -> Result<Answer, PrimaryError> {
    let begun = Instant::now();
    let response = client.get(format!("{server}{PATH}")).send().await;
    let response = response.map_err(|source| PrimaryError::Unreachable {
        server: server.to_owned(),
        source: source.without_url(),
    })?;
    let date = response.headers().get(DATE);
    let date = date.and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| rfc2822::parse(date).ok());
    Ok(Answer {
        took: begun.elapsed(),
        ahead: date.map(|date| date.timestamp().as_second() - Timestamp::now().as_second()),
    })
}
