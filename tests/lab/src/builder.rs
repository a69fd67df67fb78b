//! [`Builder`]: what a lab is to have.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::overlay::Overlay;
use crate::site::Foreign;
use crate::{agent_name, compiler_name, primary_name};

pub(crate) const ORCHESTRATOR: &str = "orchestrator";

/// What a lab is to have.
#[derive(Debug, Default)]
pub struct Builder {
    pub(crate) dir: Option<PathBuf>,
    further_primaries: usize,
    pub(crate) compilers: usize,
    pub(crate) agents: usize,
    pub(crate) network: bool,
    pub(crate) modulepath: Vec<PathBuf>,
    pub(crate) without_modules: bool,
    pub(crate) controllers: Vec<String>,
    pub(crate) overlays: Vec<Overlay>,
    pub(crate) config_dir: Option<PathBuf>,
    pub(crate) foreign: Option<Foreign>,
    pub(crate) progress: Option<fn(&str)>,
    pub(crate) interrupted: Option<Arc<AtomicBool>>,
}

impl Builder {
    /// Everything lies in this directory and stays there. Without it: in a temporary one.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// So many primaries beside the first, `primary-2` and so on: all dial each other, compilers dial all,
    /// and the orchestrator the first that is there.
    #[must_use]
    pub fn further_primaries(mut self, count: usize) -> Self {
        self.further_primaries = count;
        self
    }

    /// Each process runs on a host of its own, and the thread that starts the lab moves to one, for good:
    /// [`Lab::network`](crate::Lab::network) has what lies between them. See
    /// [`Network::possible`](crate::network::Network::possible).
    #[must_use]
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// So many compilers, `compiler-1` and so on. Without any, agents connect to the primary.
    #[must_use]
    pub fn compilers(mut self, count: usize) -> Self {
        self.compilers = count;
        self
    }

    /// So many agents, `agent-1` and so on.
    #[must_use]
    pub fn agents(mut self, count: usize) -> Self {
        self.agents = count;
        self
    }

    /// One more directory of modules for the environment `production`. Without any: the lab's sample
    /// modules.
    #[must_use]
    pub fn modulepath(mut self, dir: impl Into<PathBuf>) -> Self {
        self.modulepath.push(dir.into());
        self
    }

    /// No environment is read from module directories: tasks are those of a Puppet Server that the
    /// orchestrator's configuration names.
    #[must_use]
    pub fn without_modules(mut self) -> Self {
        self.without_modules = true;
        self
    }

    /// One more certname that may command agents, beside the orchestrator; it gets a certificate.
    #[must_use]
    pub fn controller(mut self, certname: &str) -> Self {
        self.controllers.push(certname.to_owned());
        self
    }

    /// Certificates of another CA, all in one ssldir: the process `NAME` is to have that of the
    /// certname which stands beside its name. Those of brokers and orchestrator must be good for
    /// 127.0.0.1.
    #[must_use]
    pub fn certificates(mut self, ssldir: impl Into<PathBuf>, names: &[(&str, &str)]) -> Self {
        let certnames = names
            .iter()
            .map(|(process, certname)| ((*process).to_owned(), (*certname).to_owned()));
        self.foreign = Some(Foreign {
            ssldir: ssldir.into(),
            certnames: certnames.collect(),
        });
        self
    }

    /// HOCON to be laid over the configuration of one process (`agent-1`) or of all of a kind
    /// (`pcp-broker`, `pxp-agent`, `orchestrator`).
    #[must_use]
    pub fn config(mut self, of: &str, text: &str) -> Self {
        self.overlays.push(Overlay {
            of: of.to_owned(),
            text: text.to_owned(),
        });
        self
    }

    /// A directory whose files `NAME.conf` are such HOCON for the process or the kind `NAME`.
    #[must_use]
    pub fn config_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config_dir = Some(dir.into());
        self
    }

    /// Told each step in one line.
    #[must_use]
    pub fn progress(mut self, tell: fn(&str)) -> Self {
        self.progress = Some(tell);
        self
    }

    /// The start is given up when this becomes true.
    #[must_use]
    pub fn interrupted(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupted = Some(flag);
        self
    }

    pub(crate) fn primary_names(&self) -> Vec<String> {
        (1..=self.further_primaries + 1).map(primary_name).collect()
    }

    pub(crate) fn compiler_names(&self) -> Vec<String> {
        (1..=self.compilers).map(compiler_name).collect()
    }

    pub(crate) fn agent_names(&self) -> Vec<String> {
        (1..=self.agents).map(agent_name).collect()
    }
}
