//! Mounts as things of their own: their attributes, which `mount(2)` can only change by naming all of them
//! again, and trees of them that are not attached anywhere.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    set_attributes(libc::AT_FDCWD, path, flags, restriction, 0)
}

/// A copy of what is mounted at this path and below it, attached nowhere (`open_tree`, Linux 5.2). A link
/// at the end of the path is not followed. The copy shares mounts and unmounts with what it was made of,
/// see [`adapt_tree`].
///
/// # Errors
/// What `open_tree` says: `EINVAL` when the path is in another mount namespace.
pub fn copy_tree(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_RECURSIVE | libc::AT_SYMLINK_NOFOLLOW).cast_unsigned();
    // SAFETY: `path` is NUL-terminated and alive, and only read.
    let result =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    match i32::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => {
            // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a tree of [`copy_tree`] a follower: what is mounted in it is not seen where it comes from. Restricts
/// all of it, too.
///
/// # Errors
/// What `mount_setattr` says.
pub fn adapt_tree(tree: BorrowedFd<'_>, restriction: Option<Restriction>) -> io::Result<()> {
    let restriction = restriction.unwrap_or(Restriction(0));
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    set_attributes(tree.as_raw_fd(), c"", flags, restriction, libc::MS_SLAVE)
}

/// Mounts a tree of [`copy_tree`] at this path (`move_mount`, Linux 5.2).
///
/// # Errors
/// What `move_mount` says.
pub fn attach_tree(tree: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: both texts are NUL-terminated and alive, and only read; `tree` is borrowed, thus open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The number of the mount whose root is seen at this path; `None` when something else is, a file or
/// directory within a mount (`statx`, Linux 5.8). A number means that mount for as long as it is mounted.
///
/// # Errors
/// What `statx` says; `ENOSYS` when the kernel tells no numbers.
pub fn mount_seen_at(path: &CStr) -> io::Result<Option<u64>> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: `path` is NUL-terminated and alive, and only read; `found` is a live local of the type that
    // the kernel writes.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            libc::STATX_MNT_ID,
            found.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of it was zero, which is a value of this type of integers, and the kernel has filled it.
    let found = unsafe { found.assume_init() };
    // `stx_attributes` is of 64 bits, of which the names are integers of 32.
    let root = u64::from(libc::STATX_ATTR_MOUNT_ROOT.cast_unsigned());
    if found.stx_mask & libc::STATX_MNT_ID == 0 || found.stx_attributes_mask & root == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    Ok((found.stx_attributes & root != 0).then_some(found.stx_mnt_id))
}

fn set_attributes(
    directory: libc::c_int,
    path: &CStr,
    flags: libc::c_int,
    restriction: Restriction,
    propagation: libc::c_ulong,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: restriction.0,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    let attributes: *const libc::mount_attr = &raw const attributes;
    // SAFETY: `path` is NUL-terminated and alive; `attributes` points to a whole `mount_attr` of the
    // size given, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
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
