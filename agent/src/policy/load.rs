//! From the files of `policy.d` to the policy, collecting every fault. A policy with a fault is none.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use daemon::config::{Fault, Source};
use jiff::tz::TimeZone;
use pcp::Certname;
use pxp::UserName;

use super::file::{self, Conditions, File, Rules};
use super::rule::{Condition, Decision, Effects, Rule};
use super::{DEFAULT, Policy};

/// Everything that is wrong with the policy.
#[derive(Debug)]
pub struct PolicyError(pub Vec<Fault>);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&faults.join("; "))
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Reads all `*.conf` of a directory in the order of their names. Without the directory, or
    /// without a file in it, what controllers ask is allowed.
    ///
    /// # Errors
    /// [`PolicyError`], with every fault that was found.
    pub fn load(dir: &Path) -> Result<Self, PolicyError> {
        let files = files(dir).map_err(|problem| PolicyError(vec![fault(dir, problem)]))?;
        let mut reader = Reader {
            policy: Self::permissive(),
            default: None,
            zone: None,
            names: BTreeMap::new(),
            faults: Vec::new(),
        };
        for path in files {
            match Source::read(&path) {
                Ok(source) => reader.file(&source),
                Err(faults) => reader.faults.extend(faults),
            }
        }
        if reader.faults.is_empty() {
            Ok(reader.policy)
        } else {
            Err(PolicyError(reader.faults))
        }
    }
}

/// The files, all of them safe from being changed by just anybody.
fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| format!("cannot be read: {error}"))?
            .path();
        if path.extension().is_some_and(|end| end == "conf") {
            files.push(path);
        }
    }
    files.sort();
    for path in std::iter::once(dir).chain(files.iter().map(PathBuf::as_path)) {
        let metadata = fs::metadata(path)
            .map_err(|error| format!("{} cannot be looked at: {error}", path.display()))?;
        if metadata.permissions().mode() & 0o002 != 0 {
            return Err(format!(
                "{} can be changed by anybody on this host; run chmod o-w on it",
                path.display()
            ));
        }
    }
    Ok(files)
}

fn fault(file: &Path, problem: String) -> Fault {
    Fault {
        file: file.to_path_buf(),
        line: None,
        key: String::new(),
        problem,
        hint: None,
    }
}

/// Adds file after file to the policy.
struct Reader {
    policy: Policy,
    /// In which file it was set.
    default: Option<PathBuf>,
    zone: Option<PathBuf>,
    names: BTreeMap<String, PathBuf>,
    faults: Vec<Fault>,
}

impl Reader {
    fn file(&mut self, source: &Source) {
        let file: File = source.decode(None, &mut self.faults);
        for name in file.controllers.unwrap_or_default() {
            match Certname::parse(&name) {
                Ok(name) => self.policy.controllers.push(name),
                Err(error) => self.faults.push(source.fault("controllers", error)),
            }
        }
        if let Some(verdict) = file.default {
            let earlier = self.default.replace(source.path().to_path_buf());
            self.once(source, "default", earlier);
            self.policy.default = decision(verdict);
        }
        if let Some(zone) = file.zone {
            let earlier = self.zone.replace(source.path().to_path_buf());
            self.once(source, "zone", earlier);
            let found = match zone.as_str() {
                "local" => TimeZone::try_system(),
                name => TimeZone::get(name),
            };
            match found {
                Ok(zone) => self.policy.zone = zone,
                Err(error) => self.faults.push(source.fault("zone", error)),
            }
        }
        let Rules(rules) = file.rules.unwrap_or_default();
        for (name, rule) in rules {
            self.rule(source, name, rule);
        }
    }

    fn once(&mut self, source: &Source, key: &str, earlier: Option<PathBuf>) {
        if let Some(earlier) = earlier {
            let problem = format!("is set in {}, too", earlier.display());
            self.faults.push(source.fault(key, problem));
        }
    }

    fn rule(&mut self, source: &Source, name: String, written: file::Rule) {
        let key = format!("rules.{name}");
        let usable = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !usable || name == DEFAULT {
            let problem = format!(
                "the rule name {name:?} is not one: letters, digits, '-' and '_', and not \"{DEFAULT}\""
            );
            self.faults.push(source.fault("rules", problem));
            return;
        }
        if let Some(earlier) = self.names.get(&name) {
            let problem = format!("there is a rule of this name in {}, too", earlier.display());
            self.faults.push(source.fault(&key, problem));
            return;
        }
        self.names.insert(name.clone(), source.path().to_path_buf());
        let Some(verdict) = written.then else {
            self.faults
                .push(source.fault(&key, "`then` is required: allow or refuse"));
            return;
        };
        let decision = decision(verdict);
        let effects = self.effects(source, &key, decision, &written);
        if decision == Decision::Allow && written.reason.is_some() {
            let problem = "is only told to those whose request is refused";
            self.faults
                .push(source.fault(&format!("{key}.reason"), problem));
        }
        let when = self.conditions(source, &format!("{key}.when"), written.when);
        let unless = self.conditions(source, &format!("{key}.unless"), written.unless);
        self.policy.rules.push(Rule {
            name,
            decision,
            when,
            unless,
            reason: written.reason,
            effects,
        });
    }

    fn effects(
        &mut self,
        source: &Source,
        key: &str,
        decision: Decision,
        written: &file::Rule,
    ) -> Effects {
        let set = [
            ("sandbox", written.sandbox.is_some()),
            ("run-as", written.run_as.is_some()),
            ("limits", written.limits.is_some()),
        ];
        for (name, is_set) in set {
            if is_set && decision == Decision::Refuse {
                let problem = "means nothing in a rule that refuses";
                self.faults
                    .push(source.fault(&format!("{key}.{name}"), problem));
            }
        }
        let run_as = match written.run_as.as_deref().map(UserName::parse) {
            None => None,
            Some(Ok(user)) => Some(user),
            Some(Err(error)) => {
                self.faults
                    .push(source.fault(&format!("{key}.run-as"), error));
                None
            }
        };
        let none = file::Limits::default();
        let limits = written.limits.as_ref().unwrap_or(&none);
        let zeros = [
            ("time", limits.time.is_some_and(|time| time.0.is_zero())),
            ("memory", limits.memory.is_some_and(|size| size.0 == 0)),
            ("processes", limits.processes == Some(0)),
            ("cpu", limits.cpu.is_some_and(|share| share.0 == 0)),
        ];
        for (name, zero) in zeros {
            if zero {
                let key = format!("{key}.limits.{name}");
                self.faults.push(source.fault(&key, "must not be zero"));
            }
        }
        Effects {
            profile: written.sandbox,
            run_as,
            time: limits.time.map(|time| time.0),
            memory: limits.memory.map(|size| size.0),
            processes: limits.processes,
            cpu_percent: limits.cpu.map(|share| share.0),
            output: limits.output.map(|size| size.0),
        }
    }

    fn conditions(
        &mut self,
        source: &Source,
        key: &str,
        written: Option<Conditions>,
    ) -> Vec<Condition> {
        let Some(written) = written else {
            return Vec::new();
        };
        let mut conditions = Vec::new();
        let names = [
            ("tasks", written.tasks, Condition::Tasks as fn(_) -> _),
            ("modules", written.modules, Condition::Modules),
            ("actions", written.actions, Condition::Actions),
            ("requesters", written.requesters, Condition::Requesters),
            (
                "environments",
                written.environments,
                Condition::Environments,
            ),
            ("run-as", written.run_as, Condition::RunAs),
        ];
        for (name, patterns, condition) in names {
            let Some(patterns) = patterns else { continue };
            self.not_empty(source, &format!("{key}.{name}"), patterns.is_empty());
            conditions.push(condition(patterns));
        }
        if let Some(digests) = written.digests {
            let key = format!("{key}.digests");
            self.not_empty(source, &key, digests.is_empty());
            let mut known = std::collections::BTreeSet::new();
            for text in digests {
                match text.to_ascii_lowercase().parse() {
                    Ok(digest) => {
                        known.insert(digest);
                    }
                    Err(_) => {
                        let problem = format!("{text:?} is not 64 hexadecimal digits");
                        self.faults.push(source.fault(&key, problem));
                    }
                }
            }
            conditions.push(Condition::Digests(known));
        }
        if let Some(hours) = written.hours {
            self.not_empty(source, &format!("{key}.hours"), hours.is_empty());
            conditions.push(Condition::Hours(hours));
        }
        conditions
    }

    /// An empty list would hold for nothing, which nobody means.
    fn not_empty(&mut self, source: &Source, key: &str, empty: bool) {
        if empty {
            self.faults.push(source.fault(key, "names nothing"));
        }
    }
}

fn decision(verdict: file::Verdict) -> Decision {
    match verdict {
        file::Verdict::Allow => Decision::Allow,
        file::Verdict::Refuse => Decision::Refuse,
    }
}
