//! The places of handshakes: who waits for one, and who holds one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Incoming;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::admission::{Admission, Limits, Origin};

/// A connection that nothing was done for yet.
#[derive(Debug)]
pub(crate) enum Arrival {
    Quic(Box<Incoming>),
    Tcp(TcpStream, SocketAddr),
}

/// The places of handshakes, shared with those who hold one.
#[derive(Debug)]
pub(crate) struct Places {
    admission: Mutex<Admission<Arrival>>,
    freed: Notify,
}

/// A place among the handshakes that are under way; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    origin: Origin,
    places: Arc<Places>,
}

impl Arrival {
    /// Hangs up. A client over QUIC knows what that means.
    pub(crate) fn refuse(self) {
        if let Self::Quic(incoming) = self {
            incoming.refuse();
        }
    }
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            admission: Mutex::new(Admission::new(limits)),
            freed: Notify::new(),
        }
    }

    /// The place of somebody from there who has begun.
    pub(crate) fn hold(places: &Arc<Self>, origin: Origin) -> Place {
        Place {
            origin,
            places: Arc::clone(places),
        }
    }

    /// Waits until one is free again.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Never held over an await; the numbers are right at every step.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Admission<Arrival>> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().left(self.origin);
        self.places.freed.notify_one();
    }
}
