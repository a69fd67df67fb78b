//! Filters of system calls.

use std::io;

/// One instruction of a filter: a `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do (`BPF_…` of `linux/filter.h`).
    pub code: u16,
    /// How many instructions to pass over when the condition holds.
    pub if_true: u8,
    /// And when it does not.
    pub if_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Puts a filter on this thread, for ever and for all that it will start. Needs `CAP_SYS_ADMIN`, or
/// that the process can gain no privileges any more.
///
/// # Errors
/// What `seccomp` says: `EINVAL` for a program that is malformed or too long.
pub fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the filter is too long"))?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut().cast(),
    };
    let program: *const libc::sock_fprog = &raw const program;
    // SAFETY: `program` points to a live `sock_fprog` whose `filter` points to `len` instructions
    // that are alive during the call; `Instruction` has the layout of `sock_filter`. The kernel
    // copies the program and checks it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, program) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
