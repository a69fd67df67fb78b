//! What the process that becomes the task gives up, in an order in which each step can still be taken.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use sandbox::profile::{self, capabilities};
use sandbox::{Profile, User};
use sandbox_sys::{Governed, Instruction};

use crate::fault::Failed;

const STEP: &str = "privileges";

// Of linux/landlock.h. Reading, and what the scratch directory allows beside it.
const READ: u64 = EXECUTE | READ_FILE | READ_DIRECTORY;
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIRECTORY: u64 = 1 << 3;
/// All accesses of version 1, without making devices.
const SCRATCH: u64 = 0x1fff & !(1 << 6) & !(1 << 11);
const TRUNCATE: u64 = 1 << 14;
/// All accesses of files, by version: `REFER` came with the second, `TRUNCATE` with the third,
/// `IOCTL_DEV` with the fifth.
const FILES: [u64; 5] = [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];
/// Binding and connecting TCP sockets, version 4.
const NETWORK: u64 = 0b11;
const ABSTRACT_SOCKETS: u64 = 1;
const SIGNALS: u64 = 2;

/// Does what the profile says, and becomes the user.
pub(crate) fn give_up(profile: Profile, user: Option<&User>) -> Result<(), Failed> {
    match profile {
        Profile::Host => become_user(user),
        Profile::Standard => {
            drop_capabilities(profile)?;
            scope()?;
            // While this process may still do so without giving up set-user-id programs: `su` is
            // ordinary administration.
            filter(profile)?;
            become_user(user)
        }
        Profile::Confined => {
            set_no_new_privs().map_err(about("no_new_privs"))?;
            drop_capabilities(profile)?;
            read_only()?;
            become_user(user)?;
            sandbox_sys::drop_all_capabilities().map_err(io_about("capset"))?;
            filter(profile)
        }
    }
}

/// What the process needs that stands between a task and the message bus: to connect as the user who
/// asked, `CAP_SETGID` and `CAP_SETUID`. No file is its business.
pub(crate) fn keep_identities() -> io::Result<()> {
    const SETGID_AND_SETUID: [u8; 2] = [6, 7];
    set_no_new_privs()?;
    if let Some(files) = governed_files() {
        sandbox_sys::landlock_restrict(
            sandbox_sys::landlock_ruleset(&Governed {
                files,
                ..Governed::default()
            })?
            .as_fd(),
        )?;
    }
    if let Some(program) = profile::filter(Profile::Standard) {
        sandbox_sys::install_filter(&program)?;
    }
    sandbox_sys::keep_capabilities(&SETGID_AND_SETUID)
}

/// All accesses of files that this kernel's Landlock knows; `None` without it.
fn governed_files() -> Option<u64> {
    let version = sandbox_sys::landlock_version();
    let known = usize::try_from(version)
        .unwrap_or_default()
        .min(FILES.len());
    known
        .checked_sub(1)
        .and_then(|last| FILES.get(last))
        .copied()
}

/// How many descriptors each process of the task may have open.
pub(crate) fn limit_open_files(count: u64) -> Result<(), Failed> {
    setrlimit(Resource::RLIMIT_NOFILE, count, count).map_err(Failed::at("limits"))
}

/// Has no later program of this process or its children have what the profile takes from tasks. The process
/// itself keeps what it has.
pub(crate) fn bound(profile: Profile) -> Result<(), Failed> {
    let kept = |number: &u8| match profile {
        Profile::Host => true,
        Profile::Standard => capabilities::KEPT.iter().any(|one| one.number == *number),
        Profile::Confined => false,
    };
    for number in (0..=capabilities::HIGHEST).filter(|number| !kept(number)) {
        let known = sandbox_sys::drop_from_bounding_set(number);
        if !known.map_err(io_about("bounding set"))? {
            // Numbers are given in turn: this kernel has none above either.
            break;
        }
    }
    Ok(())
}

fn drop_capabilities(profile: Profile) -> Result<(), Failed> {
    bound(profile)?;
    sandbox_sys::inherit_no_capabilities().map_err(io_about("capset"))
}

/// Where the kernel can: no abstract sockets and no signals out of the task's own processes.
fn scope() -> Result<(), Failed> {
    if sandbox_sys::landlock_version() < 6 {
        return Ok(());
    }
    restrict(&Governed {
        scopes: ABSTRACT_SOCKETS | SIGNALS,
        ..Governed::default()
    })
}

/// The file system once more, beside the mounts: reading everywhere, writing in the scratch
/// directories and to the few devices.
fn read_only() -> Result<(), Failed> {
    let version = sandbox_sys::landlock_version();
    let Some(files) = governed_files() else {
        return Err(about("Landlock")(nix::errno::Errno::ENOSYS));
    };
    let ruleset = sandbox_sys::landlock_ruleset(&Governed {
        files,
        network: if version >= 4 { NETWORK } else { 0 },
        scopes: if version >= 6 {
            ABSTRACT_SOCKETS | SIGNALS
        } else {
            0
        },
    });
    let ruleset = ruleset.map_err(io_about("Landlock"))?;
    let write = WRITE_FILE | (TRUNCATE & files);
    let rules = [
        ("/", READ),
        ("/tmp", READ | SCRATCH | (TRUNCATE & files)),
        ("/dev", READ | write),
    ];
    for (path, access) in rules {
        let directory =
            open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(about(path))?;
        sandbox_sys::landlock_allow(ruleset.as_fd(), directory.as_fd(), access)
            .map_err(io_about(path))?;
    }
    sandbox_sys::landlock_restrict(ruleset.as_fd()).map_err(io_about("Landlock"))
}

fn restrict(governed: &Governed) -> Result<(), Failed> {
    let ruleset = sandbox_sys::landlock_ruleset(governed).map_err(io_about("Landlock"))?;
    sandbox_sys::landlock_restrict(ruleset.as_fd()).map_err(io_about("Landlock"))
}

/// Makes what takes time to make, in a process of which the one that gives up is a copy.
pub(crate) fn prepare() {
    prepared(Profile::Standard);
    prepared(Profile::Confined);
}

fn filter(profile: Profile) -> Result<(), Failed> {
    match prepared(profile) {
        Some(program) => sandbox_sys::install_filter(program).map_err(io_about("seccomp")),
        None => Ok(()),
    }
}

fn prepared(profile: Profile) -> Option<&'static [Instruction]> {
    static STANDARD: OnceLock<Option<Vec<Instruction>>> = OnceLock::new();
    static CONFINED: OnceLock<Option<Vec<Instruction>>> = OnceLock::new();
    let program = match profile {
        Profile::Host => return None,
        Profile::Standard => &STANDARD,
        Profile::Confined => &CONFINED,
    };
    program.get_or_init(|| profile::filter(profile)).as_deref()
}

/// All ids, so that none of the old ones can be taken back.
fn become_user(user: Option<&User>) -> Result<(), Failed> {
    let Some(user) = user else {
        return Ok(());
    };
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&groups).map_err(about("setgroups"))?;
    setresgid(gid, gid, gid).map_err(about("setresgid"))?;
    setresuid(uid, uid, uid).map_err(about("setresuid"))
}

fn about(what: &'static str) -> impl Fn(nix::errno::Errno) -> Failed {
    move |errno| Failed {
        about: what.to_owned(),
        ..Failed::at(STEP)(errno)
    }
}

fn io_about(what: &'static str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed {
        about: what.to_owned(),
        ..Failed::io(STEP)(error)
    }
}
