//! Giving a task the signal dispositions that every program expects to start with.

use std::io;

/// How many signals Linux has.
const SIGNALS: libc::c_int = 64;

/// The kernel's `struct sigaction` with SIG_DFL, no flags, no restorer and an empty mask is all
/// zeroes, whatever the order of its fields. No architecture's is longer than this.
type KernelSigaction = [u64; 4];

/// The size of the kernel's set of 64 signals, in bytes.
const SET_SIZE: usize = 8;

/// Sets every signal's disposition to its default. An ignored signal stays ignored over `exec`, and
/// Rust's runtime ignores SIGPIPE: `yes | head -1` would not end in a task that inherited it.
///
/// The system call itself, because the C library refuses for the two signals it keeps to itself,
/// and whoever started the agent may have had them ignored.
///
/// # Errors
/// When the kernel refuses for a signal that can be changed.
pub fn default_dispositions() -> io::Result<()> {
    let default: KernelSigaction = [0; 4];
    let default: *const KernelSigaction = &raw const default;
    let nothing: *mut KernelSigaction = std::ptr::null_mut();
    for signal in 1..=SIGNALS {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: `default` points to a live value that is at least as long as what the kernel
        // reads from it, and a null pointer for the old action is allowed. SIG_DFL installs no
        // handler, so no code of ours can be called from a signal; one that was there is forgotten.
        let result =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default, nothing, SET_SIZE) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
