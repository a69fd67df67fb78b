//! Whether anybody answers: a broker that is busy with a storm answers the first packet long before it
//! has time for the handshake, and QUIC says nothing of that. So the socket is watched.

use std::fmt;
use std::future::pending;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::sleep;

/// How often something has arrived on the sockets of one client.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicU64>);

/// A moment, to ask later whether anything has arrived since.
#[derive(Debug, Clone)]
pub(super) struct Since {
    heard: Heard,
    before: u64,
}

/// A socket for QUIC that counts what arrives.
pub(super) struct Watched {
    socket: Arc<dyn AsyncUdpSocket>,
    heard: Heard,
}

impl Heard {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Now.
    pub(super) fn now(&self) -> Since {
        Since {
            before: self.count(),
            heard: self.clone(),
        }
    }
}

impl Since {
    /// Whether anything has arrived since.
    pub(super) fn anything(&self) -> bool {
        self.heard.count() != self.before
    }

    /// Ends after this time if nothing has arrived until then, and never if something has.
    pub(super) async fn silence(&self, time: Duration) {
        sleep(time).await;
        if self.anything() {
            pending().await
        }
    }
}

impl Watched {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, heard: Heard) -> Arc<Self> {
        Arc::new(Self { socket, heard })
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.socket.poll_recv(context, buffers, meta));
        if received.is_ok() {
            self.heard.0.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(received)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_patience() {
        let since = Heard::default().now();
        assert!(timeout(TIME * 2, since.silence(TIME)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_answers_is_waited_for() {
        let heard = Heard::default();
        heard.0.fetch_add(1, Ordering::Relaxed);
        let since = heard.now();
        assert!(!since.anything(), "what came before does not count");
        heard.0.fetch_add(1, Ordering::Relaxed);
        assert!(since.anything());
        assert!(timeout(LONG, since.silence(TIME)).await.is_err());
    }
}
