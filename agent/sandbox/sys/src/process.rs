//! Making processes, and learning how they ended.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::thread::SingleThreaded;

/// Linux 5.7; `libc` lacks the name on some targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a new process gets beside a copy of everything.
#[derive(Debug)]
pub struct CloneRequest<'a> {
    /// New namespaces. Only `CLONE_NEW…` flags have an effect.
    pub namespaces: CloneFlags,
    /// The cgroup v2 directory that the new process is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which of the two processes this is after [`clone`].
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The process that called.
    Parent {
        /// The new process's id in the caller's PID namespace.
        pid: Pid,
        /// A descriptor of the new process, closed on exec.
        pidfd: OwnedFd,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it. A number, because real-time signals have no names.
    Signaled(i32),
}

/// What [`reap`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended and is now forgotten by the kernel.
    Ended(Pid, End),
    /// There are children, none of which has ended.
    NoneEnded,
    /// There are no children.
    NoChildren,
}

/// Makes a copy of this process, as `fork` does (`clone3`, Linux 5.3; with a cgroup 5.7). The
/// parent gets `SIGCHLD` when the copy ends.
///
/// # Errors
/// What `clone3` says.
pub fn clone(_: &SingleThreaded, request: &CloneRequest<'_>) -> io::Result<Cloned> {
    const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWCGROUP
        .union(CloneFlags::CLONE_NEWIPC)
        .union(CloneFlags::CLONE_NEWNET)
        .union(CloneFlags::CLONE_NEWNS)
        .union(CloneFlags::CLONE_NEWPID)
        .union(CloneFlags::CLONE_NEWUSER)
        .union(CloneFlags::CLONE_NEWUTS);
    let mut pidfd: RawFd = -1;
    let mut flags = widen((request.namespaces & NAMESPACES).bits() | libc::CLONE_PIDFD);
    let mut cgroup = 0;
    if let Some(directory) = request.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = widen(directory.as_raw_fd());
    }
    let mut arguments = libc::clone_args {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: widen(libc::SIGCHLD),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    let arguments: *mut libc::clone_args = &mut arguments;
    // SAFETY: `arguments` points to a whole `clone_args` of the size given, alive during the call.
    // CLONE_PIDFD makes the kernel write one `int` through `arguments.pidfd`, which is the address
    // of the live local `pidfd`, its provenance exposed. No CLONE_VM: the child runs on a
    // copy of this stack and memory, so nothing is shared or aliased. No CLONE_FILES or
    // CLONE_SIGHAND either. `cgroup` is a borrowed, thus open, descriptor. The copy has only the
    // calling thread; `SingleThreaded` says that no other existed, so no lock (the allocator's
    // included) can be left held in the copy.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, arguments, size_of::<libc::clone_args>()) };
    match i32::try_from(result) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so the kernel stored a new descriptor in
            // `pidfd` that nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent {
                pid: Pid::from_raw(pid),
                pidfd,
            })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks for one ended child of this process, without waiting.
///
/// # Errors
/// What `waitpid` says, except that there are no children, which is an answer.
pub fn reap() -> io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: `status` is a live local of the type that waitpid writes to. The call has no other
    // requirement; -1 asks for any child.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(Reaped::NoneEnded),
        pid if pid > 0 => {
            let end = if libc::WIFSIGNALED(status) {
                End::Signaled(libc::WTERMSIG(status))
            } else {
                End::Exited(libc::WEXITSTATUS(status))
            };
            Ok(Reaped::Ended(Pid::from_raw(pid), end))
        }
        _ => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ECHILD) {
                Ok(Reaped::NoChildren)
            } else {
                Err(error)
            }
        }
    }
}

/// Ends this process at once: no destructors, no buffers written, no handlers run. For a copy made
/// by [`clone`], which must not do any of that in its parent's name.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no requirement and does not return.
    unsafe { libc::_exit(code) }
}

/// Removes every environment variable of this process.
///
/// # Errors
/// What `clearenv` says.
pub fn clear_environment(_: &SingleThreaded) -> io::Result<()> {
    // SAFETY: clearenv changes the global `environ`, which is a race only with another thread that
    // reads or writes it; `SingleThreaded` says that there is none. No pointer into the old
    // environment is kept by this process: Rust's standard library copies what it hands out.
    let result = unsafe { libc::clearenv() };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::other("clearenv failed"))
    }
}

/// A flag, signal or descriptor, none of which is negative, as clone3 wants it.
fn widen(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}
