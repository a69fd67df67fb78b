//! Tasks on disk: metadata, files with digests, and parameters checked against Puppet data types.
//!
//! [`ModulePath`] answers as Puppet Server's task endpoints do: the same rules for names,
//! implementations and support files, the same order of files, the same kinds of error. A [`Task`]
//! then checks what a caller gives it: [`Task::check_parameters`].

mod error;
mod files;
mod metadata;
mod module_path;
mod name;
mod parameters;
mod puppet_type;
mod task;

pub use error::{ListError, TaskError};
pub use metadata::{Implementation, InputMethod, Metadata, Parameter, Requirement};
pub use module_path::{ModulePath, Survey, TaskSummary};
pub use name::{NameError, TaskName};
pub use parameters::{ParameterFault, ParameterProblem};
pub use puppet_type::{MAX_TYPE_DEPTH, MAX_TYPE_LENGTH, PuppetType, TypeError};
pub use task::{FileUri, Task, TaskFile};
