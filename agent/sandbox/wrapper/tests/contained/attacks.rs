//! What a task must not be able to do, tried in each profile. `ATTACKS.md` of the crate `sandbox` says
//! what each attack comes to, in words and in a table; these tests hold the table to be true.
//!
//! An attack is a function in one of the Perl files beside this one. Perl makes any system call by its
//! number, and every Debian has it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use nix::libc;
use sandbox::{Facility, Outcome, Paths, Profile, Support};
use tempfile::{NamedTempFile, TempDir};

use crate::bed::{Run, skip, wrapper};

mod supervision;

const PERL: &str = "/usr/bin/perl";
const PRELUDE: &str = include_str!("attacks/prelude.pl");
const TABLE: &str = include_str!("../../../ATTACKS.md");

macro_rules! attacks {
    ($($file:ident: $($name:ident)*;)*) => {
        $($(
            #[test]
            fn $name() {
                try_in_each_profile(
                    stringify!($name),
                    include_str!(concat!("attacks/", stringify!($file), ".pl")),
                );
            }
        )*)*

        const NAMES: &[&str] = &[$($(stringify!($name),)*)*];
    };
}

attacks! {
    secrets:
        key_read key_through_proc key_by_symbolic_link key_by_hard_link key_by_bind_mount
        key_by_unmasking key_by_renaming key_by_handle key_on_the_disk key_out_of_a_chroot
        key_by_inherited_descriptor spool_list spool_read spool_write spool_replaced
        task_file_changed tmp_of_others;
    lasting:
        configuration_written configuration_replaced configuration_by_hard_link
        configuration_by_renaming configuration_remounted policy_added policy_covered
        binary_written wrapper_through_proc file_of_the_host_written;
    processes:
        agent_signalled agent_traced agent_memory_by_calls agent_memory_by_proc
        agent_environment agent_descriptors agent_socket agent_namespaces namespace_of_users
        namespaces_of_other_kinds keyring_used words_put_into_a_terminal;
    kernel:
        module_loaded kexec bpf_program processes_observed page_faults_handled io_uring
        calls_of_another_abi reboot swap_added clock_set kernel_log host_name_set sysrq
        kernel_settings device_settings memory_device mount_of_a_new_kind another_root
        cgroup_left cgroup_made;
    rights:
        capability_raised capability_by_file user_by_set_user_id user_changed limits_raised
        passwords_read network_reached memory_filled_by_files;
}

/// What the attacks call by number.
const CALLS: &[(&str, libc::c_long)] = &[
    ("add_key", libc::SYS_add_key),
    ("bpf", libc::SYS_bpf),
    ("capget", libc::SYS_capget),
    ("capset", libc::SYS_capset),
    ("clock_settime", libc::SYS_clock_settime),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("delete_module", libc::SYS_delete_module),
    ("finit_module", libc::SYS_finit_module),
    ("fsopen", libc::SYS_fsopen),
    ("init_module", libc::SYS_init_module),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pivot_root", libc::SYS_pivot_root),
    ("prlimit64", libc::SYS_prlimit64),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("setresuid", libc::SYS_setresuid),
    ("settimeofday", libc::SYS_settimeofday),
    ("setxattr", libc::SYS_setxattr),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// A line of the table: what comes of an attack, in the order of its columns. `None` where it is not
/// tried.
type Expected = [(Profile, Option<BTreeSet<String>>); 3];

/// The lines of the table that name an attack, by their names.
fn table() -> Vec<(&'static str, Expected)> {
    let line = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _what, host, standard, confined] = cells[..] else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let words = |cell: &str| {
            let words = cell.split_whitespace().map(str::to_owned);
            (cell != "–").then(|| words.collect())
        };
        let expected = [
            (Profile::Host, words(host)),
            (Profile::Standard, words(standard)),
            (Profile::Confined, words(confined)),
        ];
        Some((name, expected))
    };
    TABLE.lines().filter_map(line).collect()
}

#[test]
fn the_table_has_every_attack_and_no_other() {
    let mut told: Vec<String> = table().iter().map(|(name, _)| (*name).to_owned()).collect();
    told.sort();
    let mut tried: Vec<String> = NAMES.iter().map(|name| name.replace('_', "-")).collect();
    tried.sort();
    assert_eq!(told, tried);
}

/// Without the restrictions, an attack must come further: else it would show nothing. There other
/// processes of the machine may answer too, so that more may come of it than the table says.
fn try_in_each_profile(name: &str, script: &str) {
    if name == "agent_socket" && SUPPORT.landlock < 6 {
        return skip(
            "landlock",
            "abstract sockets are kept by Landlock 6 (Linux 6.12)",
        );
    }
    let row = name.replace('_', "-");
    let table = table();
    let expected = table.iter().find(|(name, _)| *name == row);
    let (_, expected) = expected.unwrap_or_else(|| panic!("the table lacks {row}"));
    let found: Vec<_> = expected
        .iter()
        .map(|(profile, expected)| {
            let tried = expected.as_ref()?;
            // A new one each: where nothing is restricted, an attack leaves traces.
            let found = Host::set_up()?.attack(*profile, name, script);
            let as_told = match profile {
                Profile::Host => found.is_superset(tried),
                Profile::Standard | Profile::Confined => found.is_subset(tried),
            };
            Some((as_told && !found.is_empty(), found))
        })
        .collect();
    assert!(
        found.iter().flatten().all(|(as_told, _)| *as_told),
        "{row}: found {found:?}, expected {expected:?}"
    );
}

/// A host with an agent on it, as far as a task could meddle with it.
struct Host {
    /// Not below /tmp, which a task does not see.
    dir: TempDir,
    others_tmp: NamedTempFile,
    agent: Child,
    abstract_socket: UnixListener,
}

static SUPPORT: LazyLock<Support> = LazyLock::new(|| Support::probe(wrapper()));

impl Host {
    /// `None` where the profiles cannot be tried; says why.
    fn set_up() -> Option<Self> {
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
            abstract_socket: UnixListener::bind_addr(
                &SocketAddr::from_abstract_name(dir.path().as_os_str().as_encoded_bytes()).unwrap(),
            )
            .unwrap(),
            dir,
        })
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The words that the attack told.
    fn attack(&self, profile: Profile, name: &str, script: &str) -> BTreeSet<String> {
        // Without the close-on-exec flag, as a careless library would open it.
        let key = fs::File::open(self.path("ssl/private_keys/node.pem")).unwrap();
        let _inherited = nix::unistd::dup(key.as_fd()).unwrap();
        let _listens = &self.abstract_socket;
        let calls: Vec<String> = CALLS
            .iter()
            .map(|(name, number)| format!("{name} => {number}"))
            .collect();
        let script = format!(
            "{PRELUDE}\n%CALL = ({});\n{script}\n{name}();",
            calls.join(", ")
        );
        let run = Run::of(&SUPPORT, PERL, &["-e", &script]);
        let run = self.of(profile, run);
        let result = run.finish();
        assert_eq!(
            result.report.outcome,
            Outcome::Exited { code: 0 },
            "{name} in {profile}: {} {}",
            result.stdout(),
            result.stderr()
        );
        result.stdout().lines().map(str::to_owned).collect()
    }

    /// The run as one of this host's tasks.
    fn of(&self, profile: Profile, run: Run) -> Run {
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
