//! A host with an agent on it, as far as a task could meddle with it.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use sandbox::{Facility, Paths, Profile, Support};
use tempfile::{NamedTempFile, TempDir};

use crate::bed::{Run, skip, wrapper};

/// Keys, spool, configuration, policy and programs in a directory of their own, and a process that
/// stands for the agent.
#[derive(Debug)]
pub(crate) struct Host {
    /// Not below /tmp, which a task does not see.
    dir: TempDir,
    others_tmp: NamedTempFile,
    agent: Child,
    /// Listens at a name that is the directory's path.
    _abstract_socket: UnixListener,
}

pub(crate) static SUPPORT: LazyLock<Support> = LazyLock::new(|| Support::probe(wrapper()));

impl Host {
    /// `None` where the profiles cannot be tried; says why.
    pub(crate) fn set_up() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("root", "an agent that is no root has nothing to lose");
            return None;
        }
        for (feature, facility) in [("userns", &SUPPORT.standard), ("userns", &SUPPORT.confined)] {
            if let Facility::Missing(reason) = facility {
                skip(feature, reason);
                return None;
            }
        }
        let dir = tempfile::Builder::new()
            .prefix("pxp-attacks-")
            .tempdir_in("/var/lib")
            .unwrap();
        for (path, mode) in [
            ("", 0o755),
            ("ssl", 0o755),
            ("ssl/private_keys", 0o750),
            ("spool", 0o755),
            ("spool/own", 0o755),
            ("spool/own/task", 0o755),
            ("spool/other", 0o755),
            ("pxp-agent", 0o755),
            ("pxp-agent/etc", 0o755),
            ("pxp-agent/etc/policy.d", 0o755),
            ("pxp-agent/bin", 0o755),
            ("bus", 0o755),
            ("free", 0o777),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for file in [
            "ssl/private_keys/node.pem",
            "spool/own/task/init.sh",
            "spool/other/params",
            "pxp-agent/etc/pxp-agent.conf",
            "pxp-agent/bin/pxp-agent",
        ] {
            // Readable for everyone: what keeps a task from it is the profile alone.
            fs::write(dir.path().join(file), "content").unwrap();
        }
        let id = dir.path().join("free/id");
        fs::copy("/usr/bin/id", &id).unwrap();
        fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
        let mut agent = Command::new("/bin/sleep");
        agent
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Self {
            others_tmp: NamedTempFile::new_in("/tmp").unwrap(),
            agent: agent.spawn().unwrap(),
            _abstract_socket: UnixListener::bind_addr(
                &SocketAddr::from_abstract_name(dir.path().as_os_str().as_encoded_bytes()).unwrap(),
            )
            .unwrap(),
            dir,
        })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The socket of the host's message bus, if it has one.
    pub(crate) fn bus(&self) -> PathBuf {
        self.path("bus/system_bus_socket")
    }

    /// The run as one of this host's tasks.
    pub(crate) fn of(&self, profile: Profile, run: Run) -> Run {
        let variables = self.variables(&run, profile);
        run.with(|run| {
            run.environment.extend(variables);
            run.working_directory = "/".into();
            run.visible = vec![self.path("spool/own/task")];
            run.policy.profile = profile;
            run.policy.paths = Paths {
                hidden: vec![self.path("ssl/private_keys"), self.path("spool")],
                read_only: vec![self.path("pxp-agent/etc"), self.path("pxp-agent/bin")],
                shared: Vec::new(),
                bus: self.bus(),
            };
        })
    }

    fn variables(&self, run: &Run, profile: Profile) -> Vec<(String, String)> {
        let cgroup = match &SUPPORT.cgroup {
            Facility::Available(base) => base.join(&run.name),
            Facility::Missing(_) => PathBuf::from("/nonexistent"),
        };
        // Without a /tmp of its own it must not fill the machine's.
        let scratch = match profile {
            Profile::Host => self.path("free"),
            Profile::Standard | Profile::Confined => "/tmp".into(),
        };
        let paths = [
            ("KEY", self.path("ssl/private_keys/node.pem")),
            ("SPOOL", self.path("spool")),
            ("OWN", self.path("spool/own/task/init.sh")),
            ("CONFIG", self.path("pxp-agent/etc/pxp-agent.conf")),
            ("POLICY", self.path("pxp-agent/etc/policy.d")),
            ("BINARY", self.path("pxp-agent/bin/pxp-agent")),
            ("FREE", self.path("free")),
            ("SCRATCH", scratch),
            ("SETUID_ID", self.path("free/id")),
            ("OTHERS_TMP", self.others_tmp.path().to_owned()),
            ("ABSTRACT", self.dir.path().to_owned()),
            ("BUS", self.bus()),
            ("CGROUP", cgroup),
        ];
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut variables: Vec<_> = paths
            .iter()
            .map(|(name, path)| ((*name).to_owned(), text(path)))
            .collect();
        let agent = self.agent.id();
        let init = if profile == Profile::Host { agent } else { 1 };
        variables.push(("AGENT".to_owned(), agent.to_string()));
        variables.push(("INIT".to_owned(), init.to_string()));
        variables
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }
}
