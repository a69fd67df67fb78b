//! [`Plan`]: hosts, addresses, certificates and module directories of a lab, before its first process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::LabError;
use crate::binaries::workspace;
use crate::builder::{Builder, ORCHESTRATOR};
use crate::error::file;
use crate::network::{Host, Network};
use crate::overlay::{self, Rank, Roles};
use crate::ports::{self, Reservation};
use crate::site::Site;

/// What must be there before the first process starts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) network: Option<Network>,
    /// Where the processes listen that do, by name.
    listening: BTreeMap<String, SocketAddr>,
    /// Of these addresses, when all processes share one host.
    pub(crate) ports: Vec<Reservation>,
    pub(crate) modulepath: Vec<PathBuf>,
}

impl Plan {
    pub(crate) fn make(builder: &Builder, site: &Site) -> Result<Self, LabError> {
        let modulepath = if builder.without_modules {
            Vec::new()
        } else if builder.modulepath.is_empty() {
            workspace()
                .map(|root| root.join("packaging/lab-modules"))
                .into_iter()
                .collect()
        } else {
            builder.modulepath.clone()
        };
        let absolute = |dir: &PathBuf| dir.canonicalize().map_err(file("find", dir));
        let mut plan = Self {
            network: None,
            listening: BTreeMap::new(),
            ports: Vec::new(),
            modulepath: modulepath.iter().map(absolute).collect::<Result<_, _>>()?,
        };
        let (mut servers, agents) = (builder.primary_names(), builder.agent_names());
        servers.extend(builder.compiler_names());
        servers.push(ORCHESTRATOR.to_owned());
        if builder.network {
            let names = servers.iter().chain(&agents).map(String::as_str);
            plan.network = Some(Network::start(site.dir(), names)?);
        }
        for name in &servers {
            let address = plan.reserve(name)?;
            let mut san = vec![name.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()];
            if !address.ip().is_loopback() {
                san.push(address.ip().to_string());
            }
            site.issue_once(name, &san)?;
        }
        for name in agents.iter().chain(&builder.controllers) {
            site.issue_once(name, &[])?;
        }
        Ok(plan)
    }

    /// Finds an address for a process to listen at.
    fn reserve(&mut self, name: &str) -> Result<SocketAddr, LabError> {
        let address = match &self.network {
            Some(network) if name == ORCHESTRATOR => (network.address(name)?, 8143).into(),
            Some(network) => (network.address(name)?, 8142).into(),
            None => {
                let reservation = ports::reserve()?;
                let address = reservation.address();
                self.ports.push(reservation);
                address
            }
        };
        self.listening.insert(name.to_owned(), address);
        Ok(address)
    }

    pub(crate) fn address(&self, name: &str) -> Result<SocketAddr, LabError> {
        let address = self.listening.get(name).copied();
        address.ok_or_else(|| LabError::Unknown(name.to_owned()))
    }

    pub(crate) fn addresses(&self, names: &[String]) -> Result<Vec<String>, LabError> {
        let addresses = names.iter().map(|name| self.address(name));
        addresses.map(|address| Ok(address?.to_string())).collect()
    }

    /// The host that a process is to run on; none when all share one.
    pub(crate) fn host(&self, name: &str) -> Result<Option<Host>, LabError> {
        let network = self.network.as_ref();
        network
            .map(|network| network.host(name)?.again())
            .transpose()
    }

    /// The configuration of a broker that dials these.
    pub(crate) fn broker(
        &self,
        site: &Site,
        name: &str,
        rank: &Rank,
        dialled: &[String],
        roles: &Roles<'_>,
    ) -> Result<String, LabError> {
        let (address, var) = (self.address(name)?, site.var_dir(name)?);
        let ssl = site.ssl_of(name);
        Ok(overlay::broker(address, &var, rank, dialled, roles, &ssl))
    }
}
