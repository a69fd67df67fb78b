//! The system calls of the sandbox: the only unsafe code of the repository. One function a call,
//! safe signatures, no policy and no logging. What `nix` offers as a safe function is not repeated
//! here.
//!
//! Calls that are sound only while the process has one thread ask for a [`SingleThreaded`], which
//! can only be had by looking.

mod attribute;
mod capabilities;
mod descriptors;
mod filter;
mod landlock;
mod mount;
mod passing;
mod pidfd;
mod process;
mod program;
mod signals;
mod thread;

pub use attribute::attribute;
pub use capabilities::{
    drop_all_capabilities, drop_from_bounding_set, inherit_no_capabilities, keep_capabilities,
};
pub use descriptors::{close_inherited, close_on_exec};
pub use filter::{Instruction, install_filter};
pub use landlock::{
    Governed, landlock_allow, landlock_restrict, landlock_ruleset, landlock_version,
};
pub use mount::{Restriction, adapt_tree, attach_tree, copy_tree, mount_seen_at, restrict_mount};
pub use passing::{MAX_DESCRIPTORS, receive};
pub use pidfd::{pidfd_open, pidfd_send_signal};
pub use process::{CloneRequest, Cloned, End, Reaped, clear_environment, clone, exit_now, reap};
pub use program::let_go_of_program;
pub use signals::default_dispositions;
pub use thread::SingleThreaded;
