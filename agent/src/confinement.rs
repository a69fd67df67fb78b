//! The one place where configuration, verdict and wishes become what the sandbox is told: how far a
//! process is kept from the host, what it may take, as whom it runs, and what it cannot reach.

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, User};
use sandbox::{Limits, Paths, Policy, Profile, RunAs};

use crate::config::Config;
use crate::policy::Grant;

/// How long a task that is being ended has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Modules that run Puppet itself, which must be able to change anything, its own keys included.
const PUPPETS: [&str; 2] = ["apply", "pxp-module-puppet"];

/// Where units and their drop-ins lie, and where the environment of ours.
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const UNIT: &str = "pxp-agent.service";
const ENVIRONMENTS: [&str; 2] = ["/etc/default/pxp-agent", "/etc/sysconfig/pxp-agent"];

/// Directories that hold more programs than ours, and are for tasks to manage.
const SYSTEM_PROGRAMS: [&str; 6] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
];

/// What holds for all processes of this agent.
#[derive(Debug, Clone)]
pub struct Confinement {
    profile: Profile,
    limits: Limits,
    paths: Paths,
    user: String,
    uid: Uid,
}

/// A process cannot be run as its grant says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunAsError {
    /// There is no such user.
    #[error("there is no user {0:?} on this node")]
    Unknown(String),
    /// The user database does not answer.
    #[error("the user {name:?} cannot be looked up: {problem}")]
    Lookup {
        /// The user.
        name: String,
        /// Why not.
        problem: nix::errno::Errno,
    },
    /// Only root can become somebody else.
    #[error("the agent runs as {own:?}, not as root, and cannot run anything as {name:?}")]
    NotRoot {
        /// The agent's user.
        own: String,
        /// The user asked for.
        name: String,
    },
}

impl Confinement {
    /// What the configuration says. `user` is the agent's own.
    #[must_use]
    pub fn new(config: &Config, user: &str) -> Self {
        Self {
            profile: config.profile,
            limits: Limits {
                time: config.task_time_limit,
                grace: GRACE,
                output: config.task_output_limit,
                memory: config.task_memory_limit,
                processes: config.task_process_limit,
                cpu_percent: config.task_cpu_limit,
                open_files: None,
            },
            paths: paths(config),
            user: user.to_owned(),
            uid: nix::unistd::geteuid(),
        }
    }

    /// The agent's own user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// How an action of this module is run where no rule says it.
    #[must_use]
    pub fn standing(&self, module: &str) -> Grant {
        Grant {
            rule: String::new(),
            profile: if PUPPETS.contains(&module) {
                Profile::Host
            } else {
                self.profile
            },
            limits: self.limits.clone(),
            run_as: None,
        }
    }

    /// What the sandbox is told. Looks users up, which may block.
    ///
    /// # Errors
    /// [`RunAsError`] when the process cannot run as the user of the grant.
    pub fn policy(&self, grant: &Grant) -> Result<Policy, RunAsError> {
        let run_as = match &grant.run_as {
            None => None,
            Some(user) => self.run_as(user.as_str())?,
        };
        Ok(Policy {
            profile: grant.profile,
            limits: grant.limits.clone(),
            run_as,
            paths: self.paths.clone(),
        })
    }

    fn run_as(&self, name: &str) -> Result<Option<RunAs>, RunAsError> {
        let lookup = |problem| RunAsError::Lookup {
            name: name.to_owned(),
            problem,
        };
        let user = User::from_name(name)
            .map_err(lookup)?
            .ok_or_else(|| RunAsError::Unknown(name.to_owned()))?;
        if user.uid == self.uid {
            return Ok(None);
        }
        if !self.uid.is_root() {
            return Err(RunAsError::NotRoot {
                own: self.user.clone(),
                name: name.to_owned(),
            });
        }
        // A name of the user database has no NUL, and one that has is nobody's.
        let login = CString::new(user.name.as_str())
            .map_err(|_nul| RunAsError::Unknown(name.to_owned()))?;
        let groups = nix::unistd::getgrouplist(&login, user.gid).map_err(lookup)?;
        Ok(Some(RunAs {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            name: user.name,
            home: user.dir,
            shell: user.shell,
        }))
    }
}

/// What is kept from tasks: the node's keys, and everything by which they could change what the agent
/// does to them, now or later.
fn paths(config: &Config) -> Paths {
    let mut hidden = vec![
        absolute(&config.spool_dir),
        absolute(&config.cache_dir),
        keys(&absolute(&config.tls.key)),
    ];
    hidden.dedup();
    let mut read_only = vec![
        absolute(&config.policy_dir),
        absolute(&config.modules_dir),
        absolute(&config.modules_config_dir),
        config_files(&absolute(&config.path)),
        absolute(&config.tls.cert),
        absolute(&config.tls.ca),
        program(&absolute(&config.wrapper)),
    ];
    read_only.extend(config.tls.crl.as_deref().map(absolute));
    read_only.extend(std::env::current_exe().ok().as_deref().map(program));
    // What was logged is evidence.
    if let daemon::logs::Target::File(log) = &config.log.target {
        read_only.push(absolute(log));
    }
    read_only.extend(config.access_log.as_deref().map(absolute));
    for directory in UNIT_DIRECTORIES {
        let directory = Path::new(directory);
        read_only.push(directory.join(UNIT));
        read_only.push(directory.join(format!("{UNIT}.d")));
    }
    read_only.extend(ENVIRONMENTS.map(PathBuf::from));
    // Whatever is named there is loaded into every program, ours included.
    read_only.push(PathBuf::from("/etc/ld.so.preload"));
    read_only.sort();
    read_only.dedup();
    Paths {
        hidden,
        read_only,
        shared: config.shared_paths.clone(),
        ..Paths::default()
    }
}

/// The key, and those that come after it: Puppet renews a key under the same name, in a directory that
/// holds nothing else.
fn keys(key: &Path) -> PathBuf {
    match key.parent() {
        Some(parent) if parent.ends_with("private_keys") => parent.to_owned(),
        _ => key.to_owned(),
    }
}

/// The configuration, with what may come to stand beside it where the directory is ours alone.
fn config_files(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !path.is_dir() && parent.ends_with("pxp-agent") => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// A program, with those beside it where the directory is not the system's.
fn program(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !SYSTEM_PROGRAMS.iter().any(|dir| parent == Path::new(dir)) => {
            parent.to_owned()
        }
        _ => path.to_owned(),
    }
}

/// A path that is relative is so to where the agent was started. What is there is named without links
/// and `..`; of what is not, `..` goes with what stands before it.
fn absolute(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(run_as: Option<&str>) -> Grant {
        Grant {
            rule: "r".to_owned(),
            profile: Profile::Confined,
            limits: Limits {
                time: Duration::from_secs(1),
                grace: GRACE,
                output: 1,
                memory: None,
                processes: Some(7),
                cpu_percent: None,
                open_files: None,
            },
            run_as: run_as.map(|name| pxp::UserName::parse(name).unwrap()),
        }
    }

    fn confinement(uid: u32) -> Confinement {
        let path = PathBuf::from("/opt/puppetlabs/pxp-agent/pxp-agent.conf");
        let text = "broker-uris: [b]\nssl-cert: /ssl/certs/n.pem\nssl-key: /ssl/private_keys/n.pem\n\
                    ssl-crl: /ssl/crl.pem\nlogfile: /var/log/agent.log\nspool-dir: /s\nexecution-wrapper: /usr/bin/w";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pxp-agent.conf");
        std::fs::write(&file, text).unwrap();
        let config = Config {
            path,
            ..Config::load(&file).unwrap()
        };
        Confinement {
            uid: Uid::from_raw(uid),
            ..Confinement::new(&config, "me")
        }
    }

    #[test]
    fn a_grant_is_what_the_sandbox_is_told() {
        let policy = confinement(0).policy(&grant(None)).unwrap();
        assert_eq!(policy.profile, Profile::Confined);
        assert_eq!(policy.limits.processes, Some(7));
        assert_eq!(policy.run_as, None);
    }

    #[test]
    fn only_puppet_has_the_whole_host() {
        let confinement = confinement(0);
        for (module, profile) in [
            ("task", Profile::Standard),
            ("command", Profile::Standard),
            ("something-else", Profile::Standard),
            ("apply", Profile::Host),
            ("pxp-module-puppet", Profile::Host),
        ] {
            assert_eq!(confinement.standing(module).profile, profile, "{module}");
        }
    }

    #[test]
    fn keys_and_whatever_decides_about_tasks_is_kept_from_them() {
        let paths = confinement(0).paths;
        for hidden in ["/s", "/ssl/private_keys"] {
            assert!(paths.hidden.contains(&hidden.into()), "{hidden}");
        }
        for read_only in [
            "/opt/puppetlabs/pxp-agent",
            "/usr/bin/w",
            "/var/log/agent.log",
            "/etc/systemd/system/pxp-agent.service.d",
            "/lib/systemd/system/pxp-agent.service",
            "/etc/default/pxp-agent",
            "/ssl/crl.pem",
        ] {
            assert!(paths.read_only.contains(&read_only.into()), "{read_only}");
        }
    }

    #[test]
    fn what_is_kept_from_tasks_as_far_as_it_is_there_is_made_by_the_package() {
        let text = "broker-uris: [b]\nssl-cert: /ssl/certs/n.pem\nssl-key: /ssl/private_keys/n.pem\n\
                    ssl-crl: /ssl/crl.pem\nspool-dir: /s";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pxp-agent.conf");
        std::fs::write(&file, text).unwrap();
        let read_only = paths(&Config::load(&file).unwrap()).read_only;
        let made = include_str!("../../packaging/tmpfiles.d/pxp-agent.conf");
        let made = made.lines().filter_map(|line| line.strip_prefix("d "));
        let made: Vec<_> = made.map(|line| line.split(' ').next().unwrap()).collect();
        assert!(made.len() >= 5, "{made:?}");
        for directory in made {
            // The policy lies beside the configuration, which is elsewhere here.
            let directory = directory.replace("/etc/puppetlabs/pxp-agent", "");
            let kept = |path: &PathBuf| path.ends_with(directory.trim_start_matches('/'));
            assert!(read_only.iter().any(kept), "{directory}: {read_only:?}");
        }
    }

    #[test]
    fn paths_have_neither_links_nor_steps_back() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(absolute(&link.join("../real")), real);
        assert_eq!(
            absolute(Path::new("/no/such/../dir/x")),
            Path::new("/no/dir/x")
        );
    }

    #[test]
    fn another_user_is_one_that_there_is_and_that_the_agent_can_become() {
        let nobody = confinement(0).policy(&grant(Some("nobody"))).unwrap();
        let nobody = nobody.run_as.unwrap();
        assert_eq!(nobody.name, "nobody");
        assert!(nobody.uid != 0 && nobody.groups.contains(&nobody.gid));
        assert_eq!(
            confinement(0).policy(&grant(Some("root"))).unwrap().run_as,
            None
        );
        let unknown = confinement(0)
            .policy(&grant(Some("no-such-user")))
            .unwrap_err();
        assert_eq!(unknown, RunAsError::Unknown("no-such-user".to_owned()));
        let other = confinement(12_345)
            .policy(&grant(Some("root")))
            .unwrap_err();
        assert!(other.to_string().contains("not as root"), "{other}");
    }
}
