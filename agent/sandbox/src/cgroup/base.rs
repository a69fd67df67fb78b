//! Where the cgroups of tasks are made: below our own cgroup when it was delegated to us, else
//! below the root of cgroup v2, in a directory `pxp-agent` that stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, delegated, writable};

/// The directory that holds the leaves. Agents on the same host share it: leaves are named by
/// transactions.
const NAME: &str = "pxp-agent";

/// A place where cgroup v2 is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Which part of the hierarchy is seen there; `/` unless it is a container's.
    root: PathBuf,
    point: PathBuf,
}

/// Finds and makes the directory in which leaves are made.
///
/// # Errors
/// When there is no cgroup v2, or none of it is ours to use.
pub fn base() -> Result<PathBuf, CgroupError> {
    let mounts = mounts(&read("/proc/self/mountinfo")?);
    let mount = mounts.first().ok_or(CgroupError::NotMounted)?;
    let own = own(&read("/proc/self/cgroup")?);
    let parent = parent(mount, own.as_deref(), &|directory| {
        delegated(directory) || (!nix::unistd::geteuid().is_root() && writable(directory))
    });
    let base = parent.join(NAME);
    match fs::create_dir(&base) {
        Ok(()) => Ok(base),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(base),
        Err(source) => Err(CgroupError::Create { path: base, source }),
    }
}

fn parent(mount: &Mount, own: Option<&Path>, ours: &dyn Fn(&Path) -> bool) -> PathBuf {
    // The one above it too: with `DelegateSubgroup` systemd puts the service into a cgroup below the
    // one that it gives away.
    own.and_then(|own| own.strip_prefix(&mount.root).ok())
        .into_iter()
        .flat_map(|below| below.ancestors().take(2))
        .filter(|below| !below.as_os_str().is_empty())
        .map(|below| mount.point.join(below))
        .find(|directory| ours(directory))
        .unwrap_or_else(|| mount.point.clone())
}

fn read(path: &str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read {
        path: PathBuf::from(path),
        source,
    })
}

/// The cgroup v2 mounts of a `mountinfo`: on its own at `/sys/fs/cgroup`, or beside version 1 at
/// `/sys/fs/cgroup/unified`, or anywhere else.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    crate::mounts::parse(mountinfo)
        .into_iter()
        .filter(|mount| mount.kind == "cgroup2")
        .map(|mount| Mount {
            root: mount.root,
            point: mount.point,
        })
        .collect()
}

/// Our own cgroup in version 2: the line with hierarchy 0 and no controllers.
fn own(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A cgroup outside of our cgroup namespace, or removed, is no place to make another in.
    let usable = !path.contains("/..") && !path.ends_with(" (deleted)");
    usable.then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_the_kernel_tells_is_a_place_below_the_mount_or_none(
            cgroup in "(0::|4:memory:|/\\.\\.|/a|/| \\(deleted\\)|\n|\\PC){0,12}",
            root in "(/a|/|/\\.\\.)",
        ) {
            let mount = mount(&root, "/sys/fs/cgroup");
            let found = parent(&mount, own(&cgroup).as_deref(), &|_| true);
            prop_assert!(found.starts_with("/sys/fs/cgroup"), "{}", found.display());
            let up = found.components().any(|part| part == std::path::Component::ParentDir);
            prop_assert!(!up, "{}", found.display());
        }
    }

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
";

    fn mount(root: &str, point: &str) -> Mount {
        Mount {
            root: root.into(),
            point: point.into(),
        }
    }

    #[test]
    fn version_2_is_found_on_hybrid_and_unified_hosts_and_nowhere_else() {
        assert_eq!(mounts(HYBRID), [mount("/", "/sys/fs/cgroup/unified")]);
        let unified = "25 22 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mounts(unified), [mount("/", "/sys/fs/cgroup")]);
        let odd = "25 22 0:22 /a\\040b /mnt/x\\134y rw - cgroup2 none rw\ngarbage\n\n - cgroup2";
        assert_eq!(mounts(odd), [mount("/a b", "/mnt/x\\y")]);
        assert_eq!(
            mounts("35 31 0:32 / /sys/fs/cgroup rw - cgroup cgroup rw,memory"),
            []
        );
    }

    #[test]
    fn our_own_cgroup_is_the_line_of_version_2() {
        let text = "9:name=systemd:/x\n4:memory:/y\n0::/system.slice/pxp-agent.service\n";
        assert_eq!(own(text), Some("/system.slice/pxp-agent.service".into()));
        assert_eq!(own("4:memory:/y\n"), None);
        assert_eq!(own("0::/../other\n"), None);
        assert_eq!(own("0::/gone (deleted)\n"), None);
    }

    #[test]
    fn leaves_are_made_below_a_delegated_cgroup_and_else_below_the_root() {
        let all = mount("/", "/sys/fs/cgroup");
        let own = Path::new("/system.slice/pxp-agent.service");
        let delegated = "/sys/fs/cgroup/system.slice/pxp-agent.service";
        assert_eq!(parent(&all, Some(own), &|_| true), Path::new(delegated));
        let supervisor = own.join("supervisor");
        let ours = |directory: &Path| directory == Path::new(delegated);
        assert_eq!(parent(&all, Some(&supervisor), &ours), Path::new(delegated));
        assert_eq!(
            parent(&all, Some(own), &|_| false),
            Path::new("/sys/fs/cgroup")
        );
        assert_eq!(
            parent(&all, Some(Path::new("/")), &|_| true),
            Path::new("/sys/fs/cgroup")
        );
        assert_eq!(parent(&all, None, &|_| true), Path::new("/sys/fs/cgroup"));
        // A container that sees only its part of the hierarchy.
        let part = mount("/docker/1", "/sys/fs/cgroup");
        let inside = parent(&part, Some(Path::new("/docker/1/agent")), &|_| true);
        assert_eq!(inside, Path::new("/sys/fs/cgroup/agent"));
        let outside = parent(&part, Some(Path::new("/other")), &|_| true);
        assert_eq!(outside, Path::new("/sys/fs/cgroup"));
    }
}
