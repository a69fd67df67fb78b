//! What people read: nodes' outcomes, the summary of a job, tasks. Pure; every string that comes
//! from elsewhere goes through [`crate::printable`].

mod group;
mod outcome;
mod summary;
mod task;

pub(crate) use group::Groups;
pub(crate) use outcome::outcome;
pub(crate) use summary::{counts, summary};
pub(crate) use task::{task, task_list};
