//! [`Host`]: a network namespace with one device, which the switch holds the other side of.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{LabError, wait_until};

/// The network of all hosts, whose last byte is theirs: private, and in no other namespace.
const NETWORK: [u8; 3] = [10, 77, 0];

/// What a host calls its device.
const DEVICE: &str = "eth0";

/// A killed process is gone in milliseconds.
const GONE: std::time::Duration = std::time::Duration::from_secs(10);

/// One host.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: File,
    number: u8,
    address: Ipv4Addr,
}

/// A new network namespace, in which there is nothing.
pub(super) fn namespace() -> io::Result<File> {
    // Of the thread that makes it, which ends: the file keeps it.
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    };
    thread::scope(|scope| {
        scope
            .spawn(make)
            .join()
            .unwrap_or_else(|p| resume_unwind(p))
    })
}

/// Does something in a network namespace. A thread of its own does it, since only the thread moves.
pub(super) fn inside<T: Send>(
    namespace: &File,
    act: impl FnOnce() -> T + Send,
) -> Result<T, LabError> {
    let act = || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok::<_, nix::Error>(act())
    };
    thread::scope(|scope| scope.spawn(act).join().unwrap_or_else(|p| resume_unwind(p)))
        .map_err(|errno| LabError::Namespace(errno.into()))
}

impl Host {
    /// A host with the device of this name, which is still in the switch's namespace.
    pub(super) fn plug_in(switch: &File, number: u8, device: &str) -> Result<Self, LabError> {
        let host = Self {
            namespace: namespace().map_err(LabError::Namespace)?,
            number,
            address: Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], number + 1),
        };
        let held = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            host.namespace.as_raw_fd()
        );
        let moved = ["link", "set", device, "netns", &held];
        inside(switch, || ip(&moved))??;
        let mac = format!("02:00:00:00:00:{number:02x}");
        let address = with_prefix(host.address);
        host.run(|| {
            ip(&["link", "set", "lo", "up"])?;
            ip(&["link", "set", device, "name", DEVICE, "address", &mac])?;
            ip(&["address", "add", &address, "dev", DEVICE])?;
            ip(&["link", "set", DEVICE, "up"])
        })??;
        Ok(host)
    }

    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        inside(&self.namespace, act)
    }

    /// Moves the calling thread here, for good.
    pub(super) fn enter(&self) -> Result<(), LabError> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| LabError::Namespace(errno.into()))
    }

    /// The same host once more, for a process that is to run on it.
    pub(crate) fn again(&self) -> Result<Self, LabError> {
        let namespace = self.namespace.try_clone();
        Ok(Self {
            namespace: namespace.map_err(LabError::Namespace)?,
            number: self.number,
            address: self.address,
        })
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn kill_all(&self) -> Result<(), LabError> {
        let number = self
            .namespace
            .metadata()
            .map_err(LabError::Namespace)?
            .ino();
        wait_until("everything on the host is gone", GONE, || {
            let left = processes_in(number);
            for pid in &left {
                // One that has ended meanwhile is no concern.
                kill(*pid, Signal::SIGKILL).unwrap_or_default();
            }
            match left.is_empty() {
                true => Ok(()),
                false => Err(format!("{left:?}")),
            }
        })
        .map_err(LabError::StillThere)
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub(super) fn readdress(&self, address: Ipv4Addr) -> Result<(), LabError> {
        let new = with_prefix(address);
        self.run(|| {
            ip(&["address", "flush", "dev", DEVICE])?;
            ip(&["address", "add", &new, "dev", DEVICE])
        })?
    }

    pub(super) fn set_mtu(&self, mtu: u16) -> Result<(), LabError> {
        self.run(|| ip(&["link", "set", DEVICE, "mtu", &mtu.to_string()]))?
    }
}

/// The processes in a network namespace, but for this one. One that has ended and is not waited for yet
/// has none.
fn processes_in(namespace: u64) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let of = fs::metadata(format!("/proc/{pid}/ns/net"));
            u32::try_from(*pid) != Ok(own) && of.is_ok_and(|of| of.ino() == namespace)
        })
        .map(Pid::from_raw)
        .collect()
}

fn with_prefix(address: Ipv4Addr) -> String {
    format!("{address}/24")
}

/// Runs `ip` in the namespace of the calling thread.
fn ip(arguments: &[&str]) -> Result<(), LabError> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(LabError::Namespace)?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Ip {
        command: arguments.join(" "),
        errors: errors.trim().to_owned(),
    })
}
