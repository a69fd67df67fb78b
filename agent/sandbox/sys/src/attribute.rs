//! Extended attributes of files: systemd marks the cgroups it delegates with one.

use std::ffi::CStr;
use std::io;

/// The value of an extended attribute, cut to the first 64 bytes; `None` when the file has no such
/// attribute, when its file system has none at all, or when we may not see it.
///
/// # Errors
/// What `getxattr` says otherwise.
pub fn attribute(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 64];
    // SAFETY: both names are NUL-terminated strings alive during the call; `value` is a live buffer
    // of exactly the length given, and the kernel writes no more than that.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    if let Ok(length) = usize::try_from(length) {
        value.truncate(length);
        return Ok(Some(value));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP | libc::EPERM) => Ok(None),
        _ => Err(error),
    }
}
