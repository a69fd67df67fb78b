//! System calls, by profile. `standard` is refused what ordinary administration never needs and what
//! a capability alone does not keep from it; `confined` is allowed what is listed and nothing else.

use nix::libc;

use crate::filter::Verdict;

/// A system call that a `standard` task is refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Its number on this architecture.
    pub call: libc::c_long,
    /// Its name.
    pub name: &'static str,
    /// What the task is told.
    pub verdict: Verdict,
    /// What it would open.
    pub why: &'static str,
}

/// Calls that a `confined` task is allowed, for one purpose.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Their numbers on this architecture.
    pub calls: &'static [libc::c_long],
    /// What they are needed for.
    pub why: &'static str,
}

/// `open_tree_attr`, Linux 6.15: the same number on all architectures.
const OPEN_TREE_ATTR: libc::c_long = 467;

macro_rules! refused {
    ($($name:ident $verdict:ident $why:literal;)*) => {
        &[
            $(Refused {
                call: libc::$name,
                name: stringify!($name),
                verdict: Verdict::$verdict,
                why: $why,
            },)*
            Refused {
                call: OPEN_TREE_ATTR,
                name: "SYS_open_tree_attr",
                verdict: Verdict::Refuse,
                why: MOUNTS,
            },
        ]
    };
}

const MOUNTS: &str = "mounts: what is hidden would come to light, or outlive the task";

/// What a `standard` task is refused.
pub const REFUSED: &[Refused] = refused! {
    SYS_mount Refuse "mounts: what is hidden would come to light, or outlive the task";
    SYS_umount2 Refuse "mounts: the masks would come off";
    SYS_pivot_root Refuse "mounts: another root without the masks";
    SYS_open_tree Refuse "mounts: a copy of a tree without what is mounted on it";
    SYS_move_mount Refuse "mounts: a mask moved away";
    SYS_fsopen Refuse "mounts: a disk or a kernel file system once more";
    SYS_fsconfig Refuse "mounts: a disk or a kernel file system once more";
    SYS_fsmount Refuse "mounts: a disk or a kernel file system once more";
    SYS_fspick Refuse "mounts: a file system changed under the host";
    SYS_mount_setattr Refuse "mounts: what is read-only made writable";
    SYS_swapon Refuse "disks: memory of every process on a file of the task's choice";
    SYS_swapoff Refuse "disks: the host's memory";
    SYS_quotactl Refuse "disks: limits of the host's users";
    SYS_unshare UnlessNewNamespaceOfUnshare "namespaces: in a new user namespace all capabilities come back";
    SYS_clone UnlessNewNamespace "namespaces: in a new user namespace all capabilities come back";
    SYS_clone3 Unknown "namespaces: its flags lie in memory, where a filter cannot look; programs fall back to clone";
    SYS_setns Refuse "namespaces: the host's, by a descriptor or a file in /proc";
    SYS_bpf Refuse "kernel: programs in it";
    SYS_perf_event_open Refuse "kernel: other processes observed, and a long history of faults";
    SYS_userfaultfd Refuse "kernel: the tool that makes races in it easy to win";
    SYS_io_uring_setup Unknown "kernel: a second way to most calls, past this filter; programs fall back";
    SYS_io_uring_enter Unknown "kernel: a second way to most calls, past this filter; programs fall back";
    SYS_io_uring_register Unknown "kernel: a second way to most calls, past this filter; programs fall back";
    SYS_init_module Refuse "kernel: code in it";
    SYS_finit_module Refuse "kernel: code in it";
    SYS_delete_module Refuse "kernel: code taken out of it";
    SYS_kexec_load Refuse "kernel: another one";
    SYS_kexec_file_load Refuse "kernel: another one";
    SYS_reboot Refuse "kernel: a sudden end; a restart is the service manager's";
    SYS_acct Refuse "kernel: a file that it writes for all processes";
    SYS_syslog Refuse "kernel: its log and addresses";

    SYS_open_by_handle_at Refuse "files: any inode of a disk, past every mask";
    SYS_fanotify_init Refuse "files: notice of, and a say in, every access on the host";
    SYS_add_key Unknown "keys: keyrings know no namespaces";
    SYS_request_key Unknown "keys: starts a program as the host's root";
    SYS_keyctl Unknown "keys: keyrings know no namespaces";
    SYS_settimeofday Refuse "clock: expired certificates become valid";
    SYS_clock_settime Refuse "clock: expired certificates become valid";
    SYS_clock_adjtime Refuse "clock: expired certificates become valid";
    SYS_adjtimex Refuse "clock: expired certificates become valid";
    SYS_sethostname Refuse "names: the host's, in all its processes";
    SYS_setdomainname Refuse "names: the host's, in all its processes";
    SYS_process_vm_readv Refuse "processes: memory of others; a debugger's, not a task's";
    SYS_process_vm_writev Refuse "processes: memory of others; a debugger's, not a task's";
    SYS_pidfd_getfd Refuse "processes: descriptors of others";
    SYS_kcmp Refuse "processes: what others have open";
    SYS_ptrace Refuse "processes: others traced; a debugger's, not a task's";
    SYS_vhangup Refuse "terminals: the host's";
    SYS_ioctl UnlessTerminalInput "terminals: TIOCSTI and TIOCLINUX put words into a terminal's mouth";
};

/// What a `confined` task may do by the arguments only.
pub const CONDITIONAL: &[(libc::c_long, Verdict)] = &[
    (libc::SYS_clone, Verdict::UnlessNewNamespace),
    (libc::SYS_clone3, Verdict::Unknown),
    (libc::SYS_ioctl, Verdict::UnlessTerminalInput),
];

/// What a `confined` task is allowed.
pub const CONFINED: &[Allowed] = &[
    Allowed {
        why: "read and write what is open, and open what the file system allows",
        calls: &[
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_close,
            libc::SYS_close_range,
            libc::SYS_lseek,
            libc::SYS_fcntl,
            libc::SYS_flock,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_pipe2,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_tee,
            libc::SYS_copy_file_range,
            libc::SYS_fadvise64,
            libc::SYS_readahead,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync_file_range,
        ],
    },
    Allowed {
        why: "look at files and directories",
        calls: &[
            libc::SYS_fstat,
            libc::SYS_newfstatat,
            libc::SYS_statx,
            libc::SYS_statfs,
            libc::SYS_fstatfs,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_readlinkat,
            libc::SYS_getdents64,
            libc::SYS_getcwd,
            libc::SYS_chdir,
            libc::SYS_fchdir,
            libc::SYS_getxattr,
            libc::SYS_lgetxattr,
            libc::SYS_fgetxattr,
            libc::SYS_listxattr,
            libc::SYS_llistxattr,
            libc::SYS_flistxattr,
            libc::SYS_umask,
        ],
    },
    Allowed {
        why: "work in the scratch directory; elsewhere everything is read-only",
        calls: &[
            libc::SYS_ftruncate,
            libc::SYS_truncate,
            libc::SYS_fallocate,
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_utimensat,
        ],
    },
    Allowed {
        why: "memory of its own",
        calls: &[
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mprotect,
            libc::SYS_mremap,
            libc::SYS_madvise,
            libc::SYS_brk,
            libc::SYS_msync,
            libc::SYS_mincore,
            libc::SYS_mlock,
            libc::SYS_munlock,
            libc::SYS_membarrier,
        ],
    },
    Allowed {
        why: "start programs, wait for them and end them",
        calls: &[
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_setpgid,
            libc::SYS_getpgid,
            libc::SYS_setsid,
            libc::SYS_getsid,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_prctl,
            libc::SYS_prlimit64,
            libc::SYS_getrlimit,
            libc::SYS_setrlimit,
            libc::SYS_getrusage,
        ],
    },
    Allowed {
        why: "know who and where it is",
        calls: &[
            libc::SYS_getpid,
            libc::SYS_getppid,
            libc::SYS_gettid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_getresuid,
            libc::SYS_getresgid,
            libc::SYS_getgroups,
            libc::SYS_capget,
            libc::SYS_uname,
            libc::SYS_sysinfo,
            libc::SYS_times,
            libc::SYS_getcpu,
            libc::SYS_getrandom,
        ],
    },
    Allowed {
        why: "threads and their scheduling",
        calls: &[
            libc::SYS_futex,
            libc::SYS_set_tid_address,
            libc::SYS_set_robust_list,
            libc::SYS_get_robust_list,
            libc::SYS_rseq,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_getparam,
            libc::SYS_sched_getscheduler,
            libc::SYS_getpriority,
            libc::SYS_setpriority,
        ],
    },
    Allowed {
        why: "signals and time",
        calls: &[
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigpending,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_rt_sigsuspend,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_sigaltstack,
            libc::SYS_restart_syscall,
            libc::SYS_nanosleep,
            libc::SYS_clock_nanosleep,
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_gettimeofday,
            libc::SYS_getitimer,
            libc::SYS_setitimer,
            libc::SYS_timer_create,
            libc::SYS_timer_settime,
            libc::SYS_timer_gettime,
            libc::SYS_timer_getoverrun,
            libc::SYS_timer_delete,
            libc::SYS_timerfd_create,
            libc::SYS_timerfd_settime,
            libc::SYS_timerfd_gettime,
        ],
    },
    Allowed {
        why: "wait for more than one thing",
        calls: &[
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_eventfd2,
            libc::SYS_signalfd4,
            libc::SYS_inotify_init1,
            libc::SYS_inotify_add_watch,
            libc::SYS_inotify_rm_watch,
        ],
    },
    Allowed {
        why: "talk between its own processes; socket(2) itself is refused",
        calls: &[
            libc::SYS_socketpair,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_shutdown,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
        ],
    },
    #[cfg(target_arch = "x86_64")]
    Allowed {
        why: "the same under the names that they had before",
        calls: &[
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_stat,
            libc::SYS_lstat,
            libc::SYS_access,
            libc::SYS_readlink,
            libc::SYS_getdents,
            libc::SYS_mkdir,
            libc::SYS_rmdir,
            libc::SYS_unlink,
            libc::SYS_rename,
            libc::SYS_renameat,
            libc::SYS_link,
            libc::SYS_symlink,
            libc::SYS_chmod,
            libc::SYS_utime,
            libc::SYS_utimes,
            libc::SYS_futimesat,
            libc::SYS_dup2,
            libc::SYS_pipe,
            libc::SYS_poll,
            libc::SYS_select,
            libc::SYS_epoll_create,
            libc::SYS_epoll_wait,
            libc::SYS_eventfd,
            libc::SYS_signalfd,
            libc::SYS_inotify_init,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_arch_prctl,
            libc::SYS_time,
            libc::SYS_alarm,
            libc::SYS_pause,
            libc::SYS_getpgrp,
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_call_is_named_once_and_has_a_reason() {
        let refused: BTreeSet<_> = REFUSED.iter().map(|rule| rule.call).collect();
        assert_eq!(refused.len(), REFUSED.len());
        assert!(REFUSED.iter().all(|rule| rule.why.contains(": ")));
        let calls = || CONFINED.iter().flat_map(|group| group.calls);
        let allowed: BTreeSet<_> = calls().collect();
        assert_eq!(allowed.len(), calls().count());
        assert!(CONFINED.iter().all(|group| !group.why.is_empty()));
    }

    #[test]
    fn confined_is_allowed_nothing_that_standard_is_refused() {
        for rule in REFUSED {
            let allowed = CONFINED
                .iter()
                .any(|group| group.calls.contains(&rule.call));
            assert!(!allowed, "{}", rule.name);
        }
    }
}
