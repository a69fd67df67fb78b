//! Everything that can go wrong, with its exit code and what to do next. One line says the cause.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use orchestrator_api::{ApiError, ErrorKind};
use serde_json::{Value, json};

use crate::arguments::CONFIG_VARIABLE;
use crate::client::fault::ConnectError;
use crate::exit::Exit;
use crate::printable::printable;

/// Why the command ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The orchestrator refused the request.
    #[error("{}", printable(&.0.msg))]
    Api(ApiError),
    /// The login or the password is wrong, or may not be tried just now.
    #[error("{}", printable(&.0.msg))]
    Credentials(ApiError),
    /// Something answers, but not as an orchestrator does.
    #[error("{url} does not answer as an orchestrator does (HTTP status {status})")]
    NotAnOrchestrator { url: String, status: u16 },
    /// More than is read; smaller pages may help.
    #[error("an answer of {url} is larger than {limit} bytes")]
    AnswerTooLarge { url: String, limit: usize },
    /// The orchestrator went away while a job was followed, and did not come back.
    #[error(
        "the orchestrator could not be reached for {seconds} seconds; job {job} goes on without us"
    )]
    Lost {
        job: String,
        seconds: u64,
        #[source]
        source: Box<Self>,
    },
    /// Ctrl-C before there was a job, or twice.
    #[error("interrupted")]
    Interrupted { job: Option<Left> },
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("cannot write below {}", dir.display())]
    Generate {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// A job that is left by the second Ctrl-C.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) job: String,
    pub(crate) is_stopped: bool,
    /// Whether it was started here.
    pub(crate) is_ours: bool,
}

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("'{argument}' is not of the form NAME=VALUE")]
    ParameterForm { argument: String },
    #[error("the parameter '{name}' is given twice")]
    ParameterTwice { name: String },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--params is not valid JSON")]
    ParamsJson {
        #[source]
        source: serde_json::Error,
    },
    #[error("--params is not a JSON object")]
    ParamsNotObject,
    #[error("--nodes names no node")]
    NoNodes,
    #[error("--query is empty")]
    EmptyQuery,
    #[error("standard input can be either the nodes or the parameters, not both")]
    StdinTwice,
    #[error("no password was given")]
    NoPassword,
    #[error("no login was given")]
    NoLogin,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the configuration {} is not as it should be", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("nothing says where the orchestrator is: there is no service-url")]
    NoServiceUrl,
    #[error("the service-url '{url}' is not one: {problem}")]
    ServiceUrl { url: String, problem: &'static str },
    #[error("there is no token: {} does not exist", path.display())]
    NoToken { path: PathBuf },
    #[error("cannot write the token file {}", path.display())]
    TokenWrite {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the token file {}", path.display())]
    TokenRead {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the token file {} does not hold a token", path.display())]
    TokenForm { path: PathBuf },
    #[error("cannot read the CA certificates {}", path.display())]
    CaRead {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no usable CA certificate", path.display())]
    CaForm { path: PathBuf },
}

const HOW_TO_GET_A_TOKEN: &str = "Get one with 'puppet access login' (puppet-access login), or name the file of another with \
--token-file.";

impl Failure {
    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Config(
                ConfigError::Read { .. }
                | ConfigError::Parse { .. }
                | ConfigError::NoServiceUrl
                | ConfigError::ServiceUrl { .. },
            ) => Exit::Usage,
            Self::Config(_)
            | Self::Connect(_)
            | Self::NotAnOrchestrator { .. }
            | Self::Credentials(_)
            | Self::Lost { .. } => Exit::Connection,
            Self::Api(error) if error.http_status() == 401 => Exit::Connection,
            Self::Api(_)
            | Self::AnswerTooLarge { .. }
            | Self::Signals(_)
            | Self::Generate { .. }
            | Self::Tls(_)
            | Self::Runtime(_) => Exit::Failure,
            Self::Interrupted { .. } => Exit::Interrupted,
        }
    }

    /// What a person can do about it.
    pub(crate) fn next_step(&self) -> Option<String> {
        let step = match self {
            Self::Usage(_) => "See --help for examples.".to_owned(),
            Self::Config(error) => error.next_step(),
            Self::Connect(error) => error.next_step().to_owned(),
            Self::NotAnOrchestrator { .. } => {
                "Check the service-url: the orchestrator listens on port 8143.".to_owned()
            }
            Self::Lost { job, .. } => format!("When it is back, job {job} has the results."),
            Self::Interrupted {
                job:
                    Some(Left {
                        job,
                        is_stopped: true,
                        ..
                    }),
            } => {
                format!("Job {job} was asked to stop; nodes that have started finish.")
            }
            Self::Interrupted {
                job:
                    Some(Left {
                        job,
                        is_stopped: false,
                        is_ours: false,
                    }),
            } => format!("Job {job} goes on."),
            Self::Interrupted {
                job:
                    Some(Left {
                        job,
                        is_stopped: false,
                        is_ours: true,
                    }),
            } => {
                format!("Job {job} goes on: the orchestrator could not be told to stop it.")
            }
            Self::Api(error) => return api_next_step(error),
            Self::Interrupted { job: None }
            | Self::Credentials(_)
            | Self::AnswerTooLarge { .. }
            | Self::Signals(_)
            | Self::Generate { .. }
            | Self::Tls(_)
            | Self::Runtime(_) => return None,
        };
        Some(step)
    }

    /// The error in the form of the API.
    pub(crate) fn document(&self) -> Value {
        let kind = match self {
            Self::Api(error) | Self::Credentials(error) => {
                return json!({"kind": error.kind, "msg": error.msg, "details": error.details});
            }
            Self::Usage(_) => "puppet-task/usage",
            Self::Config(
                ConfigError::NoToken { .. }
                | ConfigError::TokenRead { .. }
                | ConfigError::TokenWrite { .. }
                | ConfigError::TokenForm { .. },
            ) => "puppet-task/token",
            Self::Config(_) => "puppet-task/configuration",
            Self::Connect(_) | Self::NotAnOrchestrator { .. } | Self::AnswerTooLarge { .. } => {
                "puppet-task/connection"
            }
            Self::Lost { .. } => "puppet-task/lost",
            Self::Interrupted { .. } => "puppet-task/interrupted",
            Self::Signals(_) | Self::Generate { .. } | Self::Tls(_) | Self::Runtime(_) => {
                "puppet-task/system"
            }
        };
        let details = match self {
            Self::Lost { job, .. }
            | Self::Interrupted {
                job: Some(Left { job, .. }),
            } => {
                json!({"job_id": job})
            }
            _ => json!({}),
        };
        json!({"kind": kind, "msg": chain(self), "details": details})
    }

    /// Whether trying again may help: the orchestrator is away, or says that it cannot just now.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_passing(),
            Self::NotAnOrchestrator { status, .. } => (502..=504).contains(status),
            Self::Api(error) => error.known() == Some(ErrorKind::Unavailable),
            _ => false,
        }
    }
}

impl ConfigError {
    fn next_step(&self) -> String {
        match self {
            Self::Read { .. } => format!(
                "Check the path given by --config-file or {CONFIG_VARIABLE}, and who may read the file."
            ),
            Self::Parse { .. } => {
                "It is JSON like {\"options\": {\"service-url\": \"https://puppet.example.com:8143\"}}.".to_owned()
            }
            Self::NoServiceUrl => "Give --service-url https://HOST:8143, or write it to \
~/.puppetlabs/client-tools/orchestrator.conf as {\"options\": {\"service-url\": \"https://HOST:8143\"}}."
                .to_owned(),
            Self::ServiceUrl { .. } => "It is like https://puppet.example.com:8143.".to_owned(),
            Self::NoToken { .. } | Self::TokenForm { .. } => HOW_TO_GET_A_TOKEN.to_owned(),
            Self::TokenRead { .. } => "Check who may read it.".to_owned(),
            Self::TokenWrite { .. } => {
                "Name another file with --token-file, or use --print.".to_owned()
            }
            Self::CaRead { .. } | Self::CaForm { .. } => "Give the CA certificates of your Puppet \
(on a node: /etc/puppetlabs/puppet/ssl/certs/ca.pem) with --ca-cert, or as cacert in the configuration."
                .to_owned(),
        }
    }
}

fn api_next_step(error: &ApiError) -> Option<String> {
    let step = match error.known()? {
        ErrorKind::UserUnauthenticated | ErrorKind::UserRevoked => {
            HOW_TO_GET_A_TOKEN.to_owned()
        }
        ErrorKind::UnknownTask => {
            "'puppet-task show' lists the tasks; --environment chooses where they come from."
                .to_owned()
        }
        ErrorKind::NotPermitted | ErrorKind::PermissionDenied => {
            "'puppet-access whoami' tells what the token permits; whoever runs the orchestrator gives \
permissions (pxp-orchestrator role grant)."
                .to_owned()
        }
        ErrorKind::LockedOut => "Wait, then try again.".to_owned(),
        ErrorKind::UnknownJob => "'puppet-job list' lists the jobs.".to_owned(),
        ErrorKind::UnknownEnvironment => "Check --environment.".to_owned(),
        ErrorKind::ValidationError => {
            // Faults of parameters are told by their problem; other faults speak for themselves.
            let problems = error.details.get("parameters")?.as_array()?;
            let task = error.details.get("task")?.as_str()?;
            let step = format!(
                "'puppet-task show {}' tells what the task takes.",
                printable(task)
            );
            if problems.iter().any(is_number_for_text) {
                format!("{step} To give a number as text, quote it twice: NAME='\"5\"'.")
            } else {
                step
            }
        }
        _ => return None,
    };
    Some(step)
}

/// Whether an inline value was read as a number or boolean where the task wants text.
fn is_number_for_text(fault: &Value) -> bool {
    let problem = fault
        .get("problem")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some((expected, got)) = problem.split_once(", got ") else {
        return false;
    };
    ["String", "Pattern", "Enum"]
        .iter()
        .any(|text| expected.contains(text))
        && ["Integer", "Float", "Boolean"]
            .iter()
            .any(|number| got.starts_with(number))
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&printable(&cause.to_string()));
        source = cause.source();
    }
    text
}
