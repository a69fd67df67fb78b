//! Ctrl-C and `SIGTERM`, so that the lab can end its processes in order.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

/// What has come so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Any signal: the lab is to end.
    pub(crate) any: Arc<AtomicBool>,
    /// One that was sent to the lab alone. Ctrl-C goes to everything in the terminal's foreground.
    pub(crate) alone: Arc<AtomicBool>,
}

/// Takes the signals over.
pub(crate) fn watch() -> Result<Seen> {
    let flags = Seen::default();
    let seen = flags.clone();
    let heeds_hangup = !hangup_is_ignored();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _guard = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let alone = tokio::select! {
                    _ = interrupt.recv() => false,
                    _ = terminate.recv() => true,
                    _ = hangup.recv(), if heeds_hangup => true,
                };
                seen.alone.fetch_or(alone, Ordering::Relaxed);
                seen.any.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(flags)
}

/// Whether the lab was started with `nohup`, to outlive its terminal.
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1: the lowest bit.
    ignored.is_some_and(|mask| mask & 1 != 0)
}
