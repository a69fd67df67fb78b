//! Whether WebSocket clients may come in, and what an operator's status page says: one value that the
//! listener reads and the links to controllers write.

use std::sync::Arc;

use tokio::sync::watch;

/// What those who come, or must go, are told while no controller is there: the original's words.
pub(crate) const ALL_CONTROLLERS_LOST: &str = "All controllers disconnected.";

/// How the broker stands towards clients over WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Controllers are configured, and none has been reached yet: nobody comes in.
    Starting,
    /// Everybody may come.
    Open,
    /// All controllers are lost, a moment ago: who is in stays, who comes is told so.
    Grace,
    /// All controllers are lost for longer: nobody is in, and nobody comes in.
    Shut,
    /// The broker is being stopped.
    Stopping,
}

/// The door, for all who look at it.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<Door>>);

impl Gate {
    pub(crate) fn new(door: Door) -> Self {
        Self(Arc::new(watch::Sender::new(door)))
    }

    pub(crate) fn door(&self) -> Door {
        *self.0.borrow()
    }

    /// Changes it, unless the broker is being stopped.
    pub(crate) fn set(&self, to: Door) {
        self.0.send_if_modified(|door| {
            let changes = *door != Door::Stopping && *door != to;
            if changes {
                *door = to;
            }
            changes
        });
    }

    /// For whoever must hear of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<Door> {
        self.0.subscribe()
    }
}

impl Door {
    /// The words of the original's status service.
    pub(crate) fn state(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Open => "running",
            Self::Grace | Self::Shut => "error",
            Self::Stopping => "stopping",
        }
    }
}
