//! Places of the host that tasks do not find as they are.

/// A place, and what it would open.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// An absolute path.
    pub path: &'static str,
    /// What it would open.
    pub why: &'static str,
}

const fn place(path: &'static str, why: &'static str) -> Place {
    Place { path, why }
}

/// The socket of the system's message bus, wherever its daemon comes from (D-Bus specification).
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

const CONTAINERS: &str = "starts a container with the host's files in it, as root";

/// Sockets and their directories through which a daemon that is root does what it is told: not there
/// for a `standard` task.
pub const DAEMONS: &[Place] = &[
    place("/run/docker.sock", CONTAINERS),
    place("/run/docker", CONTAINERS),
    place("/run/containerd", CONTAINERS),
    place("/run/podman", CONTAINERS),
    place("/run/crio", CONTAINERS),
    place("/run/buildkit", CONTAINERS),
    place("/run/k3s", CONTAINERS),
    place("/run/snapd.socket", "installs programs as root"),
    place("/run/lxd.socket", CONTAINERS),
    place("/var/lib/lxd/unix.socket", CONTAINERS),
    place("/var/lib/incus/unix.socket", CONTAINERS),
    place("/var/snap/lxd/common/lxd/unix.socket", CONTAINERS),
    place(
        "/run/libvirt",
        "starts a machine with the host's disks in it",
    ),
    place(
        "/run/systemd",
        "sockets of the service manager and its kin that ask no bus; see SERVICE_MANAGER",
    ),
    place(
        "/run/user",
        "service managers of users, root among them: they start programs outside",
    ),
    place(
        "/run/udev/control",
        "starts programs as root by rules and properties",
    ),
    place("/run/supervisor.sock", "starts programs as root"),
    place("/run/initctl", "commands process 1"),
    place("/run/screen", "terminals of root's other sessions"),
    place("/run/tmux", "terminals of root's other sessions"),
];

/// Directories of the service manager that a `standard` task sees, read-only, though what is beside them
/// is hidden.
pub const SERVICE_MANAGER: &[Place] = &[
    place(
        "/run/systemd/system",
        "tells that there is one; units of now",
    ),
    place("/run/systemd/generator", "units of now"),
    place("/run/systemd/generator.early", "units of now"),
    place("/run/systemd/generator.late", "units of now"),
    place("/run/systemd/transient", "units of now"),
    place("/run/systemd/units", "what is known of units that log"),
    place("/run/systemd/journal", "the way to the log"),
    place("/run/systemd/resolve", "names of the network"),
    place("/run/systemd/netif", "networks, as they are"),
    place("/run/systemd/timesync", "whether the clock is right"),
    place("/run/systemd/userdb", "users that are in no file"),
    place("/run/systemd/sessions", "who is logged in"),
    place("/run/systemd/seats", "who is logged in"),
    place("/run/systemd/users", "who is logged in"),
];

/// Files of the kernel in `/proc` that a `standard` task can read and not write.
pub const KERNEL: &[Place] = &[
    place(
        "/proc/sys",
        "core_pattern, modprobe, binfmt_misc: programs that the kernel starts as root",
    ),
    place(
        "/proc/sysrq-trigger",
        "memory dumps, and a sudden end of the machine",
    ),
    place("/proc/irq", "the host's interrupts"),
    place("/proc/bus", "devices by their registers"),
    place("/proc/fs", "switches of file systems"),
    place("/proc/acpi", "the machine's power"),
    place("/proc/scsi", "disks added and removed"),
];

/// Files that a `standard` task can read and not write, where they exist: what has no ordinary use
/// and would be executed in every program that root starts, the agent's included.
pub const PERSISTENT: &[Place] = &[place(
    "/etc/ld.so.preload",
    "loaded into every program, the agent included",
)];

/// Kinds of file systems that are the kernel's own. Where one is mounted outside of `/proc`, `/sys` and
/// `/dev`, as below a chroot, a task finds an empty directory.
pub const KERNEL_FILE_SYSTEMS: &[&str] = &[
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "bpf",
    "binfmt_misc",
    "efivarfs",
    "pstore",
    "fusectl",
    "selinuxfs",
    "rpc_pipefs",
    "nfsd",
];

/// The devices that a task has.
pub const DEVICES: &[Device] = &[
    device("null", 1, 3),
    device("zero", 1, 5),
    device("full", 1, 7),
    device("random", 1, 8),
    device("urandom", 1, 9),
    device("tty", 5, 0),
];

/// A character device that holds nothing of the host.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    /// Its name in `/dev`.
    pub name: &'static str,
    /// Its major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
}

const fn device(name: &'static str, major: u64, minor: u64) -> Device {
    Device { name, major, minor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_absolute_and_has_a_reason() {
        for place in [DAEMONS, SERVICE_MANAGER, KERNEL, PERSISTENT].concat() {
            assert!(place.path.starts_with('/'), "{}", place.path);
            assert!(!place.why.is_empty(), "{}", place.path);
        }
    }
}
