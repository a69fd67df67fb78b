//! From a [`Policy`] to a [`Plan`] to a supervised task. The agent decides here, in pure code, what
//! a task may do ([`plan()`]), starts the execution wrapper that does it ([`start`]), and finds the
//! wrapper again after a restart ([`adopt`]). No unsafe code, no async.
//!
//! The promise, today: a task runs in a tree of processes of its own, in a cgroup or in a PID
//! namespace. It has exactly the environment, standard input and descriptors it was given. It ends
//! when its main process does, at its time limit, or when it is stopped, and then nothing of its
//! tree is left. Its report is written after that, and only then. What it may read or change on the
//! host is what its [`profile`] leaves it.

pub mod bus;
pub mod cgroup;
mod delivery;
pub mod filter;
mod host;
mod launcher;
pub mod mounts;
pub mod output;
mod plan;
mod policy;
pub mod profile;
mod report;
mod run_dir;
mod support;
mod user;

pub use delivery::{Delivery, DeliveryError, MAX_DELIVERY};
pub use host::{
    AdoptError, Adoption, Alive, FinishError, Prepared, StartError, StopError, adopt, start, stop,
};
pub use launcher::{LAUNCHER_ARGUMENT, Launcher, MAX_PLAN_PATH, MAX_VIEW};
pub use plan::{
    CgroupLimits, Containment, DecodeError, Jail, Job, Plan, PlanError, Stage, Step, User, plan,
};
pub use policy::{Limits, Paths, Policy, Profile, RunAs};
pub use report::{KilledBy, Outcome, Report, Usage};
pub use run_dir::{ReportError, RunDir};
pub use sandbox_sys::let_go_of_program;
pub use support::{Controllers, Facility, PROBE_ARGUMENT, Support, VERSION_ARGUMENT, version_of};
pub use user::UserIds;
