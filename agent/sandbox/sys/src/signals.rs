//! Giving a task the signal dispositions that every program expects to start with.

use std::io;

/// Sets every signal's disposition to its default. An ignored signal stays ignored over `exec`, and
/// Rust's runtime ignores SIGPIPE: `yes | head -1` would not end in a task that inherited it.
///
/// # Errors
/// When the kernel refuses for a signal that can be changed.
pub fn default_dispositions() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // Neither can be changed; the two between are the C library's own and it refuses them.
        let fixed = signal == libc::SIGKILL || signal == libc::SIGSTOP;
        if fixed || (32..libc::SIGRTMIN()).contains(&signal) {
            continue;
        }
        // SAFETY: SIG_DFL is a valid disposition for every signal and installs no handler, so no
        // code of ours can be called from a signal. A handler that was there is only forgotten.
        let previous = unsafe { libc::signal(signal, libc::SIG_DFL) };
        if previous == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
