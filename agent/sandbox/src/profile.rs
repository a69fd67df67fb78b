//! What the profiles are, as data to be read and reviewed: each rule with the reason that it is
//! there. What `host` lacks is nothing: it has no rules beyond containment.

pub mod bus;
pub mod calls;
pub mod capabilities;
pub mod paths;

use sandbox_sys::Instruction;

use crate::filter::{self, Rules, Verdict};
use crate::policy::Profile;

/// Who a `confined` task is when the agent is root and no user is named: nobody, who owns nothing.
pub const NOBODY: u32 = 65534;

/// How much a `confined` task may write into its scratch directory, in bytes: enough for what a task
/// that only looks has to put down, and little enough to be held in memory.
pub const SCRATCH_BYTES: u64 = 256 * 1024 * 1024;

/// The filter of system calls of a profile; `None` where there is none.
#[must_use]
pub fn filter(profile: Profile) -> Option<Vec<Instruction>> {
    let rules = match profile {
        Profile::Host => return None,
        Profile::Standard => Rules {
            otherwise: Verdict::Allow,
            calls: calls::REFUSED
                .iter()
                .map(|rule| (rule.call, rule.verdict))
                .collect(),
        },
        Profile::Confined => Rules {
            otherwise: Verdict::Refuse,
            calls: calls::CONFINED
                .iter()
                .flat_map(|group| group.calls)
                .map(|call| (*call, Verdict::Allow))
                .chain(calls::CONDITIONAL.iter().copied())
                .collect(),
        },
    };
    Some(filter::compile(&rules))
}
