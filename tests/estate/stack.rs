//! The stack of `stack/`, which all tests of this folder share: the first one starts it, which takes a
//! minute or two, and a keeper stops it when none has used it for a while.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::said::text;

/// Where it lies; its scripts default to it.
const DIR: &str = "/var/tmp/pxp-estate";

/// What must be installed, which `stack/up --packages` does.
const INSTALLED: [&str; 4] = [
    "/usr/share/puppetserver/puppetserver.jar",
    "/usr/share/puppetdb/puppetdb.jar",
    "/usr/bin/puppet",
    "/usr/lib/postgresql",
];

/// The running stack. It stays up for as long as somebody has one of these.
#[derive(Debug)]
pub(crate) struct Stack {
    /// What `up` says of it, such as `PUPPETDB_URL`.
    values: BTreeMap<String, String>,
    /// Locked, and shared with other tests unless this one is alone.
    _use: File,
}

impl Stack {
    /// Brings it up. Nothing, and the reason on standard error, where that is not possible.
    pub(crate) fn up() -> Option<Self> {
        Self::locked(File::lock_shared)
    }

    /// The same for a test that disturbs all others: they wait until it has ended.
    pub(crate) fn up_alone() -> Option<Self> {
        Self::locked(File::lock)
    }

    fn locked(lock: fn(&File) -> std::io::Result<()>) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            lab::skip("stack", "only root can start Puppet Server and PuppetDB");
            return None;
        }
        if let Some(absent) = INSTALLED.iter().find(|path| !Path::new(path).exists()) {
            let reason = format!("{absent} is missing: tests/estate/stack/up --packages");
            lab::skip("stack", &reason);
            return None;
        }
        fs::create_dir_all(format!("{DIR}/run")).expect("a writable /var/tmp");
        let users = File::create(format!("{DIR}/run/users")).expect("a writable /var/tmp");
        lock(&users).expect("a lock");
        bring_up();
        Some(Self {
            values: values(),
            _use: users,
        })
    }

    /// A value of `stack.env`.
    pub(crate) fn value(&self, name: &str) -> &str {
        let value = self.values.get(name);
        value.unwrap_or_else(|| panic!("stack.env has no {name}"))
    }

    /// The certificates of everybody in it.
    pub(crate) fn ssl_dir(&self) -> PathBuf {
        self.value("SSL_DIR").into()
    }

    /// Stops Puppet Server and PuppetDB. For who is alone.
    pub(crate) fn stop(&self) {
        must(script("down").arg("--keep-postgres"));
    }

    /// Starts them again.
    pub(crate) fn start(&self) {
        bring_up();
    }

    /// Has the CA issue a certificate with these further names: `DNS:…,IP:…`.
    pub(crate) fn certificate(&self, certname: &str, names: &str) {
        must(script("cert").args([certname, names]));
    }

    /// Has the CA revoke a certificate, and fetches the CRL that says so.
    pub(crate) fn revoke(&self, certname: &str) {
        must(script("cert").args(["--revoke", certname]));
    }

    /// A module in Puppet Server's environment `production`, empty. Puppet Server sees at once what
    /// is put in it.
    pub(crate) fn module(&self, name: &str) -> Module {
        let environments = Path::new(self.value("ENVIRONMENTS_DIR"));
        let folder = environments.join("production/modules").join(name);
        // Of an earlier run.
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(folder.join("tasks")).expect("a writable stack");
        Module { folder }
    }
}

/// A module that goes with its test.
#[derive(Debug)]
pub(crate) struct Module {
    folder: PathBuf,
}

impl Module {
    /// Writes a file of a task, in the place of one that is there.
    pub(crate) fn task(&self, name: &str, text: &str) {
        let beside = self.folder.join("new");
        fs::write(&beside, text).expect("a writable stack");
        fs::rename(beside, self.folder.join("tasks").join(name)).expect("a writable stack");
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // What is left is replaced by the next one of this name.
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn script(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("estate/stack");
    let mut command = Command::new(folder.join(name));
    command.arg(DIR).stdin(Stdio::null());
    command
}

/// Runs a script that starts nothing that lives on.
fn must(script: &mut Command) {
    let output = script.output().expect("a script starts");
    assert!(output.status.success(), "{script:?}: {}", text(&output));
}

/// Cheap when it is up already.
fn bring_up() {
    // Its output goes to a file, not a pipe: daemons of a start that is broken off would hold it.
    let log = format!("{DIR}/run/up.log");
    let file = || File::create(&log).expect("a writable /var/tmp");
    let status = script("up").stdout(file()).stderr(file()).status();
    let status = status.expect("stack/up starts");
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "stack/up: {status}\n{said}");
    // In a session of its own: it outlives this test, and whoever ends its process group.
    let mut keep = Command::new("setsid");
    keep.arg("-f").arg(script("keep").get_program()).arg(DIR);
    let keep = keep
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = keep.status().expect("setsid starts");
    assert!(status.success(), "stack/keep: {status}");
}

/// `KEY=VALUE` lines, some values quoted.
fn values() -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("{DIR}/stack.env")).expect("stack.env");
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    text.lines().filter_map(pair).collect()
}
