//! What the world tells the process, and what the process tells its service manager: signals in,
//! `sd_notify` out. Without a manager (`NOTIFY_SOCKET` unset) the latter do nothing.

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{self, MissedTickBehavior};

use crate::Tasks;

/// What was asked of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM` or `SIGQUIT`: end.
    Terminate,
    /// `SIGINT`: end, asked by hand.
    Interrupt,
    /// `SIGHUP`: read certificates and log level again.
    Hangup,
}

/// The signals as they come. From the making of this value on none is lost, also while the last one
/// is still being dealt with.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    quit: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Takes the signals over from the system's default, which would end the process.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            quit: unix::signal(SignalKind::quit())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Safe to cancel.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.quit.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}

/// Tells the service manager that start-up is over.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells the service manager that the process is on its way out.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the service manager in a few words how things are, for `systemctl status`.
pub fn status(text: &str) {
    // A line end would begin another assignment.
    notify(&[NotifyState::Status(&text.replace(['\n', '\r'], " "))]);
}

/// Sends the service manager a sign of life at half the interval that it asked for, if it did. The
/// runtime must be alive for it, so a stuck daemon is noticed and restarted.
pub fn watchdog(tasks: &Tasks) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let token = tasks.shutdown_token();
    tasks.spawn("watchdog", async move {
        let mut ticks = time::interval(limit / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                _ = ticks.tick() => notify(&[NotifyState::Watchdog]),
            }
        }
    });
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
