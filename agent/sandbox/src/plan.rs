//! The plan of one task: pure data, decided before anything is done. `Policy × Job × Support →
//! ordered Steps`. It is written to the task's directory, where the wrapper reads it, checks it as
//! a whole, and then acts on it from top to bottom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{Limits, Policy, Profile, RunAs};
use crate::profile::NOBODY;
use crate::support::{Facility, Support};

mod step;

use step::{CGROUP, EXECUTE, JAIL, NAMESPACES, PRIVILEGES, PROC, WORKING_DIRECTORY, check_text};
pub use step::{CgroupLimits, Jail, Stage, Step, User};

/// The version of the format. The wrapper refuses another one: agent and wrapper are installed
/// together, and a step that a wrapper does not know must not be skipped.
const VERSION: u32 = 3;

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
    /// This host lacks what the profile needs.
    #[error("this host cannot run a task in the profile {profile}: {reason}")]
    Profile {
        /// The profile.
        profile: Profile,
        /// What is missing.
        reason: String,
    },
    /// This host cannot enforce a limit.
    #[error("this host cannot limit {what}: {reason}")]
    Limit {
        /// What was to be limited.
        what: &'static str,
        /// What is missing.
        reason: String,
    },
    /// Only root can become another user.
    #[error("the agent is an ordinary user, so it cannot run a task as {0}")]
    RunAs(String),
    /// A limit that nothing can run under.
    #[error("the limit of {0} is zero")]
    Zero(&'static str),
    /// A path of the policy is not absolute, has `..`, or is the root.
    #[error("{} cannot be kept from a task: it is not an absolute path below /", .0.display())]
    ProtectedPath(PathBuf),
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
    let user = user(policy, support)?;
    let mut steps = containment(policy, job, support)?;
    if let Some(open_files) = policy.limits.open_files {
        steps.push(Step::Limits { open_files });
    }
    if policy.profile != Profile::Host || user.is_some() {
        steps.push(Step::Privileges {
            profile: policy.profile,
            user: user.as_ref().map(|user| User {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.clone(),
            }),
        });
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
        environment: environment(job, user.as_ref())?,
        steps,
    };
    plan.check()?;
    Ok(plan)
}

/// The steps that hold the task's tree together, and keep it from the host as its profile says.
fn containment(policy: &Policy, job: &Job<'_>, support: &Support) -> Result<Vec<Step>, PlanError> {
    let limits = cgroup_limits(&policy.limits, support)?;
    let cgroup = match &support.cgroup {
        Facility::Available(base) => Some(Step::Cgroup {
            directory: base.join(job.name),
            limits,
        }),
        Facility::Missing(_) => None,
    };
    let reason = match policy.profile {
        Profile::Host => return contained_only(cgroup, support),
        Profile::Standard => support.standard.missing(),
        Profile::Confined => support.confined.missing(),
    };
    let namespaces = match (reason, &support.pid_namespace) {
        (None, Facility::Available(user)) => Step::Namespaces {
            user: *user,
            isolated: policy.profile == Profile::Confined,
        },
        (Some(reason), _) | (None, Facility::Missing(reason)) => {
            return Err(PlanError::Profile {
                profile: policy.profile,
                reason: reason.clone(),
            });
        }
    };
    let jail = Step::Jail(Jail {
        profile: policy.profile,
        hidden: policy.paths.hidden.clone(),
        read_only: policy.paths.read_only.clone(),
        shared: policy.paths.shared.clone(),
        visible: job.visible.clone(),
        bus: (policy.profile == Profile::Standard).then(|| policy.paths.bus.clone()),
    });
    Ok(cgroup.into_iter().chain([namespaces, jail]).collect())
}

fn contained_only(cgroup: Option<Step>, support: &Support) -> Result<Vec<Step>, PlanError> {
    match (cgroup, &support.pid_namespace) {
        // A cgroup first: killing it is one write that no fork can outrun, and the host's process
        // ids and mounts stay as the task expects them.
        (Some(cgroup), _) => Ok(vec![cgroup]),
        (None, Facility::Available(user)) => Ok(vec![
            Step::Namespaces {
                user: *user,
                isolated: false,
            },
            Step::Proc,
        ]),
        (None, Facility::Missing(pid_namespace)) => Err(PlanError::NoContainment {
            cgroup: support.cgroup.missing().cloned().unwrap_or_default(),
            pid_namespace: pid_namespace.clone(),
        }),
    }
}

fn cgroup_limits(limits: &Limits, support: &Support) -> Result<CgroupLimits, PlanError> {
    let controllers = &support.controllers;
    let asked = [
        ("memory", limits.memory, &controllers.memory),
        (
            "processes",
            limits.processes.map(u64::from),
            &controllers.pids,
        ),
        (
            "processor time",
            limits.cpu_percent.map(u64::from),
            &controllers.cpu,
        ),
    ];
    for (what, limit, facility) in asked {
        match (limit, facility) {
            (None, _) | (Some(1..), Facility::Available(())) => {}
            (Some(0), _) => return Err(PlanError::Zero(what)),
            (Some(_), Facility::Missing(reason)) => {
                return Err(PlanError::Limit {
                    what,
                    reason: reason.clone(),
                });
            }
        }
    }
    Ok(CgroupLimits {
        memory: limits.memory,
        processes: limits.processes,
        cpu_percent: limits.cpu_percent,
    })
}

/// Who the task is to become; `None` when it stays who the agent is.
fn user(policy: &Policy, support: &Support) -> Result<Option<RunAs>, PlanError> {
    match (&policy.run_as, &support.pid_namespace) {
        (Some(user), Facility::Available(Some(own))) if user.uid == own.uid => Ok(None),
        (Some(user), Facility::Available(Some(_))) => Err(PlanError::RunAs(user.name.clone())),
        (Some(user), _) => Ok(Some(user.clone())),
        (None, Facility::Available(None)) if policy.profile == Profile::Confined => {
            Ok(Some(RunAs {
                uid: NOBODY,
                gid: NOBODY,
                groups: Vec::new(),
                name: "nobody".to_owned(),
                home: "/tmp".into(),
                shell: "/bin/sh".into(),
            }))
        }
        (None, _) => Ok(None),
    }
}

/// The job's environment, in which the user is the one that the task becomes.
fn environment(job: &Job<'_>, user: Option<&RunAs>) -> Result<Vec<(String, String)>, PlanError> {
    let mut environment = job.environment.clone();
    if let Some(user) = user {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or(PlanError::Text("the user's entry"))
        };
        let own = [
            ("HOME", text(&user.home)?),
            ("USER", user.name.clone()),
            ("LOGNAME", user.name.clone()),
            ("SHELL", text(&user.shell)?),
        ];
        environment.retain(|(name, _)| own.iter().all(|(other, _)| name != other));
        environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(environment)
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
        match serde_json::from_slice::<Self>(bytes) {
            Ok(plan) if plan.version == VERSION => {
                plan.check().map_err(DecodeError::Content)?;
                Ok(plan)
            }
            Ok(other) => Err(DecodeError::Version(other.version)),
            // Another version may well have another form.
            Err(error) => match serde_json::from_slice(bytes) {
                Ok(Version { version }) if version != VERSION => Err(DecodeError::Version(version)),
                Ok(_) | Err(_) => Err(DecodeError::Form(error)),
            },
        }
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

    /// The socket of the message bus before which the task is to find a filter, if it is to find one.
    #[must_use]
    pub fn bus(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::Jail(jail) => jail.bus.as_deref(),
            _ => None,
        })
    }

    /// The jail without what is this task's own: what can be arranged before there is a task. `None` when
    /// there is no jail, or it takes a user namespace.
    #[must_use]
    pub fn view(&self) -> Option<Jail> {
        let ours = |step: &Step| matches!(step, Step::Namespaces { user: None, .. });
        if !self.steps.iter().any(ours) {
            return None;
        }
        self.steps.iter().find_map(|step| match step {
            Step::Jail(jail) => Some(Jail {
                visible: Vec::new(),
                ..jail.clone()
            }),
            _ => None,
        })
    }

    /// The directory of the task's cgroup, if it has one.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::Cgroup { directory, .. } => Some(directory.as_path()),
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
        let contained = match self.profile {
            Profile::Host => match (has(CGROUP), has(NAMESPACES)) {
                (true, false) => !has(PROC) && !has(JAIL),
                (false, true) => has(PROC) && !has(JAIL),
                _ => false,
            },
            Profile::Standard | Profile::Confined => {
                has(NAMESPACES) && has(JAIL) && has(PRIVILEGES) && !has(PROC)
            }
        } && self.steps.iter().all(|step| self.agrees(step));
        if ascending && contained && has(WORKING_DIRECTORY) && has(EXECUTE) {
            Ok(())
        } else {
            Err(PlanError::Order)
        }
    }
}

impl Plan {
    /// Whether a step is one of this plan's profile.
    fn agrees(&self, step: &Step) -> bool {
        match step {
            Step::Namespaces { isolated, .. } => *isolated == (self.profile == Profile::Confined),
            Step::Jail(Jail { profile, bus, .. }) => {
                *profile == self.profile && bus.is_some() == (self.profile == Profile::Standard)
            }
            Step::Privileges { profile, .. } => *profile == self.profile,
            _ => true,
        }
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
