//! [`Builder`]: what a lab is to have, and its start from the CA to the last connected agent.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::api::Api;
use crate::binaries::{self, bin};
use crate::error::file;
use crate::overlay::{self, Overlay, Rank, Roles};
use crate::plan::Plan;
use crate::process::{self, Kind, Process};
use crate::site::{Foreign, Site};
use crate::{Lab, LabError, agent_name, compiler_name, environment, primary_name};

const PRIMARY: &str = "primary";
pub(crate) const ORCHESTRATOR: &str = "orchestrator";

/// Whom the lab's token belongs to.
const LOGIN: &str = "operator";

/// A lab that is kept up over a holiday still lets its operator in.
const TOKEN_LIFETIME: &str = "30d";

/// What a lab is to have.
#[derive(Debug, Default)]
pub struct Builder {
    dir: Option<PathBuf>,
    further_primaries: usize,
    compilers: usize,
    agents: usize,
    pub(crate) network: bool,
    pub(crate) modulepath: Vec<PathBuf>,
    pub(crate) without_modules: bool,
    pub(crate) controllers: Vec<String>,
    overlays: Vec<Overlay>,
    config_dir: Option<PathBuf>,
    foreign: Option<Foreign>,
    progress: Option<fn(&str)>,
    interrupted: Option<Arc<AtomicBool>>,
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
    /// [`Lab::network`] has what lies between them. See [`Network::possible`].
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

    /// Starts everything and returns when all agents are connected. Whatever was started ends when
    /// this fails.
    ///
    /// # Errors
    /// What failed; for a process with the end of its log.
    pub fn start(mut self) -> Result<Lab, LabError> {
        binaries::check()?;
        if let Some(dir) = &self.config_dir {
            self.overlays.extend(overlay::read_dir(dir)?);
        }
        let begun = Instant::now();
        let site = Site::prepare(self.dir.as_deref(), self.foreign.clone())?;
        self.tell(&format!("directory      {}", site.dir().display()));
        let kept = self.start_in(site);
        if let Ok(lab) = &kept
            && self.agents > 0
        {
            let seconds = begun.elapsed().as_secs_f64();
            self.tell(&format!(
                "all connected  {} agents, {seconds:.1} s after the start",
                lab.agents
            ));
        }
        kept
    }

    fn start_in(&self, site: Site) -> Result<Lab, LabError> {
        let plan = Plan::make(self, &site)?;
        self.tell("certificates   a CA shaped like Puppet's: root, intermediate, CRLs");
        let mut started = Vec::new();
        let token = match self.start_mesh(&site, &plan, &mut started) {
            Ok(token) => token,
            Err(error) => {
                process::end_in_order(&mut started);
                return Err(kept(&site, error));
            }
        };
        let address = plan.address(ORCHESTRATOR)?;
        let api = Api::new(address, token, &site.ca_file()).map_err(LabError::Api)?;
        let lab = Lab {
            api,
            processes: std::sync::Mutex::new(started),
            broker_primary: plan.address(PRIMARY)?.to_string(),
            broker_compilers: plan.addresses(&self.compiler_names())?,
            agents: self.agents,
            network: plan.network,
            _ports: plan.ports,
            site,
        };
        let connected = lab.wait_connected_unless(self.agents, &|| self.is_interrupted());
        connected.map_err(|error| kept(&lab.site, error))?;
        environment::write(&lab)?;
        Ok(lab)
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

    /// Starts the processes, those of one kind together and each kind when the one before is ready.
    fn start_mesh(
        &self,
        site: &Site,
        plan: &Plan,
        started: &mut Vec<Process>,
    ) -> Result<String, LabError> {
        let (primaries, compilers) = (self.primary_names(), self.compiler_names());
        let controllers: Vec<_> = [site.certname_of(ORCHESTRATOR)]
            .into_iter()
            .chain(self.controllers.iter().cloned())
            .collect();
        let brokers: Vec<_> = primaries
            .iter()
            .chain(&compilers)
            .map(|name| site.certname_of(name))
            .collect();
        let roles = Roles {
            brokers: &brokers,
            controllers: &controllers,
        };

        let mut processes = Vec::new();
        for name in &primaries {
            let others = primaries.iter().filter(|other| *other != name);
            let others: Vec<_> = others.cloned().collect();
            let dialled = plan.addresses(&others)?;
            let rank = Rank::Primary(others.iter().map(|other| site.certname_of(other)).collect());
            let text = plan.broker(site, name, &rank, &dialled, &roles)?;
            processes.push(self.process(site, plan, Kind::Primary, name, &text)?);
        }
        self.launch(processes, started)?;
        for name in &primaries {
            let address = plan.address(name)?;
            self.tell(&format!("{name:<14} pcp-broker on udp {address}"));
        }

        let dialled = plan.addresses(&primaries)?;
        let mut processes = Vec::new();
        for name in &compilers {
            let text = plan.broker(site, name, &Rank::Compiler, &dialled, &roles)?;
            processes.push(self.process(site, plan, Kind::Compiler, name, &text)?);
        }
        self.launch(processes, started)?;
        for name in &compilers {
            let address = plan.address(name)?;
            let linked = primaries.join(", ");
            self.tell(&format!(
                "{name:<14} pcp-broker on udp {address}, linked to {linked}"
            ));
        }

        let text = overlay::orchestrator(
            plan.address(ORCHESTRATOR)?,
            &site.var_dir(ORCHESTRATOR)?,
            &dialled,
            &plan.modulepath,
            &site.ssl_of(ORCHESTRATOR),
        );
        let process = self.process(site, plan, Kind::Orchestrator, ORCHESTRATOR, &text)?;
        let token = create_token(site)?;
        let url = format!("https://{}", plan.address(ORCHESTRATOR)?);
        environment::write_client_config(site, &url)?;
        self.launch(vec![process], started)?;
        self.tell(&format!("{ORCHESTRATOR:<14} API at {url}"));

        let nearest = match compilers.is_empty() {
            true => dialled,
            false => plan.addresses(&compilers)?,
        };
        let mut processes = Vec::new();
        for (index, name) in self.agent_names().iter().enumerate() {
            let mut brokers = nearest.clone();
            brokers.rotate_left(index % nearest.len());
            let ssl = site.ssl_of(name);
            let text = overlay::agent(&site.var_dir(name)?, &brokers, &roles, &ssl);
            processes.push(self.process(site, plan, Kind::Agent, name, &text)?);
        }
        self.launch(processes, started)?;
        if self.agents > 0 {
            let over = match nearest.len() {
                1 => "1 broker".to_owned(),
                count => format!("{count} brokers"),
            };
            self.tell(&format!(
                "agents         {} pxp-agents, spread over {over}",
                self.agents
            ));
        }
        Ok(token)
    }

    fn process(
        &self,
        site: &Site,
        plan: &Plan,
        kind: Kind,
        name: &str,
        text: &str,
    ) -> Result<Process, LabError> {
        let (config_kind, program) = match kind {
            Kind::Primary | Kind::Compiler => ("pcp-broker", "pcp-broker"),
            Kind::Orchestrator => (ORCHESTRATOR, "pxp-orchestrator"),
            Kind::Agent => ("pxp-agent", "pxp-agent"),
        };
        let conf = overlay::write(site, config_kind, name, text, &self.overlays)?;
        let arguments = vec!["--config".into(), conf.into_os_string()];
        let process = Process::new(site, name, kind, bin(program), arguments)?;
        Ok(process.on(plan.host(name)?))
    }

    /// Starts processes together and waits until each is ready.
    fn launch(&self, processes: Vec<Process>, started: &mut Vec<Process>) -> Result<(), LabError> {
        let first = started.len();
        for mut process in processes {
            process.start()?;
            started.push(process);
        }
        for process in started.iter_mut().skip(first) {
            process.wait_ready(&|| self.is_interrupted())?;
        }
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn tell(&self, line: &str) {
        if let Some(tell) = self.progress {
            tell(line);
        }
    }
}

/// A start that failed leaves its logs, unless the user gave it up.
fn kept(site: &Site, error: LabError) -> LabError {
    if !matches!(error, LabError::Interrupted) {
        site.keep();
    }
    error
}

/// Asks the orchestrator for a token, before it runs, and stores it for the command line.
fn create_token(site: &Site) -> Result<String, LabError> {
    let output = Command::new(bin("pxp-orchestrator"))
        .arg("--config")
        .arg(site.dir().join("conf").join(ORCHESTRATOR))
        .args(["create-token", LOGIN, "--lifetime", TOKEN_LIFETIME])
        .output()
        .map_err(|source| LabError::Spawn {
            name: "create-token".to_owned(),
            program: bin("pxp-orchestrator"),
            source,
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let token = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let Some(token) = token.filter(|_| output.status.success()) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(LabError::Token(format!(
            "{}: {}",
            output.status,
            errors.trim()
        )));
    };
    write_secret(&site.token_file(), token)?;
    Ok(token.to_owned())
}

fn write_secret(path: &Path, text: &str) -> Result<(), LabError> {
    // A file of an earlier lab would keep its mode.
    if path.exists() {
        fs::remove_file(path).map_err(file("replace", path))?;
    }
    fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| writeln!(file, "{text}"))
        .map_err(file("write", path))
}
