//! The powers of a process, by their numbers in `linux/capability.h`.

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits for each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Removes a capability from what any later `exec` can give this process, set-user-id programs
/// included. `false` when this kernel has no such capability.
///
/// # Errors
/// What `prctl` says: `EPERM` without `CAP_SETPCAP`.
pub fn drop_from_bounding_set(capability: u8) -> io::Result<bool> {
    // Looking is cheaper than a new set of credentials.
    // SAFETY: PR_CAPBSET_READ takes integers and touches no memory.
    let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability)) };
    if held == 0 {
        return Ok(true);
    }
    // SAFETY: PR_CAPBSET_DROP takes integers and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability)) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) {
        Ok(false)
    } else {
        Err(error)
    }
}

/// Empties the inheritable set, and with it the ambient one, which could otherwise outlast the
/// bounding set over an `exec`. What the process itself may do stays.
///
/// # Errors
/// What `capget` or `capset` says.
pub fn inherit_no_capabilities() -> io::Result<()> {
    let mut sets = get()?;
    for word in &mut sets {
        word.inheritable = 0;
    }
    set(sets)
}

/// Gives up every capability but those with these numbers, all below 32.
///
/// # Errors
/// What `capget` or `capset` says.
pub fn keep_capabilities(numbers: &[u8]) -> io::Result<()> {
    let bit = |number: &u8| 1_u32.checked_shl((*number).into()).unwrap_or(0);
    let kept = numbers.iter().fold(0, |bits, number| bits | bit(number));
    let [first, _second] = get()?;
    let none = Sets {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    };
    let some = Sets {
        effective: first.effective & kept,
        permitted: first.permitted & kept,
        inheritable: 0,
    };
    set([some, none])
}

/// Gives up every capability.
///
/// # Errors
/// What `capset` says.
pub fn drop_all_capabilities() -> io::Result<()> {
    set([Sets {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2])
}

fn get() -> io::Result<[Sets; 2]> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut sets = [Sets {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both pointers are to live locals; version 3 makes the kernel write two `Sets`, of
    // which there are two.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if result == 0 {
        Ok(sets)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set(sets: [Sets; 2]) -> io::Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    // SAFETY: both pointers are to live values; version 3 makes the kernel read two `Sets`, of which
    // there are two.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
