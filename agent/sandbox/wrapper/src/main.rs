//! The single-threaded process that owns one task: it applies the plan, runs the task, and records
//! how it ended. This page is the whole order of it.
//!
//! What it is given: the path of the plan, by the launcher that made it; the delivery on stdin; as stdout the
//! write end of the FIFO `alive`, which nobody writes to and which closes when the report is there or
//! this process has ended; as stderr its log.

mod bus;
mod cell;
mod contain;
mod ends;
mod fault;
mod init;
mod jail;
mod launcher;
mod privileges;
mod probe;
mod reporting;
mod spare;
mod streams;
mod supervise;
mod task;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use sandbox::{
    Delivery, LAUNCHER_ARGUMENT, Outcome, PROBE_ARGUMENT, Plan, Report, RunDir, Usage,
    VERSION_ARGUMENT,
};
use sandbox_sys::SingleThreaded;

use crate::cell::Cell;
use crate::ends::Ends;
use crate::fault::Fault;
use crate::launcher::Begun;
use crate::reporting::ReportFile;
use crate::spare::Ready;
use crate::supervise::Supervisor;
use crate::task::Given;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a report the agent finds the task lost, and what is left of it is killed.
            writeln!(io::stderr(), "execution-wrapper: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let alone = sanitise()?;
    let mut argument = std::env::args_os().nth(1).unwrap_or_default();
    let mut ready = None;
    if argument == OsStr::new(PROBE_ARGUMENT) {
        return probe::answer(&alone);
    }
    if argument == OsStr::new(VERSION_ARGUMENT) {
        return writeln!(io::stdout(), "{}", env!("CARGO_PKG_VERSION"));
    }
    if argument == OsStr::new(bus::ARGUMENT) {
        return bus::serve(&std::env::args_os().nth(2).unwrap_or_default());
    }
    if argument == OsStr::new(LAUNCHER_ARGUMENT) {
        // Once, for all copies.
        privileges::prepare();
        let begun = match launcher::serve(&alone)? {
            Some(Begun::Run { plan }) => {
                stand_alone()?;
                Some((plan, None))
            }
            Some(Begun::Spare(spare)) => {
                stand_alone()?;
                spare.wait(&alone)?.map(|(plan, ready)| (plan, Some(ready)))
            }
            None => None,
        };
        let Some((plan, prepared)) = begun else {
            return Ok(());
        };
        (argument, ready) = (plan, prepared);
    }
    let Some(dir) = RunDir::of_plan(Path::new(&argument)) else {
        return Err(io::Error::other(
            "usage: execution-wrapper DIRECTORY/plan.json",
        ));
    };

    // The report's place on the disk first: from here on every failure has somewhere to go.
    let report = ReportFile::reserve(&dir)?;
    let (report, content, output) = match prepare(&dir, ready) {
        Ok(Prepared {
            plan,
            given,
            supervisor,
            ends,
            cell,
        }) => {
            let mounts = cell.as_ref().and_then(Cell::mounts);
            let keep = (report, supervisor, mounts);
            let ((report, supervisor, mounts), tree) =
                contain::start(&alone, &plan, &given, ends, keep, cell);
            match tree {
                Ok(tree) => {
                    let (content, output) = supervisor.supervise(tree, &plan)?;
                    (report, content, Some((output, mounts)))
                }
                Err(fault) => (report, never_ran(fault), None),
            }
        }
        Err(fault) => (report, never_ran(fault), None),
    };
    let report = report.write(&content)?;
    // Nobody needs to wait for the disk: the report outlives this process and the agent, and should
    // power fail before it is durable, it is as if this process had not come this far.
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null)?;
    if let Some((output, mounts)) = output {
        // Nor for what was mounted for the task to be taken apart.
        drop(mounts);
        for stream in &output {
            stream.flush()?;
        }
    }
    report.flush()
}

/// Drops whatever this process inherited, before it looks at anything.
fn sanitise() -> io::Result<SingleThreaded> {
    let alone = SingleThreaded::prove()?;
    sandbox_sys::close_inherited(&alone)?;
    sandbox_sys::clear_environment(&alone)?;
    stand_alone()?;
    Ok(alone)
}

/// Makes this process nobody's but its own, and the one that its descendants fall back to.
fn stand_alone() -> io::Result<()> {
    // Out of the agent's session and process group: a signal meant for those does not come here.
    match nix::unistd::setsid() {
        // It leads a group already, so it was started apart from the agent's.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    // A daemon that a task leaves behind becomes this process's child and is reaped here, even
    // where the host's process 1 does not reap.
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

struct Prepared {
    plan: Plan,
    given: Given,
    supervisor: Supervisor,
    ends: Ends,
    cell: Option<Cell>,
}

/// Reads and checks everything, and opens what the run needs, before anything is changed.
fn prepare(dir: &RunDir, ready: Option<Ready>) -> Result<Prepared, Fault> {
    let plan = std::fs::read(dir.plan_path()).map_err(|error| Fault::new("read-plan", &error))?;
    let plan = Plan::decode(&plan).map_err(|error| Fault::new("read-plan", &error))?;
    let delivery = take_delivery()?;
    let environment = environment(&plan, &delivery);
    let ready = ready.map_or_else(Ready::now, Ok);
    let Ready {
        instruments,
        ends,
        cell,
    } = ready.map_err(|error| Fault::new("prepare", &error))?;
    let supervisor = Supervisor::open(dir, &plan, delivery.stdin, instruments)?;
    let given = Given {
        environment,
        arguments: delivery.arguments,
        bus: supervisor.bus().map(Path::to_owned),
    };
    Ok(Prepared {
        plan,
        given,
        supervisor,
        ends,
        cell,
    })
}

/// Reads the delivery from stdin, and puts /dev/null there.
fn take_delivery() -> Result<Delivery, Fault> {
    let failed = |error: &dyn std::error::Error| Fault::new("read-delivery", error);
    let stdin = io::stdin();
    let mut pipe = stdin
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|e| failed(&e))?;
    let delivery = Delivery::read(&mut pipe).map_err(|e| failed(&e))?;
    let null = File::open("/dev/null").map_err(|e| failed(&e))?;
    nix::unistd::dup2_stdin(&null).map_err(|e| failed(&e))?;
    Ok(delivery)
}

/// The plan's variables and the delivery's, each name once, the delivery's value first.
fn environment(plan: &Plan, delivery: &Delivery) -> Vec<OsString> {
    let public = plan
        .environment()
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()));
    let secret = delivery
        .environment
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()));
    let all: std::collections::BTreeMap<&OsStr, &OsStr> = public.chain(secret).collect();
    all.into_iter()
        .map(|(name, value)| {
            let mut entry = name.to_os_string();
            entry.push("=");
            entry.push(value);
            entry
        })
        .collect()
}

/// The report of a task that was never started.
fn never_ran(fault: Fault) -> Report {
    Report {
        outcome: Outcome::SetupFailed {
            step: fault.step,
            error: fault.error,
        },
        stdout_bytes: 0,
        stderr_bytes: 0,
        stdout_truncated: false,
        stderr_truncated: false,
        output_error: None,
        duration_ms: 0,
        containment: None,
        usage: Usage::default(),
    }
}
