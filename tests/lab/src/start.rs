//! Starting a lab: its processes in their order, each kind when the one before is ready.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::api::Api;
use crate::binaries::{self, bin};
use crate::builder::{Builder, ORCHESTRATOR};
use crate::error::file;
use crate::overlay::{self, Rank, Roles};
use crate::plan::Plan;
use crate::process::{self, Kind, Process};
use crate::site::Site;
use crate::{Lab, LabError, environment};

const PRIMARY: &str = "primary";

/// Whom the lab's token belongs to.
const LOGIN: &str = "operator";

/// A lab that is kept up over a holiday still lets its operator in.
const TOKEN_LIFETIME: &str = "30d";

impl Builder {
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
