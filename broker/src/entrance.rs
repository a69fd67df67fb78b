//! The entrance: takes what arrives over QUIC and TCP, lets it in as [`admission`](crate::admission) says, and
//! turns away the rest as cheaply as it can. In a storm the status pages stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use daemon::span;
use quinn::{Endpoint, Incoming};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::admission::{Limits, Next};
use crate::context::Context;
use crate::counts::Counts;
use crate::gate::Door;
use crate::listener::OUT_OF_DESCRIPTORS;
use crate::places::{Arrival, Place, Places};
use crate::session;
use crate::tcp;

/// How many of those who are turned away over TCP may be told when to come back at a time: it costs a
/// TLS handshake. The others are hung up on.
const TOLD_AT_ONCE: usize = 64;

/// How many connections over TCP may be served at a time that are no sessions: on their way in, reading
/// a status page, fetching a file.
const MAX_REQUESTS: usize = 1024;

/// What the broker takes connections from.
#[derive(Debug)]
pub(crate) struct Entrance {
    quic: Option<Endpoint>,
    tcp: Option<TcpListener>,
    /// Not before this time is TCP looked at again.
    tcp_after: Option<Instant>,
    context: Arc<Context>,
    sessions: daemon::Tasks,
    places: Arc<Places>,
    requests: Arc<Semaphore>,
    told: Arc<Semaphore>,
}

/// The spans of all sessions.
#[derive(Debug)]
struct Spans {
    quic: Span,
    websocket: Span,
}

impl Entrance {
    /// Begins at most `rate` handshakes a second.
    pub(crate) fn new(
        quic: Option<Endpoint>,
        tcp: Option<TcpListener>,
        rate: u32,
        context: Arc<Context>,
        sessions: daemon::Tasks,
    ) -> Self {
        Self {
            quic,
            tcp,
            tcp_after: None,
            context,
            sessions,
            places: Arc::new(Places::new(Limits::of(rate))),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            told: Arc::new(Semaphore::new(TOLD_AT_ONCE)),
        }
    }

    /// Lets in who may come, until the shutdown. When the broker is being stopped nobody may any more:
    /// whoever comes by QUIC is told at once, and on TCP nobody listens.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut door = self.context.gate.watch();
        let mut open = true;
        let spans = Spans {
            quic: span("session"),
            websocket: span("websocket"),
        };
        loop {
            let due = if open { self.let_in(&spans) } else { None };
            let stopping = door.wait_for(|door| *door == Door::Stopping);
            let places = Arc::clone(&self.places);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = stopping, if open => {
                    open = false;
                    self.tcp = None;
                    let left: Vec<_> = self.places.lock().clear().collect();
                    left.into_iter().for_each(Arrival::refuse);
                }
                incoming = arrival(self.quic.as_ref()) => match incoming {
                    Some(incoming) if open => self.quic_arrival(incoming),
                    Some(incoming) => incoming.refuse(),
                    None => return,
                },
                accepted = connection(self.tcp.as_ref(), self.tcp_after) => self.tcp_arrival(accepted),
                () = places.freed() => {}
                () = time(due) => {}
            }
        }
    }

    fn quic_arrival(&self, incoming: Incoming) {
        let crowded = self.places.lock().crowded();
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // It fails only for a client that has proven its address already.
            drop(incoming.retry());
            return;
        }
        self.arrive(incoming.remote_address(), Arrival::Quic(Box::new(incoming)));
    }

    fn tcp_arrival(&mut self, accepted: std::io::Result<(TcpStream, SocketAddr)>) {
        self.tcp_after = None;
        match accepted {
            Ok((stream, address)) => self.arrive(address, Arrival::Tcp(stream, address)),
            Err(error) => {
                // Of a connection that ended before we took it, or for lack of descriptors.
                tracing::debug!(%error, "connection not accepted");
                self.tcp_after = Some(Instant::now() + OUT_OF_DESCRIPTORS);
            }
        }
    }

    fn arrive(&self, address: SocketAddr, arrival: Arrival) {
        let now = Instant::now();
        let refused = self
            .places
            .lock()
            .arrive(now, address.ip().into(), arrival)
            .err();
        if let Some(arrival) = refused {
            self.turn_away(arrival);
        }
    }

    /// Begins with all whose turn it is; gives the time of the next.
    fn let_in(&self, spans: &Spans) -> Option<Instant> {
        loop {
            let next = self.places.lock().next(Instant::now());
            match next {
                Next::Begin(origin, arrival) => {
                    self.begin(arrival, Places::hold(&self.places, origin), spans);
                }
                Next::Late(arrival) => self.turn_away(arrival),
                Next::At(due) => return Some(due),
                Next::Nothing => return None,
            }
        }
    }

    fn begin(&self, arrival: Arrival, place: Place, spans: &Spans) {
        self.counts().begun.add();
        let context = Arc::clone(&self.context);
        match arrival {
            Arrival::Quic(incoming) => {
                let session = session::serve(incoming, context, place);
                self.sessions.spawn_in(&spans.quic, session);
            }
            Arrival::Tcp(stream, address) => {
                let Ok(request) = Arc::clone(&self.requests).try_acquire_owned() else {
                    self.counts().turned_away.add();
                    return;
                };
                let end = self.sessions.shutdown_token();
                let session = tcp::serve(stream, address, context, place, request, end);
                self.sessions.spawn_in(&spans.websocket, session);
            }
        }
    }

    fn turn_away(&self, arrival: Arrival) {
        self.counts().turned_away.add();
        let seconds = self.places.lock().come_back();
        match arrival {
            Arrival::Quic(incoming) => incoming.refuse(),
            Arrival::Tcp(stream, address) => {
                let Ok(place) = Arc::clone(&self.told).try_acquire_owned() else {
                    return;
                };
                let context = Arc::clone(&self.context);
                let end = self.sessions.shutdown_token();
                self.sessions.spawn("turned-away", async move {
                    let _place = place;
                    Box::pin(tcp::turn_away(stream, address, &context, seconds, end)).await;
                });
            }
        }
    }

    fn counts(&self) -> &Counts {
        &self.context.counts
    }
}

/// The next connection over QUIC; without QUIC there is none. Nothing when the endpoint is closed.
async fn arrival(endpoint: Option<&Endpoint>) -> Option<Incoming> {
    match endpoint {
        Some(endpoint) => endpoint.accept().await,
        None => std::future::pending().await,
    }
}

/// The next connection over TCP, not before this time.
async fn connection(
    listener: Option<&TcpListener>,
    after: Option<Instant>,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    if let Some(after) = after {
        sleep_until(after.into()).await;
    }
    listener.accept().await
}

async fn time(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
