//! The bed of these tests: a run in a temporary directory, and waiting for what it does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sandbox::{
    Alive, Containment, Delivery, Facility, Job, Launcher, Limits, Paths, Plan, Policy, Profile,
    Report, RunDir, Support,
};
use tempfile::TempDir;

/// How long anything may take that is waited for: far beyond what it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn wrapper() -> &'static Path {
    static WRAPPER: LazyLock<PathBuf> =
        LazyLock::new(|| match std::env::var_os(WRAPPER_VARIABLE) {
            Some(path) => path.into(),
            None => env!("CARGO_BIN_EXE_execution-wrapper").into(),
        });
    &WRAPPER
}

/// What starts all runs of a test: the wrapper is not loaded for each, as in the agent.
pub(crate) fn launcher() -> &'static Launcher {
    static LAUNCHER: LazyLock<Launcher> =
        LazyLock::new(|| Launcher::new(wrapper().to_owned(), std::env::temp_dir()));
    &LAUNCHER
}

/// Names another copy of the wrapper, for users who cannot read the one that was built.
pub(crate) const WRAPPER_VARIABLE: &str = "TEST_EXECUTION_WRAPPER";

/// One run, still to be started.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) dir: RunDir,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) working_directory: PathBuf,
    pub(crate) visible: Vec<PathBuf>,
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) delivery: Delivery,
    pub(crate) support: Support,
    /// Removed when the run is dropped; the working directory, unless another is set.
    pub(crate) home: TempDir,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Result {
    pub(crate) report: Report,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Does the same in every containment that this host offers to this user.
pub(crate) fn in_each_containment(test: impl Fn(&Support)) {
    static SUPPORT: OnceLock<Support> = OnceLock::new();
    let found = SUPPORT.get_or_init(|| Support::probe(wrapper()));
    let cgroup_only = Support {
        cgroup: found.cgroup.clone(),
        ..Support::nothing("not in this test")
    };
    let namespace_only = Support {
        pid_namespace: found.pid_namespace.clone(),
        ..Support::nothing("not in this test")
    };
    match &found.cgroup {
        Facility::Available(_) => test(&cgroup_only),
        Facility::Missing(reason) => skip("cgroup2", reason),
    }
    match &found.pid_namespace {
        Facility::Available(_) => test(&namespace_only),
        Facility::Missing(reason) => skip("userns", reason),
    }
}

/// Says why a test does not run here, and fails where it must.
pub(crate) fn skip(feature: &str, reason: &str) {
    let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == feature),
        "{feature} is required: {reason}"
    );
    eprintln!("skipped: {feature}: {reason}");
}

impl Run {
    pub(crate) fn of(support: &Support, program: &str, arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        fs::create_dir(&run).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            dir: RunDir::new(run),
            program: program.into(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            working_directory: home.path().to_path_buf(),
            visible: Vec::new(),
            name: format!("test-{}-{count}", std::process::id()),
            policy: Policy {
                profile: Profile::Host,
                limits: Limits {
                    time: DEADLINE * 2,
                    grace: DEADLINE,
                    output: 1 << 20,
                    memory: None,
                    processes: None,
                    cpu_percent: None,
                    open_files: None,
                },
                run_as: None,
                paths: Paths::default(),
            },
            delivery: Delivery::default(),
            support: support.clone(),
            home,
        }
    }

    pub(crate) fn sh(support: &Support, script: &str) -> Self {
        Self::of(support, "/bin/sh", &["-c", script])
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn plan(&self) -> Plan {
        let job = Job {
            program: &self.program,
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            working_directory: self.working_directory.clone(),
            name: &self.name,
            visible: self.visible.clone(),
        };
        sandbox::plan(&self.policy, &job, &self.support).unwrap()
    }

    pub(crate) fn start(&self) -> Alive {
        sandbox::start(launcher(), &self.plan(), &self.dir, &self.delivery).unwrap()
    }

    pub(crate) fn result(&self, report: Report) -> Result {
        if let Some(directory) = self.plan().cgroup() {
            assert!(!directory.exists(), "the cgroup is still there");
        }
        let stdout = fs::read(self.dir.stdout()).unwrap_or_default();
        let stderr = fs::read(self.dir.stderr()).unwrap_or_default();
        assert_eq!(fs::read_to_string(self.dir.wrapper_log_path()).unwrap(), "");
        Result {
            report,
            stdout,
            stderr,
        }
    }

    pub(crate) fn finish(&self) -> Result {
        let report = self.start().finish().unwrap();
        self.result(report)
    }

    /// A file in the task's working directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Waits until the task has made this file in its working directory.
    pub(crate) fn await_file(&self, name: &str) {
        wait_until(&format!("the task makes {name}"), || {
            self.file(name).exists()
        });
    }

    /// The process that this run's wrapper is: the one whose stdout is the FIFO.
    pub(crate) fn wrapper_pid(&self) -> i32 {
        let alive = fs::canonicalize(self.dir.path()).unwrap().join("alive");
        let find = || {
            fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                (fs::read_link(entry.path().join("fd/1")).ok()? == alive).then_some(pid)
            })
        };
        let mut found = None;
        wait_until("the wrapper runs", || {
            found = find();
            found.is_some()
        });
        found.expect("the wrapper runs")
    }

    pub(crate) fn containment(&self) -> Containment {
        self.plan().containment()
    }
}

impl Result {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }
}

/// Looks again and again until it is so.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < DEADLINE,
            "still not so after {DEADLINE:?}: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A FIFO that the processes of a task hold open for writing as their descriptor 9: its end shows
/// that none of them is left, whoever their parents are and whatever they are called.
#[derive(Debug)]
pub(crate) struct Witness(fs::File);

impl Witness {
    /// Makes `witness` in the task's working directory.
    pub(crate) fn new(run: &Run) -> Self {
        use std::os::unix::fs::OpenOptionsExt;

        let path = run.file("witness");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
        Self(
            fs::OpenOptions::new()
                .read(true)
                .custom_flags(nonblocking)
                .open(path)
                .unwrap(),
        )
    }

    /// Whether no process has it open.
    pub(crate) fn all_gone(&self) -> bool {
        let mut byte = [0];
        match nix::unistd::read(&self.0, &mut byte) {
            Ok(0) => true,
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => false,
            Err(errno) => panic!("cannot read the witness: {errno}"),
        }
    }
}

/// Runs one of these tests' helpers in another process, told by an environment variable.
pub(crate) fn helper(name: &str, variables: &BTreeMap<&str, String>) -> std::process::Command {
    let mut command = std::process::Command::new("/bin/sh");
    // A umask that no test has by accident, to see it arrive.
    command.args(["-c", "umask 027; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .envs(variables);
    command
}
