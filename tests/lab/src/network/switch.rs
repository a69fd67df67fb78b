//! [`Switch`]: the program between the hosts, and how it is told.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path as FilePath;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::path::{Counts, Path};
use crate::LabError;
use crate::error::file;

const PROGRAM: &str = include_str!("switch.py");

/// The switch; it ends when this value does, or this process.
#[derive(Debug)]
pub(super) struct Switch {
    child: Child,
    talk: Mutex<Talk>,
}

/// One question, one answer.
#[derive(Debug)]
struct Talk {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Switch {
    /// Starts it with devices of these names in the namespace of the calling thread.
    pub(super) fn start(dir: &FilePath, devices: &[String]) -> Result<Self, LabError> {
        let program = dir.join("run/switch.py");
        fs::write(&program, PROGRAM).map_err(file("write", &program))?;
        let mut child = Command::new("python3")
            .arg(&program)
            .args(devices)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(LabError::Switch)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) =
            pipes.ok_or_else(|| LabError::Switch(io::ErrorKind::BrokenPipe.into()))?;
        let mut answers = BufReader::new(answers);
        let ready = line(&mut answers);
        let talk = Mutex::new(Talk { orders, answers });
        let switch = Self { child, talk };
        ready.map(|_| switch).map_err(LabError::Switch)
    }

    pub(super) fn set(&self, from: u8, to: u8, path: Path) -> Result<Counts, LabError> {
        self.ask(&json!({ "from": from, "to": to, "path": path }))
    }

    pub(super) fn counts(&self, from: u8, to: u8) -> Result<Counts, LabError> {
        self.ask(&json!({ "from": from, "to": to }))
    }

    fn ask(&self, order: &Value) -> Result<Counts, LabError> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = writeln!(talk.orders, "{order}").and_then(|()| line(&mut talk.answers));
        let answer = answer.and_then(|text| Ok(serde_json::from_str(&text)?));
        answer.map_err(LabError::Switch)
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> io::Result<String> {
    let mut line = String::new();
    match answers.read_line(&mut line)? {
        // It has said on standard error why it ended.
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It has ended if it cannot be killed.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    /// Python 3 is among what tests need.
    #[test]
    fn what_a_killed_lab_leaves_is_ended_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        fs::create_dir(path.join("run")).unwrap();
        let follow = |name: &str, file: &str| {
            let file = path.join(file);
            fs::write(&file, "").unwrap();
            let mut tail = Command::new("tail");
            tail.arg0(name).arg("-f").arg(file).spawn().unwrap()
        };
        let mut ours = follow("pxp-agent", "conf");
        let mut other = follow("tail", "log");
        let mut switch = Switch::start(&path, &[]).unwrap();
        // What happens to its input when this process dies.
        let mut other_input = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        switch.talk.get_mut().unwrap().orders = other_input.stdin.take().unwrap();
        other_input.wait().unwrap();
        assert!(switch.child.wait().unwrap().success());
        assert!(!ours.wait().unwrap().success(), "by a signal");
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
