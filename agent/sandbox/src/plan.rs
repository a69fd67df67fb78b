//! The plan of one task: pure data, decided before anything is done. `Policy × Job × Support →
//! ordered Steps`. It is written to the task's directory, where the wrapper reads it, checks it as
//! a whole, and then acts on it from top to bottom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{Policy, Profile};
use crate::support::{Facility, Support};

mod step;

use step::{CGROUP, EXECUTE, NAMESPACES, PROC, WORKING_DIRECTORY, check_text};
pub use step::{Stage, Step, UserIds};

/// The version of the format. The wrapper refuses another one: agent and wrapper are installed
/// together, and a step that a wrapper does not know must not be skipped.
const VERSION: u32 = 1;

/// The longest name: that of a transaction id, and well below the 255 bytes of a directory name.
const MAX_NAME: usize = 128;

/// The longest time limit, a year: far beyond any task, and far below what overflows a timer.
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What is to run. Nothing in it may be secret: it is written to disk.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// The executable, as an absolute path; it is not looked up in PATH.
    pub program: &'a Path,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// The public part of the environment: PATH, HOME, LANG and the like.
    pub environment: Vec<(String, String)>,
    /// Where it starts: an absolute path.
    pub working_directory: PathBuf,
    /// The transaction id: names the task's cgroup.
    pub name: &'a str,
    /// Directories below hidden ones that this task must see all the same, read-only: where its own
    /// files lie.
    pub visible: Vec<PathBuf>,
}

/// A checked plan: a value of this type came from [`plan`] or from [`Plan::decode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    version: u32,
    name: String,
    profile: Profile,
    time_limit_ms: u64,
    grace_ms: u64,
    output_limit: u64,
    environment: Vec<(String, String)>,
    steps: Vec<Step>,
}

/// What holds a task's tree of processes together, so that all of it can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containment {
    /// A cgroup v2 leaf of its own.
    Cgroup,
    /// A PID namespace of its own.
    PidNamespace,
}

/// Why there is no plan for a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// This host can hold no tree of processes together.
    #[error("no containment on this host (cgroup: {cgroup}; PID namespace: {pid_namespace})")]
    NoContainment {
        /// Why there is no cgroup.
        cgroup: String,
        /// Why there is no PID namespace.
        pid_namespace: String,
    },
    /// The policy asks for more than this version enforces.
    #[error(
        "{0} cannot be enforced by this version of the sandbox, and is never left out in silence"
    )]
    NotEnforced(&'static str),
    /// The name cannot name a directory.
    #[error(
        "a task's name is 1 to {MAX_NAME} letters, digits, '.', '-' or '_', and does not begin with '.' or '-'"
    )]
    Name,
    /// The program is not named by an absolute path.
    #[error("the program {} is not an absolute path", .0.display())]
    Program(PathBuf),
    /// The working directory is not an absolute path.
    #[error("the working directory {} is not an absolute path", .0.display())]
    WorkingDirectory(PathBuf),
    /// A path, argument or environment entry has a NUL, or a path is not UTF-8.
    #[error("{0} holds a NUL character or is not UTF-8")]
    Text(&'static str),
    /// An environment variable's name is empty or has `=`.
    #[error("{0:?} cannot be the name of an environment variable")]
    Variable(String),
    /// The time limit or the grace is zero or longer than a year.
    #[error("{0} must be above zero and at most a year")]
    Time(&'static str),
    /// The steps are not in their order, or one is missing or there twice.
    #[error("the steps are not in order, or one is missing")]
    Order,
}

/// Why bytes are not a plan.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not of this form.
    #[error("the plan is malformed")]
    Form(#[source] serde_json::Error),
    /// The plan is of another version.
    #[error("the plan is of version {0}, this wrapper knows version {VERSION}")]
    Version(u32),
    /// A rule of the plan's content is broken.
    #[error("the plan is invalid")]
    Content(#[source] PlanError),
}

/// Decides how a job is run. A pure function: what the host offers is an argument.
///
/// # Errors
/// When the job cannot be run on this host as the policy says, or is not well formed.
pub fn plan(policy: &Policy, job: &Job<'_>, support: &Support) -> Result<Plan, PlanError> {
    check_name(job.name)?;
    check_enforced(policy)?;
    let mut steps = Vec::new();
    match (&support.cgroup, &support.pid_namespace) {
        // A cgroup first: killing it is one write that no fork can outrun, and the host's process
        // ids and mounts stay as the task expects them.
        (Facility::Available(base), _) => {
            steps.push(Step::Cgroup {
                directory: base.join(job.name),
            });
        }
        (_, Facility::Available(user)) => {
            steps.push(Step::Namespaces { user: *user });
            steps.push(Step::Proc);
        }
        (Facility::Missing(cgroup), Facility::Missing(pid_namespace)) => {
            return Err(PlanError::NoContainment {
                cgroup: cgroup.clone(),
                pid_namespace: pid_namespace.clone(),
            });
        }
    }
    steps.push(Step::WorkingDirectory {
        path: job.working_directory.clone(),
    });
    steps.push(Step::Execute {
        program: job.program.to_path_buf(),
        arguments: job.arguments.clone(),
    });
    let plan = Plan {
        version: VERSION,
        name: job.name.to_owned(),
        profile: policy.profile,
        time_limit_ms: milliseconds("the time limit", policy.limits.time)?,
        grace_ms: milliseconds("the grace", policy.limits.grace)?,
        output_limit: policy.limits.output,
        environment: job.environment.clone(),
        steps,
    };
    plan.check()?;
    Ok(plan)
}

impl Plan {
    /// Reads a plan and checks all of it.
    ///
    /// # Errors
    /// When the bytes are not a plan of this version, or one that [`plan`] would not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // The version first: another one may well have another form.
        let Version { version } = serde_json::from_slice(bytes).map_err(DecodeError::Form)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let plan: Self = serde_json::from_slice(bytes).map_err(DecodeError::Form)?;
        plan.check().map_err(DecodeError::Content)?;
        Ok(plan)
    }

    /// The plan as it is written to disk.
    ///
    /// # Errors
    /// When a path is not UTF-8; [`plan`] makes no such plan.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// The task's name: its transaction id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far the task is kept from the host.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// How long the task may run.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        Duration::from_millis(self.time_limit_ms)
    }

    /// How long its tree has between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// How many bytes of each output stream are kept.
    #[must_use]
    pub fn output_limit(&self) -> u64 {
        self.output_limit
    }

    /// The public part of the environment.
    #[must_use]
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The steps in the order in which they are done.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What holds the task's tree together.
    #[must_use]
    pub fn containment(&self) -> Containment {
        if self.cgroup().is_some() {
            Containment::Cgroup
        } else {
            Containment::PidNamespace
        }
    }

    /// The directory of the task's cgroup, if it has one.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::Cgroup { directory } => Some(directory.as_path()),
            _ => None,
        })
    }

    fn check(&self) -> Result<(), PlanError> {
        check_name(&self.name)?;
        milliseconds("the time limit", self.time_limit())?;
        milliseconds("the grace", self.grace())?;
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains('=') {
                return Err(PlanError::Variable(name.clone()));
            }
            check_text("an environment variable", name)?;
            check_text("an environment variable", value)?;
        }
        for step in &self.steps {
            step.check(&self.name)?;
        }
        self.check_order()
    }

    /// Strictly ascending: no step twice, none out of place. One containment, and the two steps
    /// without which nothing runs.
    fn check_order(&self) -> Result<(), PlanError> {
        let ranks: Vec<u8> = self.steps.iter().map(Step::rank).collect();
        let ascending = ranks.is_sorted_by(|earlier, later| earlier < later);
        let has = |rank: u8| ranks.contains(&rank);
        let contained = match (has(CGROUP), has(NAMESPACES)) {
            (true, false) => !has(PROC),
            (false, true) => has(PROC),
            _ => false,
        };
        if ascending && contained && has(WORKING_DIRECTORY) && has(EXECUTE) {
            Ok(())
        } else {
            Err(PlanError::Order)
        }
    }
}

/// What is asked for and has no step yet is a reason not to run the task.
fn check_enforced(policy: &Policy) -> Result<(), PlanError> {
    let limits = &policy.limits;
    let asked = [
        ("the profile confined", policy.profile == Profile::Confined),
        ("another user", policy.run_as.is_some()),
        ("a limit of memory", limits.memory.is_some()),
        ("a limit of processes", limits.processes.is_some()),
        ("a limit of processor time", limits.cpu_percent.is_some()),
        ("a limit of open files", limits.open_files.is_some()),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((what, _)) => Err(PlanError::NotEnforced(what)),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), PlanError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if fits { Ok(()) } else { Err(PlanError::Name) }
}

fn milliseconds(what: &'static str, time: Duration) -> Result<u64, PlanError> {
    match u64::try_from(time.as_millis()) {
        Ok(milliseconds) if milliseconds > 0 && time <= MAX_TIME => Ok(milliseconds),
        _ => Err(PlanError::Time(what)),
    }
}

#[cfg(test)]
mod tests;
