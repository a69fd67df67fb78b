//! Configuration files of the lab's processes: what the lab writes, and what is laid over it.
//!
//! Each process reads one file of a directory of its own, in which later lines win: the lab's own
//! first, then what is meant for all of its kind, then what is meant for it alone.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lab_ca::SslDir;

use crate::LabError;
use crate::error::file;
use crate::site::Site;

/// HOCON to be laid over the lab's own, with the kind (`pcp-broker`, `pxp-agent`, `orchestrator`) or
/// the name of the process that it is for.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    pub(crate) of: String,
    pub(crate) text: String,
}

/// Who may speak as what.
#[derive(Debug)]
pub(crate) struct Roles<'a> {
    pub(crate) brokers: &'a [String],
    pub(crate) controllers: &'a [String],
}

/// Reads a directory of overlays: `pcp-broker.conf`, `agent-1.conf` and so on.
pub(crate) fn read_dir(dir: &Path) -> Result<Vec<Overlay>, LabError> {
    let mut overlays = Vec::new();
    for entry in fs::read_dir(dir).map_err(file("read", dir))? {
        let path = entry.map_err(file("read", dir))?.path();
        if path.extension().is_none_or(|end| end != "conf") {
            continue;
        }
        let of = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).map_err(file("read", &path))?;
        overlays.push(Overlay { of, text });
    }
    Ok(overlays)
}

/// Writes a process's configuration directory anew.
pub(crate) fn write(
    site: &Site,
    kind: &str,
    name: &str,
    text: &str,
    overlays: &[Overlay],
) -> Result<PathBuf, LabError> {
    let dir = site.fresh_conf_dir(name)?;
    let of = |wanted: &str| -> String {
        let matching = overlays.iter().filter(|overlay| overlay.of == wanted);
        matching
            .map(|overlay| format!("{}\n", overlay.text))
            .collect()
    };
    let text = format!("{text}\n{}{}", of(kind), of(name));
    let path = dir.join("10-lab.conf");
    fs::write(&path, text).map_err(file("write", path))?;
    Ok(dir)
}

/// Where a broker stands among the others.
#[derive(Debug)]
pub(crate) enum Rank {
    /// With the certnames of the other primaries.
    Primary(Vec<String>),
    Compiler,
}

/// The configuration of a broker, which dials these primaries.
pub(crate) fn broker(
    listen: SocketAddr,
    var: &Path,
    rank: &Rank,
    primaries: &[String],
    roles: &Roles<'_>,
    ssl: &SslDir,
) -> String {
    let mut section = Section::new("pcp-broker");
    match rank {
        Rank::Primary(others) => {
            section.word("role", "primary");
            if !others.is_empty() {
                section.list("primary-certnames", others);
            }
        }
        Rank::Compiler => section.word("role", "compiler"),
    }
    section.word("listen", &listen.to_string());
    if !primaries.is_empty() {
        section.list("primaries", primaries);
    }
    section.ssl(ssl, "ssl-crl-path");
    section.list("controllers", roles.controllers);
    section.list("brokers", roles.brokers);
    section.path("content-cache-dir", &var.join("content"));
    // Also on a machine whose disk is nearly full.
    section.word("content-cache-reserve", "64MiB");
    section.end()
}

/// The configuration of an agent.
pub(crate) fn agent(var: &Path, brokers: &[String], roles: &Roles<'_>, ssl: &SslDir) -> String {
    let mut keys = Section::top();
    keys.list("broker-uris", brokers);
    keys.list("controllers", roles.controllers);
    keys.ssl(ssl, "ssl-crl");
    keys.path("spool-dir", &var.join("spool"));
    keys.path("task-cache-dir", &var.join("cache"));
    // Tests steer tasks by files of the lab, which may lie below /tmp.
    if let Some(lab) = var.ancestors().nth(2).filter(|lab| lab.starts_with("/tmp")) {
        keys.list("sandbox-shared-paths", &[lab.to_string_lossy()]);
    }
    keys.word("logfile", "-");
    keys.end()
}

/// The configuration of the orchestrator.
pub(crate) fn orchestrator(
    listen: SocketAddr,
    var: &Path,
    brokers: &[String],
    modulepath: &[PathBuf],
    ssl: &SslDir,
) -> String {
    let mut section = Section::new("orchestrator");
    section.word("listen", &listen.to_string());
    section.list("brokers", brokers);
    section.ssl(ssl, "ssl-crl-path");
    section.path("database", &var.join("orchestrator.sqlite"));
    let modulepath: Vec<_> = modulepath.iter().map(|dir| dir.to_string_lossy()).collect();
    if !modulepath.is_empty() {
        section.list("environments.production.modulepath", &modulepath);
    }
    section.end()
}

/// Lines of HOCON, every value quoted.
struct Section {
    text: String,
    close: &'static str,
}

impl Section {
    fn new(name: &str) -> Self {
        Self {
            text: format!("{name} {{\n"),
            close: "}\n",
        }
    }

    fn top() -> Self {
        Self {
            text: String::new(),
            close: "",
        }
    }

    fn line(&mut self, key: &str, value: &str) {
        // Writing to a string cannot fail.
        writeln!(self.text, "{key}: {value}").unwrap_or_default();
    }

    fn word(&mut self, key: &str, value: &str) {
        self.line(key, &quoted(value));
    }

    fn path(&mut self, key: &str, value: &Path) {
        self.word(key, &value.to_string_lossy());
    }

    fn list(&mut self, key: &str, values: &[impl AsRef<str>]) {
        let values: Vec<_> = values.iter().map(|value| quoted(value.as_ref())).collect();
        self.line(key, &format!("[{}]", values.join(", ")));
    }

    fn ssl(&mut self, ssl: &SslDir, crl_key: &str) {
        self.path("ssl-cert", &ssl.cert());
        self.path("ssl-key", &ssl.key());
        self.path("ssl-ca-cert", &ssl.ca());
        self.path(crl_key, &ssl.crl());
    }

    fn end(mut self) -> String {
        self.text.push_str(self.close);
        self.text
    }
}

/// A quoted HOCON text, whose escapes are JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
