//! The broker's metrics, for Prometheus. Who may read them is decided in `http`; the names are described
//! in the broker's README.

use std::collections::BTreeMap;
use std::fmt;

use daemon::metrics::{Labels, Process, Sheet};
use pcp::ErrorKind;
use pcp_mesh::{Counters, Sizes};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::content::Held;
use crate::context::Context;
use crate::gate::Door;
use crate::input;
use crate::input::INPUT_QUEUE;
use crate::look::{Question, Received, Totals};
use crate::peers::{Line, Peer};
use crate::version::Version;

/// All metrics as of now; nothing when the driver does not answer in time.
pub(crate) async fn text(context: &Context) -> Option<String> {
    let totals = input::ask(&context.inputs, Question::Totals).await?;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    let own = registry.sub_registry_with_prefix("pcp_broker");
    own.register(
        "handshake_duration_seconds",
        "How long handshakes took that completed, and that failed, in seconds.",
        context.counts.handshakes.0.clone(),
    );
    context.counts.content.register(own);
    own.register_collector(Box::new(Moment::of(context, totals)));
    Some(daemon::metrics::text(&registry))
}

/// What is so just now.
#[derive(Debug)]
struct Moment {
    totals: Totals,
    connections: BTreeMap<Labels<3>, u64>,
    /// Bytes that wait for all peers, and for the one for which most wait.
    queued: u64,
    longest: u64,
    inputs: usize,
    refused: Vec<(Labels<1>, u64)>,
    distrusted: u64,
    lost_lines: u64,
    begun: u64,
    turned_away: u64,
    relays: usize,
    held: Option<Held>,
    door: Door,
    not_after: u64,
    crl_next_update: Option<u64>,
}

impl Moment {
    fn of(context: &Context, totals: Totals) -> Self {
        let mut connections = BTreeMap::new();
        let (mut queued, mut longest) = (0, 0);
        for (_, peer) in context.peers.all() {
            *connections.entry(labels(&peer)).or_default() += 1;
            let waits = u64::try_from(peer.outbox.bytes()).unwrap_or(u64::MAX);
            queued += waits;
            longest = longest.max(waits);
        }
        let identity = context.identity.get();
        Self {
            totals,
            connections,
            queued,
            longest,
            inputs: INPUT_QUEUE.saturating_sub(context.inputs.capacity()),
            refused: context.refusals.counts().collect(),
            distrusted: context.counts.distrusted.get(),
            lost_lines: context.access_log.lost(),
            begun: context.counts.begun.get(),
            turned_away: context.counts.turned_away.get(),
            relays: context.relay.under_way(),
            held: context.relay.held(),
            door: context.gate.door(),
            not_after: identity.not_after(),
            crl_next_update: identity.crl_next_update(),
        }
    }

    fn peers(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        sheet.gauges(
            "connections",
            "Peers with a session that have dialled this broker.",
            self.connections
                .iter()
                .map(|(labels, count)| (*labels, *count)),
        )?;
        sheet.counters(
            "refused",
            "Connections not let in and messages refused for what their senders did, by cause.",
            self.refused.iter().copied(),
        )?;
        let help = "Lines of the access log that were lost, since its disk could not keep up.";
        sheet.counter("access_log_lost", help, self.lost_lines)?;
        let help = "Handshakes that were begun.";
        sheet.counter("handshakes", help, self.begun)?;
        let help = "Connections turned away before any handshake, since too many came at once.";
        sheet.counter("turned_away", help, self.turned_away)?;
        sheet.counter(
            "sessions_distrusted",
            "Sessions ended because the peer's certificate is not trusted any more.",
            self.distrusted,
        )?;
        sheet.counter(
            "sessions_superseded",
            "Sessions of clients closed because a newer one exists.",
            self.totals.counters.superseded,
        )?;
        sheet.gauge(
            "open",
            "1 while WebSocket clients may come in, else 0.",
            u64::from(self.door == Door::Open),
        )
    }

    fn mesh(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Sizes {
            clients,
            known,
            links,
            subscriptions,
            waiting_messages,
            waiting_bytes,
            absent_messages,
            absent_bytes,
            early_messages,
        } = self.totals.sizes;
        sheet.gauge("clients", "Clients connected to this broker.", clients)?;
        sheet.gauge(
            "known_clients",
            "Clients in the whole mesh, as far as this broker knows.",
            known,
        )?;
        sheet.gauge("links", "Links to other brokers.", links)?;
        let help = "Inventory subscriptions of controllers.";
        sheet.gauge("subscriptions", help, subscriptions)?;
        let waits = |what| [("for", what)];
        sheet.gauges(
            "waiting_messages",
            "Messages that wait: for a primary, for a client that has just gone, for the first \
             inventory of a link.",
            [
                (waits("primary"), waiting_messages),
                (waits("client"), absent_messages),
                (waits("inventory"), early_messages),
            ],
        )?;
        sheet.gauges(
            "waiting_bytes",
            "Bytes of the messages that wait for a primary or a client.",
            [
                (waits("primary"), waiting_bytes),
                (waits("client"), absent_bytes),
            ],
        )
    }

    fn messages(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Counters {
            delivered,
            forwarded,
            waited,
            dropped,
            superseded: _,
            updates_repeated,
            answered,
            refused: _,
        } = self.totals.counters;
        sheet.counters(
            "messages_received",
            "Messages from peers, by type and by what became of them at once.",
            received(&self.totals.received),
        )?;
        let outcome = |what| [("outcome", what)];
        sheet.counters(
            "messages",
            "What this broker did with messages.",
            [
                (outcome("delivered"), delivered),
                (outcome("forwarded"), forwarded),
                (outcome("waited"), waited),
                (outcome("dropped"), dropped),
                (outcome("answered"), answered),
            ],
        )?;
        let refused = Counters::REFUSALS;
        let refused = refused.iter().map(|kind| {
            let count = self.totals.counters.refused(*kind);
            ([("reason", word(*kind))], count)
        });
        let help = "Errors returned to the senders of messages.";
        sheet.counters("messages_refused", help, refused)?;
        let help = "Inventory updates that a subscriber's full queue refused, to be repeated.";
        sheet.counter("inventory_updates_repeated", help, updates_repeated)
    }

    fn queues(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let help = "What happened on connections and waits to be handled.";
        sheet.gauge("input_queue_length", help, self.inputs)?;
        let help = "How much of it may wait before peers are held back.";
        sheet.gauge("input_queue_capacity", help, INPUT_QUEUE)?;
        let help = "Bytes that wait to be written to all peers.";
        sheet.gauge("output_queue_bytes", help, self.queued)?;
        let help = "Bytes that wait for the peer for which most wait.";
        sheet.gauge("output_queue_longest_bytes", help, self.longest)?;
        let help = "Files on their way through this broker.";
        sheet.gauge("content_transfers", help, self.relays)
    }

    fn cache(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Some(held) = self.held else { return Ok(()) };
        let Held {
            files,
            bytes,
            capacity,
            evicted,
            corrupted,
        } = held;
        sheet.gauge("content_cache_files", "Files in the content cache.", files)?;
        sheet.gauge("content_cache_bytes", "Their bytes.", bytes)?;
        let help = "How many bytes they may have.";
        sheet.gauge("content_cache_capacity_bytes", help, capacity)?;
        let help = "Files removed to make room.";
        sheet.counter("content_cache_evicted", help, evicted)?;
        let help = "Files removed because they were not what they should be.";
        sheet.counter("content_cache_corrupted", help, corrupted)
    }

    fn certificates(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        sheet.gauge(
            "certificate_expiry_timestamp_seconds",
            "When this broker's certificate ends, in seconds since 1970.",
            self.not_after,
        )?;
        let Some(next) = self.crl_next_update else {
            return Ok(());
        };
        sheet.gauge(
            "crl_next_update_timestamp_seconds",
            "When the first revocation list is out of date and every peer is refused, in seconds \
             since 1970.",
            next,
        )
    }
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        let help = "1, with the version of this broker.";
        let version = [("version", daemon::VERSION)];
        sheet.gauges("build_info", help, [(version, 1u64)])?;
        self.peers(&mut sheet)?;
        self.mesh(&mut sheet)?;
        self.messages(&mut sheet)?;
        self.queues(&mut sheet)?;
        self.cache(&mut sheet)?;
        self.certificates(&mut sheet)
    }
}

fn labels(peer: &Peer) -> Labels<3> {
    // The rules let in no other types.
    let client_type = match peer.uri.client_type().as_str() {
        "agent" => "agent",
        "orchestrator" => "orchestrator",
        "controller" => "controller",
        "server" => "server",
        _ => "other",
    };
    [
        ("client_type", client_type),
        ("transport", transport(&peer.line)),
        ("pcp_version", version(peer.version)),
    ]
}

/// The word for a way in.
pub(crate) fn transport(line: &Line) -> &'static str {
    match line {
        Line::Quic(_) => "quic",
        Line::WebSocket(..) => "websocket",
    }
}

/// The word for a language.
pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::One => "1",
        Version::Two => "2",
        Version::Native => "quic/1",
    }
}

fn received(received: &Received) -> impl Iterator<Item = (Labels<2>, u64)> {
    received.rows().map(|(message_type, refused, count)| {
        let outcome = refused.map_or("passed", word);
        ([("type", message_type), ("outcome", outcome)], count)
    })
}

/// An error as a label.
fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotConnected => "not_connected",
        ErrorKind::NotAuthenticated => "not_authenticated",
        ErrorKind::NotAuthorized => "not_authorized",
        ErrorKind::Busy => "busy",
        ErrorKind::TooLarge => "too_large",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::TooManyHops => "too_many_hops",
        ErrorKind::Undecodable => "undecodable",
    }
}
