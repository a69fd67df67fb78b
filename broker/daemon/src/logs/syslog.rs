//! Lines to the local syslog, in the form of RFC 3164 that every daemon behind `/dev/log` reads.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where the local syslog listens.
pub(super) const SOCKET: &str = "/dev/log";

/// A longer line is cut: daemons take at least this much.
const MAX_LINE: usize = 8 * 1024;

/// As what kind of program a line is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

/// The word names no facility.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is none of {}", NAMES.map(|(name, _)| name).join(", "))]
pub struct FacilityError {
    word: String,
}

/// Those of RFC 3164 that a daemon may use.
const NAMES: [(&str, u8); 15] = [
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("cron", 9),
    ("authpriv", 10),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl Facility {
    /// `local0` to `local7`; a larger number counts as 7.
    #[must_use]
    pub const fn local(number: u8) -> Self {
        Self(16 + if number > 7 { 7 } else { number })
    }
}

impl FromStr for Facility {
    type Err = FacilityError;

    fn from_str(text: &str) -> Result<Self, FacilityError> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, number)| Self(*number))
            .ok_or_else(|| FacilityError {
                word: text.to_owned(),
            })
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.iter().find(|(_, number)| *number == self.0);
        f.write_str(found.map_or("user", |(name, _)| name))
    }
}

/// The way to the local syslog.
#[derive(Debug, Clone)]
pub(super) struct Syslog {
    socket: Arc<UnixDatagram>,
    facility: Facility,
    /// `pxp-agent[123]: `
    tag: Arc<str>,
}

impl Syslog {
    pub(super) fn connect(facility: Facility) -> io::Result<Self> {
        Self::connect_to(Path::new(SOCKET), facility)
    }

    fn connect_to(path: &Path, facility: Facility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A syslog that does not keep up must not hold the daemon: lines are dropped then.
        socket.set_nonblocking(true)?;
        let program = std::env::current_exe().ok();
        let program = program
            .as_deref()
            .and_then(Path::file_name)
            .map_or_else(|| "unknown".into(), |name| name.to_string_lossy());
        Ok(Self {
            socket: Arc::new(socket),
            facility,
            tag: format!("{program}[{}]: ", std::process::id()).into(),
        })
    }

    fn line(&self, severity: u8) -> Line<'_> {
        Line {
            syslog: self,
            severity,
        }
    }
}

/// One line of a severity; each write is one.
pub(super) struct Line<'a> {
    syslog: &'a Syslog,
    severity: u8,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let priority = u32::from(self.syslog.facility.0) * 8 + u32::from(self.severity);
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = text.get(..MAX_LINE).unwrap_or(text);
        let mut line = format!("<{priority}>{}", self.syslog.tag).into_bytes();
        line.extend_from_slice(text);
        // There is nowhere to tell that a line could not be told.
        self.syslog.socket.send(&line).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        self.line(6)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        self.line(match *metadata.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_facility_has_a_name_that_reads_back() {
        for (name, number) in NAMES {
            assert_eq!(name.parse(), Ok(Facility(number)));
            assert_eq!(Facility(number).to_string(), name);
        }
        assert!("local8".parse::<Facility>().is_err());
        assert_eq!(Facility::local(5).to_string(), "local5");
    }

    #[test]
    fn a_line_is_one_datagram_with_priority_and_tag() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::connect_to(&path, Facility::local(5)).unwrap();
        syslog.line(4).write_all(b"all is well\n").unwrap();
        let mut buffer = [0; 256];
        let length = daemon.recv(&mut buffer).unwrap();
        let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(line.starts_with("<172>"), "{line}");
        assert!(line.ends_with("]: all is well"), "{line}");
        drop(daemon);
        syslog.line(4).write_all(b"nobody hears\n").unwrap();
    }
}
