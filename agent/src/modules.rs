//! What this agent offers: modules, their actions, and how a request is read as one of them. The
//! texts of refusals are the original's.

pub mod apply;
pub mod command;
pub mod echo;
pub mod external;
pub mod file;
pub mod launch;
pub mod output;
pub mod path;
pub mod ping;
pub mod puppet;
pub mod script;
pub mod source;
pub mod status;
pub mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pcp::Digest;
use pxp::{JsonObject, OutputRequest, StatusQuery, StopRequest, Wishes};
use serde::de::DeserializeOwned;

use apply::{Apply, CannotApply};
use command::Command;
use external::{Call, CallError, External};
use file::Download;
use launch::{Launch, Place};
use puppet::Puppet;
use sandbox::Delivery;
use script::Script;
use source::Source;
use task::{Task, TaskError};

/// The longest argument or entry of an environment that Linux takes (`MAX_ARG_STRLEN`), its NUL
/// included: 32 pages. Of a variable it is name, `=`, value and NUL together.
const MAX_TEXT: usize = 128 * 1024;

/// An action that gives its results at once, and only to a blocking request.
#[derive(Debug)]
pub enum Immediate {
    /// `echo echo`
    Echo(echo::Echo),
    /// `ping ping`
    Ping(ping::Ping),
    /// `status query`
    StatusQuery(StatusQuery),
    /// `task stop`
    Stop(StopRequest),
    /// `output read`
    Output(OutputRequest),
}

/// An action that runs a process.
#[derive(Debug)]
pub enum Process {
    /// `task run`
    Task(Box<Task>),
    /// `script run`
    Script(Box<Script>),
    /// `command run`
    Command(Box<Command>),
    /// `file download`
    Download(Box<Download>),
    /// `pxp-module-puppet run`
    Puppet(Box<Puppet>),
    /// `apply prep`, `apply apply`
    Apply(Box<Apply>),
    /// An action of an external module.
    External(Box<Call>),
    /// The question to a program of `modules-dir` what it can do.
    Metadata(PathBuf),
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run somebody's program, which needs all its files, and has a `/tmp` of its own.
    ToRun,
    /// To put files where they are wanted, below `/tmp` too. One that could not be had may be there
    /// already.
    ToPutFiles,
}

/// Why a process cannot be started as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A task's parameters cannot be handed over.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Puppet cannot do it on this node.
    #[error(transparent)]
    Apply(#[from] CannotApply),
}

/// Any action.
#[derive(Debug)]
pub enum Action {
    /// Done at once.
    Immediate(Immediate),
    /// Takes its time.
    Process(Process),
}

/// Why a request is not one for an action of this agent. The texts are sent to the requester.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such module.
    #[error("unknown module: {0}")]
    UnknownModule(String),
    /// The module has no such action.
    #[error("unknown action '{action}' for module '{module}'")]
    UnknownAction {
        /// The module.
        module: String,
        /// The action asked for.
        action: String,
    },
    /// The parameters are not those of the action. Which of them is left out, for the text would
    /// show its value.
    #[error("invalid input for '{module} {action}' (column {column} of its parameters)")]
    InvalidInput {
        /// The module.
        module: &'static str,
        /// The action.
        action: &'static str,
        /// Where reading stopped.
        column: usize,
    },
    /// The parameters of `task run` are of the right types, and cannot be used.
    #[error("invalid input for 'task run': {0}")]
    InvalidTask(#[from] TaskError),
    /// The same of `script run`.
    #[error("invalid input for 'script run': {0}")]
    InvalidScript(#[from] script::ScriptError),
    /// The same of `command run`.
    #[error("invalid input for 'command run': {0}")]
    InvalidCommand(#[from] command::CommandError),
    /// The same of `file download`.
    #[error("invalid input for 'file download': {0}")]
    InvalidDownload(#[from] file::DownloadError),
    /// The same of `apply`.
    #[error("invalid input for 'apply': {0}")]
    InvalidApply(#[from] apply::ApplyError),
    /// The parameters are not those of an action of an external module.
    #[error("invalid input for '{module} {action}': {problem}")]
    InvalidCall {
        /// The module.
        module: String,
        /// The action.
        action: String,
        /// What is wrong, without the values.
        problem: CallError,
    },
    /// The module has nothing that takes its time.
    #[error("the module '{0}' supports only blocking PXP requests")]
    OnlyBlocking(&'static str),
    /// The action answers at once, though others of its module take their time.
    #[error("the action '{1}' of the module '{0}' supports only blocking PXP requests")]
    OnlyBlockingAction(&'static str, &'static str),
}

impl Process {
    /// What it is done with, for an operator's eyes.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Task(task) => Some(task.name()),
            Self::Script(script) => Some(script.name()),
            // They may hold secrets.
            Self::Command(_) | Self::External(_) | Self::Metadata(_) => None,
            Self::Download(download) => download.subject(),
            // The module says it all.
            Self::Puppet(_) | Self::Apply(_) => None,
        }
    }

    /// The name of the task, when it is one: rules of the policy go by it.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::Task(task) => Some(task.name()),
            Self::Script(_)
            | Self::Command(_)
            | Self::Download(_)
            | Self::Puppet(_)
            | Self::Apply(_)
            | Self::External(_)
            | Self::Metadata(_) => None,
        }
    }

    /// The files that it needs, and where they must lie below the staging directory.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, &Source)> {
        match self {
            Self::Task(task) => task.files(),
            Self::Script(script) => vec![script.file()],
            Self::Command(_)
            | Self::Puppet(_)
            | Self::Apply(_)
            | Self::External(_)
            | Self::Metadata(_) => Vec::new(),
            Self::Download(download) => download.files(),
        }
    }

    /// The digests of all files that it runs or is given; what is executed last.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        let files = self.files();
        files.iter().map(|(_, file)| file.digest).collect()
    }

    /// The environments that it says it is of.
    #[must_use]
    pub fn environments(&self) -> Vec<String> {
        match self {
            Self::Task(task) => task.environments(),
            Self::Script(script) => script.environments(),
            Self::Command(_) | Self::External(_) | Self::Metadata(_) => Vec::new(),
            Self::Download(download) => download.environments(),
            Self::Puppet(puppet) => puppet.environments(),
            Self::Apply(apply) => vec![apply.environment().to_owned()],
        }
    }

    /// What is asked beyond the action's own parameters.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        match self {
            Self::Task(task) => task.wishes(),
            Self::Script(script) => script.wishes(),
            Self::Command(command) => command.wishes(),
            Self::Download(download) => download.wishes(),
            Self::Puppet(puppet) => puppet.wishes(),
            Self::Apply(apply) => apply.wishes(),
            Self::External(call) => call.wishes(),
            Self::Metadata(_) => Wishes::default(),
        }
    }

    /// How it is started, once its files are in their places.
    ///
    /// # Errors
    /// [`LaunchError`] when parameters cannot be handed over, or the node has not what it needs.
    pub fn launch(&self, place: &Place<'_>) -> Result<Launch, LaunchError> {
        match self {
            Self::Task(task) => Ok(task.launch(place)?),
            Self::Script(script) => Ok(script.launch(place)),
            Self::Command(command) => Ok(command.launch(place)),
            Self::Download(download) => Ok(download.launch(place)),
            Self::Puppet(puppet) => Ok(puppet.launch(place)),
            Self::Apply(apply) => Ok(apply.launch(place)?),
            Self::External(call) => Ok(call.launch(place)),
            Self::Metadata(program) => Ok(Launch {
                program: program.clone(),
                arguments: vec![external::METADATA.to_owned()],
                delivery: Delivery::default(),
            }),
        }
    }

    /// What it does with what it writes.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Download(_) => Purpose::ToPutFiles,
            Self::Task(_)
            | Self::Script(_)
            | Self::Command(_)
            | Self::Puppet(_)
            | Self::Apply(_)
            | Self::External(_)
            | Self::Metadata(_) => Purpose::ToRun,
        }
    }
}

/// What may be asked of this agent: what is built in, and the external modules. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct Modules(Arc<RwLock<BTreeMap<String, Arc<External>>>>);

impl Modules {
    /// These external modules beside what is built in.
    #[must_use]
    pub fn new(external: BTreeMap<String, Arc<External>>) -> Self {
        Self(Arc::new(RwLock::new(external)))
    }

    /// Offers these external modules from now on. Gives the names of those that are offered no more.
    pub fn replace(&self, external: BTreeMap<String, Arc<External>>) -> Vec<String> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, external);
        let gone = before.into_keys();
        gone.filter(|name| !current.contains_key(name)).collect()
    }

    fn external(&self, module: &str) -> Option<Arc<External>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.get(module).cloned()
    }

    /// Reads what a blocking request asks for.
    ///
    /// # Errors
    /// [`Refused`], to be told to the requester.
    pub fn action(
        &self,
        module: &str,
        action: &str,
        params: Option<&JsonObject>,
    ) -> Result<Action, Refused> {
        let Some(external) = self.external(module) else {
            return Action::built_in(module, action, params);
        };
        match Call::new(&external, action, params) {
            Ok(call) => Ok(Action::Process(Process::External(Box::new(call)))),
            Err(CallError::NoAction) => Err(Refused::UnknownAction {
                module: module.to_owned(),
                action: action.to_owned(),
            }),
            Err(problem) => Err(Refused::InvalidCall {
                module: module.to_owned(),
                action: action.to_owned(),
                problem,
            }),
        }
    }

    /// Reads what a non-blocking request asks for.
    ///
    /// # Errors
    /// [`Refused`], to be told to the requester.
    pub fn process(
        &self,
        module: &str,
        action: &str,
        params: Option<&JsonObject>,
    ) -> Result<Process, Refused> {
        match self.action(module, action, params)? {
            Action::Process(process) => Ok(process),
            Action::Immediate(Immediate::Echo(_)) => Err(Refused::OnlyBlocking("echo")),
            Action::Immediate(Immediate::Ping(_)) => Err(Refused::OnlyBlocking("ping")),
            Action::Immediate(Immediate::StatusQuery(_)) => Err(Refused::OnlyBlocking("status")),
            Action::Immediate(Immediate::Stop(_)) => {
                Err(Refused::OnlyBlockingAction("task", "stop"))
            }
            Action::Immediate(Immediate::Output(_)) => Err(Refused::OnlyBlocking("output")),
        }
    }
}

/// Whether the agent has a module of this name itself.
#[must_use]
pub fn is_built_in(module: &str) -> bool {
    let asked = Action::built_in(module, "", None);
    !matches!(asked, Err(Refused::UnknownModule(_)))
}

impl Action {
    /// Reads what a blocking request asks for of the modules that the agent has itself.
    ///
    /// # Errors
    /// [`Refused`], to be told to the requester.
    pub fn built_in(
        module: &str,
        action: &str,
        params: Option<&JsonObject>,
    ) -> Result<Self, Refused> {
        Ok(match (module, action) {
            ("echo", "echo") => Self::Immediate(Immediate::Echo(read("echo", "echo", params)?)),
            ("ping", "ping") => Self::Immediate(Immediate::Ping(read("ping", "ping", params)?)),
            ("status", "query") => {
                Self::Immediate(Immediate::StatusQuery(read("status", "query", params)?))
            }
            ("task", "stop") => Self::Immediate(Immediate::Stop(read("task", "stop", params)?)),
            ("output", "read") => {
                Self::Immediate(Immediate::Output(read("output", "read", params)?))
            }
            ("task", "run") => {
                let task = Task::new(read("task", "run", params)?)?;
                Self::Process(Process::Task(Box::new(task)))
            }
            ("script", "run") => {
                let script = Script::new(read("script", "run", params)?)?;
                Self::Process(Process::Script(Box::new(script)))
            }
            ("command", "run") => {
                let command = Command::new(read("command", "run", params)?)?;
                Self::Process(Process::Command(Box::new(command)))
            }
            (file::MODULE, file::ACTION) => {
                let download = Download::new(read(file::MODULE, file::ACTION, params)?)?;
                Self::Process(Process::Download(Box::new(download)))
            }
            (puppet::MODULE, puppet::ACTION) => {
                let run = read(puppet::MODULE, puppet::ACTION, params)?;
                Self::Process(Process::Puppet(Box::new(Puppet::new(run))))
            }
            (apply::MODULE, "prep") => {
                let apply = Apply::prep(read(apply::MODULE, "prep", params)?)?;
                Self::Process(Process::Apply(Box::new(apply)))
            }
            (apply::MODULE, "apply") => {
                let apply = Apply::with_catalog(read(apply::MODULE, "apply", params)?)?;
                Self::Process(Process::Apply(Box::new(apply)))
            }
            (
                apply::MODULE
                | "command"
                | "echo"
                | file::MODULE
                | "output"
                | "ping"
                | puppet::MODULE
                | "script"
                | "status"
                | "task",
                _,
            ) => {
                return Err(Refused::UnknownAction {
                    module: module.to_owned(),
                    action: action.to_owned(),
                });
            }
            _ => return Err(Refused::UnknownModule(module.to_owned())),
        })
    }
}

fn read<T: DeserializeOwned>(
    module: &'static str,
    action: &'static str,
    params: Option<&JsonObject>,
) -> Result<T, Refused> {
    let read = match params {
        Some(params) => params.parse(),
        None => serde_json::from_str("{}"),
    };
    read.map_err(|error| Refused::InvalidInput {
        module,
        action,
        column: error.column(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parameters that each action takes, to be damaged.
    const TAKEN: [(&str, &str, &str); 13] = [
        ("echo", "echo", r#"{"argument":"a"}"#),
        ("ping", "ping", r#"{"sender_timestamp":"1"}"#),
        ("status", "query", r#"{"transaction_id":"a"}"#),
        ("task", "stop", r#"{"transaction_id":"a"}"#),
        (
            "output",
            "read",
            r#"{"transaction_id":"a","stdout":1,"stderr":2,"wait_ms":3}"#,
        ),
        (
            "task",
            "run",
            r#"{"task":"m::t","files":[{"filename":"t.sh","sha256":"DIGEST","uri":{"path":"/p","params":{"environment":"e"}}},{"filename":"m/files/x","sha256":"DIGEST","uri":{"path":"/p","params":{}}}],"input":{"a":[1],"_noop":true},"metadata":{"input_method":"both","files":["m/files/"],"supports_noop":true,"implementations":[{"name":"t.sh","requirements":["shell"]}],"extensions":{"pxp_mesh":{"time_limit":5,"profile":"confined"}}}}"#,
        ),
        (
            "script",
            "run",
            r#"{"script":{"filename":"s","sha256":"DIGEST","uri":{"path":"/","params":{}}},"arguments":["a"]}"#,
        ),
        (
            "command",
            "run",
            r#"{"command":"true","pxp_mesh":{"run_as":"nobody"}}"#,
        ),
        (
            "file",
            "download",
            r#"{"files":[{"destination":"/x/y","link_source":"","uri":{"path":"/","params":{}},"sha256":"DIGEST","kind":"file"},{"destination":"/x","link_source":"/y","uri":{"path":"","params":{}},"sha256":"","kind":"symlink"}]}"#,
        ),
        (
            "pxp-module-puppet",
            "run",
            r#"{"env":[],"flags":["--environment","e"],"job":"7"}"#,
        ),
        ("apply", "prep", r#"{"environment":"e"}"#),
        (
            "apply",
            "apply",
            r#"{"catalog":{"environment":"e","resources":[]},"apply_options":{"noop":true}}"#,
        ),
        ("unknown", "run", "{}"),
    ];

    fn taken(n: usize) -> (&'static str, &'static str, String) {
        let (module, action, params) = TAKEN[n];
        (module, action, params.replace("DIGEST", &"a".repeat(64)))
    }

    #[test]
    fn each_action_takes_what_it_should() {
        for n in 0..TAKEN.len() - 1 {
            let (module, action, params) = taken(n);
            let read = parse(module, action, &params);
            assert!(read.is_ok(), "{module} {action}: {:?}", read.unwrap_err());
        }
    }

    proptest! {
        #[test]
        fn damaged_parameters_are_refused_or_give_a_process_that_stays_in_its_place(
            n in 0..TAKEN.len(), at in any::<prop::sample::Index>(), cut in 0..12_usize,
            insert in "(\\.\\./|/|\\\\u0000|\"|,|\\{|\\}|\\[|\\]|:|null|-1|1e999|\\PC){0,4}",
        ) {
            let (module, action, params) = taken(n);
            let mut damaged = params.clone().into_bytes();
            let at = at.index(damaged.len());
            damaged.splice(at..(at + cut).min(params.len()), insert.bytes());
            let Ok(params) = serde_json::from_slice::<JsonObject>(&damaged) else {
                return Ok(());
            };
            crate::digest::RequestDigest::of(module, action, Some(&params)).ok();
            let Ok(Action::Process(process)) = Action::built_in(module, action, Some(&params)) else {
                return Ok(());
            };
            for (path, _) in process.files() {
                let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
                prop_assert!(plain, "{}", path.display());
            }
            drop((process.digests(), process.environments(), process.wishes()));
            prop_assert!(process.task().is_none() || process.task() == process.subject());
        }
    }

    fn parse(module: &str, action: &str, params: &str) -> Result<Action, Refused> {
        Action::built_in(module, action, Some(&serde_json::from_str(params).unwrap()))
    }

    #[test]
    fn each_refusal_has_the_text_of_the_original() {
        let text = |module, action, params| parse(module, action, params).unwrap_err().to_string();
        assert_eq!(text("x", "run", "{}"), "unknown module: x");
        assert_eq!(
            text("task", "walk", "{}"),
            "unknown action 'walk' for module 'task'"
        );
        assert!(text("task", "run", "{}").starts_with("invalid input for 'task run'"));
        assert!(text("echo", "echo", "{\"argument\":1}").starts_with("invalid input for 'echo"));
        let query = serde_json::from_str("{\"transaction_id\":\"a\"}").unwrap();
        let refused = Modules::default().process("status", "query", Some(&query));
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the module 'status' supports only blocking PXP requests"
        );
    }

    #[test]
    fn a_refusal_does_not_show_parameters() {
        let refused = parse(
            "task",
            "run",
            r#"{"task":"t","files":[],"input":"hunter2"}"#,
        );
        let error = refused.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
