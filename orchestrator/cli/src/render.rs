//! What people read: nodes' outcomes, the summary of a job, tasks. Pure; every string that comes
//! from elsewhere goes through [`crate::printable`].

mod group;
mod job;
mod outcome;
mod puppet;
mod summary;
mod task;
mod user;

pub(crate) use group::Groups;
pub(crate) use job::{beginning, indented, job, job_list, sections, stopped};
pub(crate) use outcome::{Manner, outcome};
pub(crate) use puppet::Counts;
pub(crate) use summary::{counts, summary};
pub(crate) use task::{task, task_list};
pub(crate) use user::user;
