//! What an operator may see of a running broker: who is connected, and which clients it knows. The
//! running broker gives the rows to whoever shows its own certificate, and `pcp-broker connections` and
//! `pcp-broker inventory`, on the same host, ask it and print them.

mod ask;
mod print;

use std::collections::HashMap;
use std::time::SystemTime;

use jiff::Timestamp;
use pcp_mesh::SessionId;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::input;
use crate::look::{Known, Question, Seen};
use crate::metrics;
use crate::peers::{Line, Peer};

pub use ask::{AskError, connections, inventory};
pub use print::{Filter, connections as print_connections, inventory as print_inventory};

/// Where connections are asked for.
pub(crate) const CONNECTIONS: &str = "/operator/v1/connections";

/// Where the inventory is asked for.
pub(crate) const INVENTORY: &str = "/operator/v1/inventory";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Connections,
    Inventory,
}

/// One connection of a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Who it is: `pcp://CERTNAME/CLIENT-TYPE`.
    pub uri: String,
    /// Where it is, also after its address has changed; nothing for a link that this broker has dialled.
    pub address: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// `quic` or `websocket`.
    pub transport: String,
    /// The version of PCP: `1`, `2`, or `quic/1`.
    pub pcp_version: String,
    /// What it runs, as it says.
    pub software: Option<String>,
    /// The round trip as QUIC measures it, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Bytes that wait to be written to it; nothing for a link that this broker has dialled.
    pub queued_bytes: Option<u64>,
    /// Messages from it.
    pub received_messages: u64,
    /// Their bytes, envelope and body.
    pub received_bytes: u64,
    /// Messages to it.
    pub sent_messages: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}

/// One client of the inventory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Who it is: `pcp://CERTNAME/CLIENT-TYPE`.
    pub uri: String,
    /// The broker over which it is reached; this one's own certname when it is connected here.
    pub broker: String,
    /// When its session started, by its own clock.
    pub since: Option<Timestamp>,
}

/// The rows as JSON, sorted by address; nothing when the driver does not answer in time.
pub(crate) async fn answer(view: View, context: &Context) -> Option<String> {
    let text = match view {
        View::Connections => {
            let seen = input::ask(&context.inputs, Question::Sessions).await?;
            let peers: HashMap<SessionId, Peer> = context.peers.all().into_iter().collect();
            let rows = seen.iter().map(|seen| {
                let peer = peers.get(&seen.session);
                connection(seen, peer)
            });
            let mut rows: Vec<Connection> = rows.collect();
            rows.sort_by(|a, b| a.uri.cmp(&b.uri));
            serde_json::to_string(&rows)
        }
        View::Inventory => {
            let known = input::ask(&context.inputs, Question::Inventory).await?;
            let own = context.certname.as_str();
            let mut rows: Vec<Client> = known.into_iter().map(|known| client(known, own)).collect();
            rows.sort_by(|a, b| a.uri.cmp(&b.uri));
            serde_json::to_string(&rows)
        }
    };
    // Texts and numbers: it does not fail.
    text.ok()
}

fn connection(seen: &Seen, peer: Option<&Peer>) -> Connection {
    let quic = peer.and_then(|peer| match &peer.line {
        Line::Quic(connection) => Some(connection),
        Line::WebSocket(..) => None,
    });
    let bytes = |peer: &Peer| u64::try_from(peer.outbox.bytes()).unwrap_or(u64::MAX);
    Connection {
        uri: seen.peer.to_string(),
        address: seen.address.map(|address| address.to_string()),
        since: peer.and_then(|peer| timestamp(peer.since)),
        // Only links that we have dialled are no peers, and links are dialled over QUIC.
        transport: peer
            .map_or("quic", |peer| metrics::transport(&peer.line))
            .to_owned(),
        pcp_version: peer
            .map_or("quic/1", |peer| metrics::version(peer.version))
            .to_owned(),
        software: peer.map(|peer| peer.software.to_string()),
        round_trip_ms: quic.map(|connection| connection.rtt().as_secs_f64() * 1000.0),
        queued_bytes: peer.map(bytes),
        received_messages: seen.traffic.received.messages,
        received_bytes: seen.traffic.received.bytes,
        sent_messages: seen.traffic.sent.messages,
        sent_bytes: seen.traffic.sent.bytes,
    }
}

fn client(known: Known, own: &str) -> Client {
    let since = i64::try_from(known.started).ok();
    Client {
        uri: known.uri.to_string(),
        broker: known
            .via
            .map_or_else(|| own.to_owned(), |via| via.to_string()),
        since: since.and_then(|since| Timestamp::from_millisecond(since).ok()),
    }
}

/// To the second: more is no use to a reader.
fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let time = Timestamp::try_from(time).ok()?;
    Timestamp::from_second(time.as_second()).ok()
}
