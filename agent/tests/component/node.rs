//! A node: directories, certificates, a configuration, and the agent that uses them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use lab_ca::CertificateAuthority;
use nix::sys::signal::Signal;
use pcp::Digest;
use pxp_agent::Agent;
use pxp_agent::config::Config;
use sandbox::{Facility, Support};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::played::{Broker, Peer, SOON};

pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) broker: Broker,
    config: PathBuf,
    pub(crate) ca: CertificateAuthority,
}

impl Node {
    /// A node with a broker beside it; `extra` is added to the configuration. Nothing, with the
    /// reason printed, where no task can be contained.
    pub(crate) fn new(extra: &str) -> Option<Self> {
        let support = Support::probe(&wrapper());
        if let (Facility::Missing(cgroup), Facility::Missing(namespace)) =
            (&support.cgroup, &support.pid_namespace)
        {
            let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
            let required = required
                .split(',')
                .any(|name| ["cgroup2", "userns"].contains(&name));
            assert!(!required, "LAB_REQUIRE: {cgroup}; {namespace}");
            eprintln!("skipped: tasks cannot be contained here: {cgroup}; {namespace}");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let ca = CertificateAuthority::create(dir.path(), "Test CA").unwrap();
        let broker = Broker::start(&ca.issue("broker", &["127.0.0.1".to_owned()]).unwrap());
        let ssl = ca.issue("node", &[]).unwrap();
        let config = dir.path().join("pxp-agent.conf");
        let text = format!(
            "broker-uris: [\"{}\"]\ncontrollers: [orchestrator]\nssl-cert: {:?}\nssl-key: {:?}\n\
             ssl-ca-cert: {:?}\nssl-crl: {:?}\nspool-dir: {:?}\ntask-cache-dir: {:?}\n\
             execution-wrapper: {:?}\ntask-time-limit: 2m\nsandbox-shared-paths: [{:?}]\n{extra}\n",
            broker.address,
            ssl.cert(),
            ssl.key(),
            ssl.ca(),
            ssl.crl(),
            dir.path().join("spool"),
            dir.path().join("cache"),
            wrapper(),
            dir.path(),
        );
        fs::write(&config, text).unwrap();
        Some(Self {
            dir,
            broker,
            config,
            ca,
        })
    }

    /// Starts an agent in this process and takes its session.
    pub(crate) async fn start(&self) -> (Agent, Peer) {
        let config = Config::load(&self.config).unwrap();
        let agent = Agent::start(&config).await.unwrap();
        let peer = self.broker.welcome().await;
        (agent, peer)
    }

    /// Starts the program, which can be killed.
    pub(crate) async fn spawn(&self) -> (Program, Peer) {
        self.spawn_by(Command::new("env")).await
    }

    /// The same by a program that makes room for it and then becomes it.
    pub(crate) async fn spawn_by(&self, mut command: Command) -> (Program, Peer) {
        command.arg(env!("CARGO_BIN_EXE_pxp-agent"));
        self.spawn_command(command).await
    }

    /// The same with a copy of the program that lies elsewhere.
    pub(crate) async fn spawn_installed(&self, program: &Path) -> (Program, Peer) {
        self.spawn_command(Command::new(program)).await
    }

    async fn spawn_command(&self, mut command: Command) -> (Program, Peer) {
        let child = command
            .arg("--config")
            .arg(&self.config)
            .stderr(fs::File::create(self.path("log")).unwrap())
            .spawn()
            .unwrap();
        let program = Program(child);
        let peer = self.broker.welcome().await;
        (program, peer)
    }

    /// An id for a transaction that no other test uses: cgroups are the whole machine's.
    pub(crate) fn id(&self, name: &str) -> String {
        let token = self.dir.path().file_name().unwrap().to_string_lossy();
        format!("{name}-{}", token.trim_start_matches('.'))
    }

    /// Adds to the configuration, for the next agent.
    pub(crate) fn reconfigure(&self, extra: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        fs::write(&self.config, format!("{text}{extra}\n")).unwrap();
    }

    /// Makes this the node's whole policy.
    pub(crate) fn policy(&self, text: &str) {
        let dir = self.path("policy.d");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("node.conf"), text).unwrap();
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The same while the played broker works.
    pub(crate) async fn run_beside(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let run = tokio::task::spawn_blocking(move || command.output());
        run.await.unwrap().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pxp-agent"));
        command.arg("--config").arg(&self.config).args(arguments);
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What the spool says of a transaction.
    pub(crate) fn record(&self, id: &str) -> serde_json::Value {
        let records = self.read(&format!("spool/{id}/metadata"));
        let last = records.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_default()
    }

    /// Waits until the spool has this state of a transaction.
    pub(crate) async fn wait_for_state(&self, id: &str, state: &str) {
        wait_until(state, || self.record(id)["state"] == state).await;
    }
}

/// The running program; killed when dropped.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.0.wait().unwrap().code()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Looks until something is so, and lets the agent work in between.
pub(crate) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    wait_at_most(SOON, what, condition).await;
}

/// The same for what takes longer.
pub(crate) async fn wait_at_most(patience: Duration, what: &str, condition: impl Fn() -> bool) {
    let looked = timeout(patience, async {
        let mut looks = interval(Duration::from_millis(5));
        while !condition() {
            looks.tick().await;
        }
    });
    assert!(looked.await.is_ok(), "not in time: {what}");
}

/// Writes a word into a FIFO once somebody reads it, and lets the agent work meanwhile.
pub(crate) async fn open_gate(gate: PathBuf) {
    let written = tokio::task::spawn_blocking(move || fs::write(gate, "through\n"));
    written.await.unwrap().unwrap();
}

/// A task's request. `rest` is added to the parameters of the action.
pub(crate) fn task(id: &str, digest: Digest, input: &str, rest: &str) -> String {
    let params = params(digest, input, rest);
    format!(
        r#"{{"transaction_id":"{id}","notify_outcome":true,"module":"task","action":"run","params":{params}}}"#
    )
}

/// A request for any action.
pub(crate) fn request(id: &str, module: &str, action: &str, params: &serde_json::Value) -> String {
    let body = serde_json::json!({
        "transaction_id": id, "notify_outcome": true, "module": module, "action": action,
        "params": params,
    });
    body.to_string()
}

pub(crate) fn params(digest: Digest, input: &str, rest: &str) -> String {
    format!(
        r#"{{"task":"demo::hello","input":{input},"files":[{{"filename":"hello.sh","sha256":"{digest}","uri":{{"path":"/","params":{{}}}}}}]{rest}}}"#
    )
}

fn wrapper() -> PathBuf {
    let wrapper = Path::new(env!("CARGO_BIN_EXE_pxp-agent")).with_file_name("execution-wrapper");
    assert!(
        wrapper.exists(),
        "{} is missing: run `cargo build -p execution-wrapper` first",
        wrapper.display()
    );
    wrapper
}
