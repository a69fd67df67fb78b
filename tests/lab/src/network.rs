//! [`Network`]: the hosts of a lab, each a network namespace, on one Ethernet whose every path can be
//! cut, made lossy or slow, or closed to what is large or is UDP, each direction apart.
//!
//! The namespaces have no names: they live as long as this process holds them or something runs in
//! them, so that nothing is left behind, however a test ends. The switch between them is a program
//! (`switch.py`), since not every kernel has `netem`; when this process is killed, it ends what that has
//! started, and itself. The network of the machine is never touched.

mod host;
mod path;
mod switch;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path as FilePath;

pub(crate) use host::Host;
pub use path::{Counts, Path};
use switch::Switch;

use crate::LabError;

/// Whoever runs the lab: the thread that starts it, and the threads and processes that it starts.
pub(crate) const OPERATOR: &str = "operator";

/// Hosts of a lab and what lies between them.
#[derive(Debug)]
pub struct Network {
    hosts: BTreeMap<String, Host>,
    switch: Switch,
}

impl Network {
    /// Why this machine cannot have one, if so: it takes root, `/dev/net/tun`, `ip` and Python 3.
    ///
    /// # Errors
    /// What is missing.
    pub fn possible() -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("not root: no network namespaces".to_owned());
        }
        if !FilePath::new("/dev/net/tun").exists() {
            return Err("no /dev/net/tun: no network devices for hosts".to_owned());
        }
        for (program, argument) in [("ip", "-Version"), ("python3", "--version")] {
            let output = std::process::Command::new(program).arg(argument).output();
            output.map_err(|error| format!("cannot run {program}: {error}"))?;
        }
        host::namespace().map(drop).map_err(|e| e.to_string())
    }

    /// A host for each of these names, and one for the operator, to whom the calling thread moves.
    pub(crate) fn start<'a>(
        dir: &FilePath,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Self, LabError> {
        let names: Vec<_> = names.chain([OPERATOR]).collect();
        let own = host::namespace().map_err(LabError::Namespace)?;
        let devices: Vec<_> = (0..names.len()).map(device).collect();
        let switch = host::inside(&own, || Switch::start(dir, &devices))??;
        let mut hosts = BTreeMap::new();
        for (index, name) in names.into_iter().enumerate() {
            let number = u8::try_from(index).map_err(|_| LabError::TooManyHosts)?;
            let host = Host::plug_in(&own, number, &device(index))?;
            hosts.insert(name.to_owned(), host);
        }
        let network = Self { hosts, switch };
        network.host(OPERATOR)?.enter()?;
        Ok(network)
    }

    pub(crate) fn host(&self, name: &str) -> Result<&Host, LabError> {
        let host = self.hosts.get(name);
        host.ok_or_else(|| LabError::Unknown(name.to_owned()))
    }

    /// The address that a host has from the start.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn address(&self, host: &str) -> Result<Ipv4Addr, LabError> {
        Ok(self.host(host)?.address())
    }

    /// Does something on a host: processes and sockets made there are of that host.
    ///
    /// # Errors
    /// When there is none of this name, or it cannot be entered.
    pub fn on<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.host(host)?.run(act)
    }

    /// From now on this happens to what `from` sends to `to`. What is under way arrives.
    ///
    /// # Errors
    /// When there is no such host, or the switch does not answer.
    pub fn one_way(&self, from: &str, to: &str, path: Path) -> Result<(), LabError> {
        self.switch
            .set(self.number(from)?, self.number(to)?, path)
            .map(drop)
    }

    /// The same in both directions.
    ///
    /// # Errors
    /// As [`Self::one_way`].
    pub fn between(&self, one: &str, other: &str, path: Path) -> Result<(), LabError> {
        self.one_way(one, other, path)?;
        self.one_way(other, one, path)
    }

    /// The same between a host and each other one.
    ///
    /// # Errors
    /// As [`Self::one_way`].
    pub fn around(&self, host: &str, path: Path) -> Result<(), LabError> {
        let mut others = self.hosts.keys().filter(|name| *name != host);
        others.try_for_each(|other| self.between(host, other, path))
    }

    /// How many frames of `from` reached `to`, and how many did not, since the start.
    ///
    /// # Errors
    /// As [`Self::one_way`].
    pub fn counts(&self, from: &str, to: &str) -> Result<Counts, LabError> {
        self.switch.counts(self.number(from)?, self.number(to)?)
    }

    /// Gives a host another address in place of its own, as a network does that it moves to.
    ///
    /// # Errors
    /// When there is none of this name, or `ip` fails.
    pub fn readdress(&self, host: &str, address: Ipv4Addr) -> Result<(), LabError> {
        self.host(host)?.readdress(address)
    }

    /// Sets the largest packet of a host's device, in bytes with the IP header.
    ///
    /// # Errors
    /// When there is none of this name, or `ip` fails.
    pub fn set_mtu(&self, host: &str, mtu: u16) -> Result<(), LabError> {
        self.host(host)?.set_mtu(mtu)
    }

    /// Kills whatever runs on a host, and returns when it is gone: with its paths cut, that is what a power
    /// failure looks like to others. A process of the lab may be started there again.
    ///
    /// # Errors
    /// When there is none of this name, or something does not end.
    pub fn kill_all(&self, host: &str) -> Result<(), LabError> {
        self.host(host)?.kill_all()
    }

    fn number(&self, host: &str) -> Result<u8, LabError> {
        Ok(self.host(host)?.number())
    }
}

/// The name of a device in the switch's own namespace.
fn device(index: usize) -> String {
    format!("port{index}")
}

#[cfg(test)]
mod tests;
