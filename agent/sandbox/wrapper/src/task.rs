//! The last steps, in the process that becomes the task. Whatever fails here is told through the
//! fault channel; a program that cannot be executed ends with 127, as a shell would have it.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid};
use sandbox::{Stage, Step};

use crate::ends::Ends;
use crate::fault::Failed;
use crate::privileges;

/// What the task is given beside the plan, as the system takes it.
#[derive(Debug)]
pub(crate) struct Given {
    /// `NAME=value`, each name once.
    pub(crate) environment: Vec<OsString>,
    /// What comes behind the plan's arguments.
    pub(crate) arguments: Vec<OsString>,
    /// The socket that stands for the message bus's.
    pub(crate) bus: Option<PathBuf>,
}

/// The exit code that stands for a program that could not be executed.
const CANNOT_EXECUTE: i32 = 127;

/// Turns this process into the task.
pub(crate) fn become_task(steps: &[Step], given: &Given, ends: Ends) -> ! {
    let Err(failed) = attempt(steps, given, &ends);
    ends.fault.fail(failed)
}

fn attempt(steps: &[Step], given: &Given, ends: &Ends) -> Result<Infallible, Failed> {
    let start = Failed::at("start");
    // Its own session and process group: job control in it works, and kill(0) stays in it.
    setsid().map_err(start)?;
    dup2_stdin(&ends.stdin).map_err(start)?;
    dup2_stdout(&ends.stdout).map_err(start)?;
    dup2_stderr(&ends.stderr).map_err(start)?;
    sandbox_sys::default_dispositions().map_err(Failed::io("start"))?;
    SigSet::empty().thread_set_mask().map_err(start)?;
    for step in steps.iter().filter(|step| step.stage() == Stage::Task) {
        match step {
            Step::WorkingDirectory { path } => chdir(path).map_err(Failed::at(step.name()))?,
            Step::Execute { program, arguments } => execute(program, arguments, given)?,
            Step::Limits { open_files } => privileges::limit_open_files(*open_files)?,
            Step::Privileges { profile, user } => {
                privileges::give_up(*profile, user.as_ref())?;
            }
            Step::Cgroup { .. } | Step::Namespaces { .. } | Step::Proc | Step::Jail(_) => {}
        }
    }
    // A checked plan ends with Execute, which does not return.
    Err(Failed {
        step: "execute",
        errno: Errno::EINVAL,
        about: String::new(),
    })
}

fn execute(program: &Path, arguments: &[String], given: &Given) -> Result<(), Failed> {
    let text = |bytes: &[u8]| {
        let invalid = Failed {
            step: "execute",
            errno: Errno::EINVAL,
            about: String::new(),
        };
        CString::new(bytes).map_err(|_| invalid)
    };
    let path = text(program.as_os_str().as_bytes())?;
    let mut argv = vec![path.clone()];
    for argument in arguments {
        argv.push(text(argument.as_bytes())?);
    }
    for argument in &given.arguments {
        argv.push(text(argument.as_bytes())?);
    }
    let mut envp = Vec::with_capacity(given.environment.len());
    for variable in &given.environment {
        envp.push(text(variable.as_bytes())?);
    }
    // Everything has the flag already; this is for what a later change forgets.
    sandbox_sys::close_on_exec().map_err(Failed::io("execute"))?;
    let Err(errno) = execve(&path, &argv, &envp);
    let mut line = b"execution-wrapper: cannot execute ".to_vec();
    line.extend(program.as_os_str().to_os_string().into_vec());
    line.extend(format!(": {}\n", explain(program, errno)).into_bytes());
    // The task's own stderr; that nobody reads it any more changes nothing.
    io::stderr().write_all(&line).ok();
    sandbox_sys::exit_now(CANNOT_EXECUTE)
}

fn explain(program: &Path, errno: Errno) -> String {
    match errno {
        Errno::ENOENT if program.exists() => "the interpreter that it names is missing".to_owned(),
        Errno::ENOEXEC => "it is no program for this machine and has no #! line".to_owned(),
        errno => errno.desc().to_owned(),
    }
}
