//! How a process is started: decided by its action, carried out by the runner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pcp::Certname;
use pcp_client::Proxy;
use sandbox::Delivery;

use crate::config::PrimaryUri;

/// Where tasks find programs: what a login of root has, and Puppet's own.
pub const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/puppetlabs/bin";

/// What is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// Those of its arguments that may be written to disk. Secret ones are part of the delivery.
    pub arguments: Vec<String>,
    /// What must not be written to disk.
    pub delivery: Delivery,
}

/// How an action was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The requester waits for its results.
    Blocking,
    /// It is a transaction.
    NonBlocking,
}

/// Where a process is started.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where the files of the request lie.
    pub staging: &'a Path,
    /// Those that could not be had, by their places there, and why.
    pub missing: &'a BTreeMap<PathBuf, String>,
    /// Whether anybody waits for the answer.
    pub kind: Kind,
    /// The login shell of the agent's user.
    pub shell: &'a Path,
    /// This very program, which carries out some actions itself: `pxp-agent module MODULE ACTION`.
    pub agent: &'a Path,
    /// This node.
    pub node: &'a Node,
}

/// What is told of this node to processes that are more than somebody's script.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where Puppet is said to be; looked for otherwise.
    pub puppet: Option<PathBuf>,
    /// Who the node is.
    pub certname: Certname,
    /// Its certificate, key, CA and CRLs.
    pub tls: identity::Files,
    /// Puppet Servers, the preferred one first.
    pub primaries: Vec<PrimaryUri>,
    /// A proxy on the way to them.
    pub proxy: Option<Proxy>,
    /// Where Puppet's plugins are kept, each environment's in a directory of its name.
    pub plugins: PathBuf,
}

#[cfg(test)]
impl Node {
    /// One that has everything.
    pub(crate) fn example() -> Self {
        let certname = Certname::parse("web1").unwrap();
        Self {
            puppet: None,
            tls: identity::Files::from_ssldir(Path::new("/ssl"), &certname),
            certname,
            primaries: vec!["https://puppet:8141".parse().unwrap()],
            proxy: None,
            plugins: "/cache/plugins".into(),
        }
    }
}
