//! The processes that make the load: one full of simulated agents, one controller that asks them.
//! Both are the binary `fleet`; they end when we close their standard input, or end ourselves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use lab::bin;
use serde::Deserialize;

/// What has happened to all agents together, as `fleet agents` tells it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Counts {
    pub(super) connected: u64,
    pub(super) opened: u64,
    pub(super) failed: u64,
}

/// How a round of questions went, as `fleet ping` tells it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Round {
    pub(super) answered: usize,
    pub(super) seconds: f64,
    pub(super) asked_again: usize,
}

/// A running `fleet agents`.
#[derive(Debug)]
pub(super) struct Fleet {
    child: Child,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    ended: bool,
}

impl Fleet {
    /// Starts so many agents, which prefer these brokers in turn.
    pub(super) fn start(dir: &Path, brokers: &[String], agents: usize) -> Result<Self> {
        let mut command = fleet("agents", dir, &brokers.join(","), agents);
        let mut child = command.spawn().context("cannot start the fleet")?;
        let stdout = child.stdout.take().context("the fleet has no output")?;
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

    pub(super) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Why there is no point in waiting any longer.
    pub(super) fn ended(&self) -> Option<String> {
        let ended = lock(&self.state).ended;
        ended.then(|| "the fleet has ended; its reason is above".to_owned())
    }

    /// Lets the agents say goodbye.
    pub(super) fn end(mut self) {
        end(&mut self.child);
    }
}

/// A running `fleet ping`.
#[derive(Debug)]
pub(super) struct Asker {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Asker {
    /// Starts a controller at this broker.
    pub(super) fn start(dir: &Path, broker: &str, controller: &str, agents: usize) -> Result<Self> {
        let mut command = fleet("ping", dir, broker, agents);
        command.args(["--controller", controller]);
        let mut child = command.spawn().context("cannot start the controller")?;
        let questions = child.stdin.take().context("the controller has no input")?;
        let answers = child
            .stdout
            .take()
            .context("the controller has no output")?;
        Ok(Self {
            child,
            questions,
            answers: BufReader::new(answers),
        })
    }

    /// Asks all agents and waits until each has answered.
    pub(super) fn ask(&mut self) -> Result<Round> {
        let failed = "the controller has failed; its reason is above";
        writeln!(self.questions).context(failed)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context(failed)?;
        serde_json::from_str(&line).context(failed)
    }

    pub(super) fn end(mut self) {
        drop(self.questions);
        end(&mut self.child);
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
