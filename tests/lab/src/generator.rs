//! The processes that make load: one full of simulated agents, one controller that asks them. Both are
//! the binary `fleet`; they end when we close their standard input, or end ourselves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Deserialize;

use crate::{LabError, Site, bin};

/// What has happened to all agents together, as `fleet agents` tells it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Counts {
    /// Sessions that are open now.
    pub connected: u64,
    /// Sessions that were opened.
    pub opened: u64,
    /// Attempts that led to no session.
    pub failed: u64,
}

/// How a round of questions went, as `fleet ping` tells it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Round {
    /// How many answered.
    pub answered: usize,
    /// From the first question to the last answer, in seconds.
    pub seconds: f64,
    /// Questions that had to be asked again.
    pub asked_again: usize,
}

/// A running `fleet agents`.
#[derive(Debug)]
pub struct Fleet {
    child: Child,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    ended: bool,
}

impl Fleet {
    /// Starts so many agents of the lab in `dir`, which prefer these brokers in turn. Their
    /// certificates, `load-1` and so on, are issued where they are missing.
    ///
    /// # Errors
    /// When there is no lab in `dir`, or the process cannot be started.
    pub fn start(dir: &Path, brokers: &[String], agents: usize) -> Result<Self, LabError> {
        Self::start_over("auto", dir, brokers, agents)
    }

    /// The same, reaching the brokers over `auto`, `quic` or `websocket`.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub fn start_over(
        transport: &str,
        dir: &Path,
        brokers: &[String],
        agents: usize,
    ) -> Result<Self, LabError> {
        let names: Vec<_> = (1..=agents)
            .map(|number| format!("load-{number}"))
            .collect();
        Site::open(dir)?.ca().issue_missing(&names)?;
        let mut command = fleet("agents", dir, &brokers.join(","), agents);
        command.args(["--transport", transport]);
        let mut child = command.spawn().map_err(spawn)?;
        let stdout = child.stdout.take().ok_or(LabError::Generator)?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // Ends with the process that it reads from.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if let Ok(counts) = serde_json::from_str(&line) {
                    lock(&shared).counts = counts;
                }
            }
            lock(&shared).ended = true;
        });
        Ok(Self { child, state })
    }

    /// The fleet's process, for its memory.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has told last.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Why there is no point in waiting any longer.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        let ended = lock(&self.state).ended;
        ended.then(|| "the fleet has ended; its reason is above".to_owned())
    }

    /// Lets the agents say goodbye.
    pub fn end(mut self) {
        end(&mut self.child);
    }
}

/// A running `fleet ping`.
#[derive(Debug)]
pub struct Asker {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Asker {
    /// Starts a controller at this broker. Its certificate is there already, and the broker knows it
    /// for a controller.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(
        dir: &Path,
        broker: &str,
        controller: &str,
        agents: usize,
    ) -> Result<Self, LabError> {
        let mut command = fleet("ping", dir, broker, agents);
        command.args(["--controller", controller]);
        let mut child = command.spawn().map_err(spawn)?;
        let questions = child.stdin.take().ok_or(LabError::Generator)?;
        let answers = child.stdout.take().ok_or(LabError::Generator)?;
        Ok(Self {
            child,
            questions,
            answers: BufReader::new(answers),
        })
    }

    /// Asks all agents and waits until each has answered.
    ///
    /// # Errors
    /// When some have not in time; the process has said so on standard error.
    pub fn ask(&mut self) -> Result<Round, LabError> {
        writeln!(self.questions).map_err(|_| LabError::Generator)?;
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|_| LabError::Generator)?;
        serde_json::from_str(&line).map_err(|_| LabError::Generator)
    }

    /// The controller's process, for its CPU time.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it say goodbye.
    pub fn end(mut self) {
        drop(self.questions);
        end(&mut self.child);
    }
}

fn spawn(source: std::io::Error) -> LabError {
    LabError::Spawn {
        name: "fleet".to_owned(),
        program: bin("fleet"),
        source,
    }
}

fn fleet(action: &str, dir: &Path, brokers: &str, agents: usize) -> Command {
    let mut command = Command::new(bin("fleet"));
    command
        .arg(action)
        .arg("--dir")
        .arg(dir)
        .args(["--brokers", brokers, "--agents", &agents.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Closes its standard input and waits for its end.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    // Nothing is left to be done about one that has ended badly: it has said why.
    drop(child.wait());
}

/// The state is plain values: a panic elsewhere does not leave it half changed.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
