//! What is mounted where: by which other paths a protected file can be reached, and which directories
//! could be renamed to put another in its place. Pure: the kernel's `mountinfo` is an argument.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::profile::paths::KERNEL_FILE_SYSTEMS;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The file system, `major:minor`.
    pub device: String,
    /// Which part of it is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Its kind.
    pub kind: String,
}

/// All mounts of a `mountinfo`, in its order: a later one at the same place lies on top. Lines of
/// another form are passed over.
#[must_use]
pub fn parse(mountinfo: &str) -> Vec<Mount> {
    let line = |line: &str| {
        // Fields of a mount, then " - ", then its type (proc(5)).
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        Some(Mount {
            device: fields.next()?.to_owned(),
            root: unescape(fields.next()?),
            point: unescape(fields.next()?),
            kind: kind.split(' ').next()?.to_owned(),
        })
    };
    mountinfo.lines().filter_map(line).collect()
}

/// The other paths at which this file or directory, or a part of it, is mounted too.
#[must_use]
pub fn aliases(mounts: &[Mount], path: &Path) -> Vec<PathBuf> {
    let Some(place) = visible(mounts, path) else {
        return Vec::new();
    };
    let Ok(below) = path.strip_prefix(&place.point) else {
        return Vec::new();
    };
    let inside = join(&place.root, below);
    let same = mounts.iter().filter(|mount| mount.device == place.device);
    let mut found: Vec<PathBuf> = same
        .filter_map(|mount| {
            if let Ok(rest) = inside.strip_prefix(&mount.root) {
                Some(join(&mount.point, rest))
            } else {
                // A mount of something inside of it.
                mount.root.starts_with(&inside).then(|| mount.point.clone())
            }
        })
        .filter(|alias| !alias.starts_with(path))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Where file systems of the kernel are mounted outside of the places that a task gets of its own.
#[must_use]
pub fn kernel_elsewhere(mounts: &[Mount]) -> Vec<PathBuf> {
    let own = ["/proc", "/sys", "/dev"];
    let mut found: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| KERNEL_FILE_SYSTEMS.contains(&mount.kind.as_str()))
        .map(|mount| mount.point.clone())
        .filter(|point| !own.iter().any(|own| point.starts_with(own)))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The directories above these paths that are no mount points, the outermost first. Whoever may write
/// beside one of them could rename it, and put another in its place.
#[must_use]
pub fn renameable(mounts: &[Mount], paths: &[PathBuf]) -> Vec<PathBuf> {
    let above: BTreeSet<&Path> = paths
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|ancestor| ancestor.parent().is_some())
        .collect();
    // Ascending order of paths has a directory before what is in it.
    above
        .into_iter()
        .filter(|ancestor| !mounts.iter().any(|mount| mount.point == *ancestor))
        .map(Path::to_path_buf)
        .collect()
}

/// The mount that is seen at this path.
fn visible<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        // Of equals the last is taken, which lies on top.
        .max_by_key(|mount| mount.point.components().count())
}

/// Without a trailing slash, which joining nothing would leave.
fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        base.to_path_buf()
    } else {
        base.join(rest)
    }
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let plain = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    PathBuf::from(
        plain
            .iter()
            .fold(field.to_owned(), |text, (from, to)| text.replace(from, to)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the kernel writes a path.
    fn escaped(path: &str) -> String {
        let octal = |c: char| match c {
            ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
            other => other.to_string(),
        };
        path.chars().map(octal).collect()
    }

    proptest! {
        #[test]
        fn paths_are_read_back_whatever_is_in_them(
            points in prop::collection::vec("/[a-c\\\\ \t\n0-9é/-]{0,12}", 0..5),
            noise in "(\\PC| - |/| |\n|0:2){0,20}",
        ) {
            let mut text = String::new();
            for point in &points {
                let point = escaped(point);
                text.push_str(&format!("1 2 0:3 / {point} rw - ext4 /dev/x rw\n"));
            }
            let read: Vec<_> = parse(&text).into_iter().map(|mount| mount.point).collect();
            let written: Vec<_> = points.iter().map(PathBuf::from).collect();
            prop_assert_eq!(read, written);
            let mounts = parse(&noise);
            let keys = PathBuf::from("/etc/keys");
            for path in aliases(&mounts, &keys) {
                prop_assert!(!path.starts_with(&keys));
            }
            drop((kernel_elsewhere(&mounts), renameable(&mounts, &[keys])));
        }
    }

    const HOST: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw shared:5 - proc proc rw
24 22 254:0 / /mnt/root rw - ext4 /dev/vda rw
25 22 254:0 /etc/keys /srv/a\\040b rw - ext4 /dev/vda rw
26 22 254:0 /etc/keys/inner /srv/inner rw - ext4 /dev/vda rw
27 22 0:40 / /var rw - xfs /dev/vdb rw
28 22 0:40 /lib /lib2 rw - xfs /dev/vdb rw
29 22 0:21 / /srv/chroot/proc rw - proc proc rw
garbage
";

    fn paths(texts: &[&str]) -> Vec<PathBuf> {
        texts.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_file_is_found_wherever_its_file_system_is_mounted() {
        let mounts = parse(HOST);
        assert_eq!(
            aliases(&mounts, Path::new("/etc/keys")),
            paths(&["/mnt/root/etc/keys", "/srv/a b", "/srv/inner"])
        );
        assert_eq!(
            aliases(&mounts, Path::new("/etc/keys/key.pem")),
            paths(&["/mnt/root/etc/keys/key.pem", "/srv/a b/key.pem"])
        );
        assert_eq!(
            aliases(&mounts, Path::new("/var/lib/x")),
            paths(&["/lib2/x"])
        );
        assert_eq!(aliases(&mounts, Path::new("/var/log/x")), paths(&[]));
        assert_eq!(aliases(&[], Path::new("/var/log/x")), paths(&[]));
    }

    #[test]
    fn the_kernels_own_file_systems_are_found_below_a_chroot() {
        assert_eq!(kernel_elsewhere(&parse(HOST)), paths(&["/srv/chroot/proc"]));
    }

    #[test]
    fn every_directory_above_is_found_once_and_from_the_outside() {
        let mounts = parse(HOST);
        let protected = paths(&["/etc/a/keys", "/etc/a/b/conf", "/var/lib/x"]);
        assert_eq!(
            renameable(&mounts, &protected),
            paths(&["/etc", "/etc/a", "/etc/a/b", "/var/lib"])
        );
    }
}
