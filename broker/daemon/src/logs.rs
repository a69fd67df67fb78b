//! Logs: what is written where. Lines go to standard error, to syslog, or are appended to a file, plain
//! or as JSON; the environment variable `PXP_LOG` (`level` or `target=level,…`) overrides the level.
//! The [`Logs`] of a running process let it open its file anew and change the level.

mod file;
mod syslog;

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;
use tracing_subscriber::util::TryInitError;

pub use file::LogFileHandle;
pub use syslog::{Facility, FacilityError};

/// The environment variable that overrides the level.
pub const VARIABLE: &str = "PXP_LOG";

/// Libraries whose debug lines tell about themselves and not about us.
const CHATTY: [&str; 7] = [
    "h2",
    "hyper",
    "hyper_util",
    "quinn",
    "quinn_proto",
    "quinn_udp",
    "rustls",
];

/// Where logs go and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// The least serious lines that are written.
    pub level: Level,
    /// The form of a line.
    pub format: Format,
    /// Where lines are written.
    pub target: Target,
}

/// The section `log` of a configuration file.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub struct LogFile {
    /// The least serious lines that are written.
    pub level: Option<Level>,
    /// The form of a line.
    pub format: Option<Format>,
    /// A file to append to; `-` is standard error.
    pub file: Option<PathBuf>,
}

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Level(LevelFilter);

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

/// Where lines are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// Standard error, which the service manager collects.
    #[default]
    Stderr,
    /// Appended to this file.
    File(PathBuf),
    /// Sent to the local syslog.
    Syslog(Facility),
}

/// The logs of this process, once they have begun.
#[derive(Debug, Clone)]
pub struct Logs {
    filter: reload::Handle<Targets, tracing_subscriber::Registry>,
    file: Option<LogFileHandle>,
    /// The environment decides the level, whatever the configuration says.
    fixed: bool,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error("cannot open the log file {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The local syslog does not answer.
    #[error("cannot reach syslog at {}", syslog::SOCKET)]
    Syslog(#[source] io::Error),
    /// The environment variable is not understood.
    #[error("the environment variable {VARIABLE} is not a level or a list of target=level")]
    Variable(#[source] ParseError),
    /// Logging has begun before.
    #[error("logging has begun before")]
    Started(#[source] TryInitError),
}

/// Begins logging for the whole process. Once only.
///
/// # Errors
/// When the file or syslog cannot be opened, `PXP_LOG` is not understood, or logging has begun before.
pub fn start(config: &LogConfig) -> Result<Logs, LogError> {
    let (first, fixed) = match std::env::var(VARIABLE) {
        Ok(text) => (text.parse().map_err(LogError::Variable)?, true),
        Err(_) => (filter(config.level.0), false),
    };
    let mut opened = None;
    let (writer, colours) = match &config.target {
        Target::Stderr => (
            BoxMakeWriter::new(io::stderr),
            io::IsTerminal::is_terminal(&io::stderr()),
        ),
        Target::File(path) => {
            let file = LogFileHandle::open(path).map_err(|source| LogError::Open {
                path: path.clone(),
                source,
            })?;
            opened = Some(file.clone());
            (BoxMakeWriter::new(file), false)
        }
        Target::Syslog(facility) => {
            let syslog = syslog::Syslog::connect(*facility).map_err(LogError::Syslog)?;
            (BoxMakeWriter::new(syslog), false)
        }
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours);
    let lines = match (config.format, &config.target) {
        (Format::Json, _) => lines.json().flatten_event(true).boxed(),
        // Syslog has the time and the level itself.
        (Format::Plain, Target::Syslog(_)) => lines.without_time().with_level(false).boxed(),
        (Format::Plain, _) => lines.boxed(),
    };
    let (first, filter) = reload::Layer::new(first);
    tracing_subscriber::registry()
        .with(lines.with_filter(first))
        .try_init()
        .map_err(LogError::Started)?;
    Ok(Logs {
        filter,
        file: opened,
        fixed,
    })
}

impl Logs {
    /// Opens the log file anew, after whoever rotates logs has moved it away. Without a file there is
    /// nothing to do.
    ///
    /// # Errors
    /// When it cannot be opened; lines go on into the old one.
    pub fn reopen(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), LogFileHandle::reopen)
    }

    /// Changes the level, unless the environment has set it.
    pub fn set_level(&self, level: Level) {
        if !self.fixed {
            // The subscriber lives as long as the process.
            self.filter.reload(filter(level.0)).ok();
        }
    }
}

fn filter(level: LevelFilter) -> Targets {
    let ours = Targets::new().with_default(level);
    CHATTY.iter().fold(ours, |filter, name| {
        filter.with_target(*name, level.min(LevelFilter::WARN))
    })
}

impl From<LogFile> for LogConfig {
    fn from(file: LogFile) -> Self {
        Self {
            level: file.level.unwrap_or_default(),
            format: file.format.unwrap_or_default(),
            target: match file.file {
                Some(path) if path.as_os_str() != "-" => Target::File(path),
                _ => Target::Stderr,
            },
        }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

impl FromStr for Level {
    type Err = String;

    /// Our words and those of the original pxp-agent.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "none" | "off" => LevelFilter::OFF,
            "fatal" | "error" => LevelFilter::ERROR,
            "warning" | "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => {
                return Err(format!(
                    "{text:?} is none of none, error, warning, info, debug, trace"
                ));
            }
        }))
    }
}

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Json => "json",
        })
    }
}
