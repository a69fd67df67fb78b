//! `pxp-module-puppet run`: Puppet is run on this node, once, and its report is the result. The agent
//! starts a process of its own program for it ([`run`]), which decides what Puppet is given
//! ([`flags`]), waits its turn, and reads the report ([`report`]).

pub mod flags;
mod places;
pub mod report;
pub mod run;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use pxp::{ActionResult, PuppetRun, PuppetRunError, PuppetRunResult, Wishes};
use sandbox::Delivery;

use super::launch::{Launch, Place};

/// What the module is called in requests.
pub const MODULE: &str = "pxp-module-puppet";

/// What its only action is called.
pub const ACTION: &str = "run";

/// The version of the results' form.
const RESULT_VERSION: u32 = 1;

/// What stands where a report has not told.
const UNKNOWN: &str = "unknown";

/// Where Puppet's own packages have it. Those of a distribution have it on the PATH.
const PUPPET: &str = "/opt/puppetlabs/bin/puppet";

/// A run of Puppet that was asked for.
#[derive(Debug)]
pub struct Puppet(PuppetRun);

/// There is no Puppet on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPuppet {
    /// The configuration names what is not there.
    #[error("there is no {}, which puppet-bin names", .0.display())]
    Configured(PathBuf),
    /// It is at none of the places where it may be.
    #[error(
        "there is neither {PUPPET} nor a puppet on the PATH; install Puppet, or say in puppet-bin \
         where it is"
    )]
    Nowhere,
}

impl Puppet {
    /// A run, of which nothing but the form has been looked at: what is wrong with its flags is a
    /// result, not a refusal, as in the original.
    #[must_use]
    pub fn new(run: PuppetRun) -> Self {
        Self(run)
    }

    /// What is asked beyond the action's own parameters.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.0.pxp_mesh.clone().unwrap_or_default()
    }

    /// The environments that it names; none: it is the node's own.
    #[must_use]
    pub fn environments(&self) -> Vec<String> {
        flags::environments(&self.0)
    }

    /// How it is started.
    #[must_use]
    pub fn launch(&self, place: &Place<'_>) -> Launch {
        let task = run::Task {
            input: self.0.clone(),
            configuration: run::Configuration {
                puppet_bin: place.node.puppet.clone(),
                pid_namespace: run::pid_namespace(),
            },
        };
        Launch {
            program: place.agent.to_path_buf(),
            arguments: ["module", MODULE, ACTION].map(str::to_owned).into(),
            delivery: Delivery {
                stdin: pxp::write(&task),
                ..Delivery::default()
            },
        }
    }
}

/// Where `puppet` is.
///
/// # Errors
/// [`NoPuppet`] when it is not there.
pub fn find(configured: Option<&Path>, path: &OsStr) -> Result<PathBuf, NoPuppet> {
    if let Some(configured) = configured {
        return if configured.exists() {
            Ok(configured.to_owned())
        } else {
            Err(NoPuppet::Configured(configured.to_owned()))
        };
    }
    let on_path = std::env::split_paths(path).map(|directory| directory.join("puppet"));
    let mut places = std::iter::once(PathBuf::from(PUPPET)).chain(on_path);
    places
        .find(|place| place.is_file())
        .ok_or(NoPuppet::Nowhere)
}

/// What the process has left, as the result of a Puppet run: it is one, unless the process was ended
/// before it could write it. What it took is not among it.
#[must_use]
pub fn result(ran: &ActionResult) -> PuppetRunResult {
    let written = ran.stdout.as_deref().unwrap_or_default();
    let result: PuppetRunResult = serde_json::from_str(written).unwrap_or_else(|_| {
        let why = ran.stderr.as_deref().and_then(|text| text.lines().last());
        let why = why.and_then(|line| line.strip_prefix("pxp-agent: "));
        let why = why.unwrap_or("the process of the Puppet run ended without a result");
        failed(
            ran.exitcode,
            PuppetRunError::AgentExitNonZero,
            why.to_owned(),
        )
    });
    PuppetRunResult {
        usage: None,
        ..result
    }
}

fn failed(exitcode: i32, error_type: PuppetRunError, error: String) -> PuppetRunResult {
    PuppetRunResult {
        time: UNKNOWN.to_owned(),
        transaction_uuid: UNKNOWN.to_owned(),
        environment: UNKNOWN.to_owned(),
        status: UNKNOWN.to_owned(),
        metrics: serde_json::Map::new(),
        exitcode,
        version: RESULT_VERSION,
        error_type: Some(error_type),
        error: Some(error),
        usage: None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;

    #[test]
    fn puppet_is_where_it_is_said_to_be_or_where_packages_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = OsString::from(format!("/nowhere:{}", dir.path().display()));
        let puppet = dir.path().join("puppet");
        let missing = NoPuppet::Configured(puppet.clone());
        assert_eq!(find(Some(&puppet), &path), Err(missing));
        if !Path::new(PUPPET).exists() {
            assert_eq!(find(None, &path), Err(NoPuppet::Nowhere));
            fs::write(&puppet, "").unwrap();
            assert_eq!(find(None, &path), Ok(puppet.clone()));
        }
        fs::write(&puppet, "").unwrap();
        assert_eq!(find(Some(&puppet), OsStr::new("")), Ok(puppet));
    }

    #[test]
    fn a_run_that_was_ended_has_a_result_with_the_reason() {
        let ran = ActionResult {
            exitcode: 143,
            stdout: None,
            stderr: Some("Info: Applying\npxp-agent: the task was stopped: so\n".to_owned()),
            usage: None,
        };
        let ended = result(&ran);
        assert_eq!(ended.error_type, Some(PuppetRunError::AgentExitNonZero));
        assert_eq!(ended.error.as_deref(), Some("the task was stopped: so"));
        assert_eq!((ended.exitcode, &*ended.transaction_uuid), (143, "unknown"));
    }
}
