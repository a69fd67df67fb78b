//! Attributes of mounts, which `mount(2)` can only change by naming all of them again.

use std::ffi::CStr;
use std::io;

/// What a mount may be restricted to, in addition to what it is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction(u64);

impl Restriction {
    /// Nothing in it can be changed.
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-id bits and file capabilities in it have no effect.
    pub const NO_SETUID: Self = Self(libc::MOUNT_ATTR_NOSUID);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Restricts the mount at this path, and with `recursive` every mount below it (`mount_setattr`,
/// Linux 5.12).
///
/// # Errors
/// What `mount_setattr` says: `EINVAL` when the path is not where something is mounted.
pub fn restrict_mount(path: &CStr, restriction: Restriction, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: restriction.0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let attributes: *const libc::mount_attr = &raw const attributes;
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is NUL-terminated and alive; `attributes` points to a whole `mount_attr` of the
    // size given, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
