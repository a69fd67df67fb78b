//! How `lab restart` reaches a running `lab up`: a socket in the lab's directory, one line each way.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest line that is read; names are far shorter.
const MAX_LINE: u64 = 64 << 10;

/// Someone who connects and says nothing is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket of a running lab.
#[derive(Debug)]
pub struct Listener(UnixListener);

/// Someone who waits for a process to be started again.
#[derive(Debug)]
pub struct Request {
    /// The name of the process.
    pub name: String,
    stream: UnixStream,
}

/// Why a running lab did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no lab is running in {dir}")]
    Nobody {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The lab did not answer.
    #[error("the lab did not answer")]
    Silent(#[source] io::Error),
    /// It answered with this.
    #[error("{0}")]
    Refused(String),
}

fn path(dir: &Path) -> PathBuf {
    dir.join("run/control.sock")
}

impl Listener {
    /// Listens for the lab in `dir`, which holds that directory's lock.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// The next request; whoever says something else is left without an answer.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn next(&self) -> io::Result<Request> {
        loop {
            let (stream, _) = self.0.accept()?;
            if let Ok(Some(request)) = read_request(stream) {
                return Ok(request);
            }
        }
    }
}

fn read_request(stream: UnixStream) -> io::Result<Option<Request>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&stream)
        .take(MAX_LINE)
        .read_line(&mut line)?;
    let name = line.trim_end().strip_prefix("restart ").map(str::to_owned);
    Ok(name.map(|name| Request { name, stream }))
}

impl Request {
    /// Answers: `Ok` when the process is ready, else why not.
    pub fn answer(mut self, outcome: Result<(), String>) {
        let text = match outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("error {error}"),
        };
        // Whoever asked may have left; the process was started all the same.
        self.stream.write_all(text.as_bytes()).unwrap_or_default();
    }
}

/// Asks the lab that runs in `dir` to start a process again, and waits until it is ready.
///
/// # Errors
/// When no lab runs there, or it cannot do so.
pub fn restart(dir: &Path, name: &str) -> Result<(), ControlError> {
    let mut stream = UnixStream::connect(path(dir)).map_err(|source| ControlError::Nobody {
        dir: dir.to_owned(),
        source,
    })?;
    let mut answer = String::new();
    writeln!(stream, "restart {name}")
        .and_then(|()| stream.take(MAX_LINE).read_to_string(&mut answer))
        .map_err(ControlError::Silent)?;
    match answer.strip_prefix("error ") {
        None if answer == "ok" => Ok(()),
        None => Err(ControlError::Silent(io::ErrorKind::UnexpectedEof.into())),
        Some(error) => Err(ControlError::Refused(error.to_owned())),
    }
}
