//! `lab run`: a mesh from nothing, one task on all nodes, and nothing left behind.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Lab, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{RunArguments, say, say_what_is_missing, signals};

/// The sample task that is shown.
const TASK: &str = "sample::host";

/// A task run that is stuck is given up; the command line shows far earlier what is wrong.
const DEADLINE: Duration = Duration::from_secs(600);

pub(crate) fn run(arguments: &RunArguments) -> Result<ExitCode> {
    lab::build()?;
    let seen = signals::watch()?;
    say_what_is_missing();
    let mut builder = arguments.mesh.builder().interrupted(seen.any.clone());
    if let Some(dir) = &arguments.dir {
        builder = builder.dir(dir);
    }
    let lab = builder.start()?;
    let code = run_task(&lab, &|| seen.alone.load(Ordering::Relaxed))?;
    say("");
    say("stopping       agents, orchestrator, compilers, primary");
    lab.shut_down();
    if code == Some(0) {
        say("all stopped");
        return Ok(ExitCode::SUCCESS);
    }
    if !seen.any.load(Ordering::Relaxed) {
        lab.site().keep();
        let logs = lab.site().logs_dir();
        say(&format!("the logs       {}", logs.display()));
    }
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Runs the task through the command line, which draws on our terminal. It is in our process group:
/// Ctrl-C reaches it too and makes it stop the job; a signal that was for us alone is passed on.
fn run_task(lab: &Lab, to_be_ended: &dyn Fn() -> bool) -> Result<Option<i32>> {
    let nodes = lab.agents().join(",");
    let mut command = lab.puppet_task_command();
    command.args(["run", TASK, "--nodes", &nodes]);
    say("");
    say(&format!("$ puppet-task run {TASK} --nodes {nodes}"));
    let mut child = command.spawn().context("cannot run puppet-task")?;
    let mut asked = false;
    let ended = wait_until("puppet-task ends", DEADLINE, || {
        if to_be_ended() && !asked {
            asked = true;
            if let Ok(pid) = i32::try_from(child.id()) {
                kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_default();
            }
        }
        match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    match ended {
        Ok(status) => Ok(status.code()),
        Err(error) => {
            child
                .kill()
                .and_then(|()| child.wait().map(drop))
                .unwrap_or_default();
            Err(error.into())
        }
    }
}
