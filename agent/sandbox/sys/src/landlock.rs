//! Landlock: restrictions that a process puts on itself and on all that it will start.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_int = 1;

/// What a ruleset governs: a `struct landlock_ruleset_attr`, as of ABI 6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Governed {
    /// `LANDLOCK_ACCESS_FS_…`: refused where no rule allows it.
    pub files: u64,
    /// `LANDLOCK_ACCESS_NET_…`.
    pub network: u64,
    /// `LANDLOCK_SCOPE_…`: refused towards processes outside.
    pub scopes: u64,
}

/// A `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// The version of Landlock that this kernel has; 0 for none.
#[must_use]
pub fn landlock_version() -> u32 {
    let nothing: *const Governed = std::ptr::null();
    // SAFETY: with the VERSION flag the kernel takes no attributes and reads no memory.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Makes a ruleset that refuses all it governs.
///
/// # Errors
/// What `landlock_create_ruleset` says: `E2BIG` or `EINVAL` for what this kernel does not know.
pub fn landlock_ruleset(governed: &Governed) -> io::Result<OwnedFd> {
    // An older kernel takes a shorter structure, and refuses a longer one unless the rest is zero,
    // which it is then.
    let governed: *const Governed = governed;
    // SAFETY: `governed` points to a live value of the size given, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            governed,
            size_of::<Governed>(),
            0,
        )
    };
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Allows these accesses on a file or directory and all below it.
///
/// # Errors
/// What `landlock_add_rule` says.
pub fn landlock_allow(
    ruleset: BorrowedFd<'_>,
    path: BorrowedFd<'_>,
    access: u64,
) -> io::Result<()> {
    let rule = PathBeneath {
        access,
        parent: path.as_raw_fd(),
    };
    let rule: *const PathBeneath = &raw const rule;
    // SAFETY: both descriptors are borrowed, thus open; `rule` points to a live value of the type
    // that belongs to PATH_BENEATH, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            rule,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Puts the ruleset on this thread. Needs `CAP_SYS_ADMIN`, or that the process can gain no
/// privileges any more.
///
/// # Errors
/// What `landlock_restrict_self` says.
pub fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, thus open; no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
