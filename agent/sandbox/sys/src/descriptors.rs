//! Closing descriptors that this program never opened.

use std::io;

use crate::thread::SingleThreaded;

/// The first descriptor that is not one of the three standard ones.
const FIRST: libc::c_uint = 3;

/// Closes every descriptor but 0, 1 and 2 (`close_range`, Linux 5.9).
///
/// This is for the first statement of `main`, when the program owns nothing: what is open then was
/// left open by whoever started it. A descriptor owned by a value of the caller would be closed
/// behind its back, and later uses of it would fail with `EBADF`.
///
/// # Errors
/// What `close_range` says.
pub fn close_inherited(_: &SingleThreaded) -> io::Result<()> {
    close_range(0)
}

/// Marks every descriptor but 0, 1 and 2 to be closed by the next `exec` (Linux 5.11): the last
/// thing before it, so that nothing leaks whoever forgot the flag.
///
/// # Errors
/// What `close_range` says.
pub fn close_on_exec() -> io::Result<()> {
    close_range(libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range takes three integers and touches no memory. With the CLOEXEC flag it
    // closes nothing. Without it, it closes descriptors from 3 on: the one thread there is
    // (`close_inherited` asks for the proof) cannot be using one at the same time, and the contract
    // of `close_inherited` is that none is owned by a value of this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
