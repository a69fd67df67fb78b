//! What `doctor` finds of Puppet Servers: whether they answer, with a certificate of our CA. Any answer
//! will do; nothing is logged in or changed by the question.

use std::time::{Duration, Instant};

use identity::Identity;
use pxp_agent::primaries::{self, PrimaryError};
use reqwest::{Client, Proxy};

/// How long an answer may take. Somebody is waiting for all of them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Puppet Servers have it.
const PATH: &str = "/status/v1/simple";

/// Who asks.
pub(super) fn client(identity: &Identity, proxy: Option<&str>) -> Result<Client, PrimaryError> {
    let client = primaries::https(identity)?.timeout(PATIENCE);
    let client = match proxy {
        Some(proxy) => client.proxy(Proxy::all(proxy).map_err(PrimaryError::Client)?),
        None => client,
    };
    client.build().map_err(PrimaryError::Client)
}

/// How long `https://HOST:PORT` takes to answer.
pub(super) async fn ask(client: &Client, server: &str) -> Result<Duration, PrimaryError> {
    let begun = Instant::now();
    let response = client.get(format!("{server}{PATH}")).send().await;
    response.map_err(|source| PrimaryError::Unreachable {
        server: server.to_owned(),
        source: source.without_url(),
    })?;
    Ok(begun.elapsed())
}
