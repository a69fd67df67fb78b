//! What directories take on the disk. Where blocking work is done is [`daemon::disk`].

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

pub use daemon::disk::{Disk, DiskError, Room};

/// How many bytes a directory takes on the disk with everything below it, and when any of its files was
/// last changed. What cannot be looked at counts as nothing.
#[must_use]
pub fn measure(path: &Path) -> (u64, SystemTime) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return (0, SystemTime::UNIX_EPOCH);
    };
    let mut bytes = metadata.blocks().saturating_mul(512);
    let mut changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let (more, later) = measure(&entry.path());
            bytes = bytes.saturating_add(more);
            changed = changed.max(later);
        }
    }
    (bytes, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        let (empty, _) = measure(dir.path());
        fs::write(dir.path().join("below/file"), vec![1; 100_000]).unwrap();
        let (full, changed) = measure(dir.path());
        assert!(full >= empty + 100_000, "{empty} {full}");
        assert!(changed > SystemTime::UNIX_EPOCH);
        assert_eq!(measure(&dir.path().join("none")).0, 0);
    }
}
