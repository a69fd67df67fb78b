//! The capabilities that a task of the profile `standard` can have at most, whatever it executes.
//! Everything that is not here is taken from it; a `confined` task has none at all.

/// A capability that is left to a task.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Its number in `linux/capability.h`.
    pub number: u8,
    /// Its name there.
    pub name: &'static str,
    /// What ordinary administration needs it for.
    pub why: &'static str,
}

/// The highest capability that Linux may come to have: the sets are 64 bits wide.
pub const HIGHEST: u8 = 63;

const fn kept(number: u8, name: &'static str, why: &'static str) -> Kept {
    Kept { number, name, why }
}

/// What is left.
pub const KEPT: &[Kept] = &[
    kept(0, "CAP_CHOWN", "give files to the users of services"),
    kept(1, "CAP_DAC_OVERRIDE", "write where root writes"),
    kept(3, "CAP_FOWNER", "change modes of users' files"),
    kept(
        4,
        "CAP_FSETID",
        "keep set-group-id bits when packages are unpacked",
    ),
    kept(
        5,
        "CAP_KILL",
        "end the processes of other users that the task started",
    ),
    kept(
        6,
        "CAP_SETGID",
        "su, and maintainer scripts that become a service's group",
    ),
    kept(
        7,
        "CAP_SETUID",
        "su, and maintainer scripts that become a service's user",
    ),
    kept(
        8,
        "CAP_SETPCAP",
        "programs that give up more than this by themselves",
    ),
    kept(9, "CAP_LINUX_IMMUTABLE", "chattr"),
    kept(10, "CAP_NET_BIND_SERVICE", "try a port below 1024"),
    kept(
        11,
        "CAP_NET_BROADCAST",
        "as it always was: no use is known to be a danger",
    ),
    kept(
        12,
        "CAP_NET_ADMIN",
        "addresses, routes and the packet filter",
    ),
    kept(13, "CAP_NET_RAW", "ping and packet captures"),
    kept(14, "CAP_IPC_LOCK", "programs that keep secrets out of swap"),
    kept(
        18,
        "CAP_SYS_CHROOT",
        "maintainer scripts and initial ramdisks",
    ),
    kept(23, "CAP_SYS_NICE", "nice and ionice"),
    kept(
        24,
        "CAP_SYS_RESOURCE",
        "su raises limits as the user's login would have them",
    ),
    kept(28, "CAP_LEASE", "file servers' tools"),
    kept(
        29,
        "CAP_AUDIT_WRITE",
        "su and useradd write to the audit log",
    ),
    kept(
        31,
        "CAP_SETFCAP",
        "packages whose programs carry capabilities, such as ping",
    ),
];

/// What is taken, with what it would open. Beside these, whatever a later kernel adds.
pub const TAKEN: &[Kept] = &[
    kept(
        2,
        "CAP_DAC_READ_SEARCH",
        "open_by_handle_at finds any file, past every mask",
    ),
    kept(15, "CAP_IPC_OWNER", "reading shared memory of other users"),
    kept(16, "CAP_SYS_MODULE", "code in the kernel"),
    kept(
        17,
        "CAP_SYS_RAWIO",
        "memory, ports and disks by their addresses",
    ),
    kept(
        19,
        "CAP_SYS_PTRACE",
        "reading and changing other processes, the task's helper among them",
    ),
    kept(
        20,
        "CAP_SYS_PACCT",
        "a file that the kernel writes for all processes",
    ),
    kept(21, "CAP_SYS_ADMIN", "mounts, namespaces and much else"),
    kept(
        22,
        "CAP_SYS_BOOT",
        "another kernel, or a sudden end of this one",
    ),
    kept(
        25,
        "CAP_SYS_TIME",
        "a clock by which expired certificates are valid",
    ),
    kept(26, "CAP_SYS_TTY_CONFIG", "other people's terminals"),
    kept(27, "CAP_MKNOD", "a disk as a file, and so the keys on it"),
    kept(30, "CAP_AUDIT_CONTROL", "auditing turned off"),
    kept(32, "CAP_MAC_OVERRIDE", "labels ignored"),
    kept(33, "CAP_MAC_ADMIN", "labels changed"),
    kept(34, "CAP_SYSLOG", "addresses of the kernel, and its log"),
    kept(35, "CAP_WAKE_ALARM", "waking the machine"),
    kept(36, "CAP_BLOCK_SUSPEND", "keeping the machine awake"),
    kept(37, "CAP_AUDIT_READ", "what others did"),
    kept(
        38,
        "CAP_PERFMON",
        "other processes observed through the kernel",
    ),
    kept(39, "CAP_BPF", "programs in the kernel"),
    kept(40, "CAP_CHECKPOINT_RESTORE", "process ids of one's choice"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_is_either_kept_or_taken_and_has_a_reason() {
        let mut numbers: Vec<u8> = KEPT.iter().chain(TAKEN).map(|one| one.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..=40).collect::<Vec<u8>>());
        assert!(KEPT.iter().chain(TAKEN).all(|one| !one.why.is_empty()));
    }
}
