//! Views that are prepared before there is a task: used by the next run that is like the last, and only while
//! they are what would be made now. What is not so is found before a task runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Launcher, Outcome, Profile};
use tempfile::TempDir;

use crate::bed::{Result, Run, wait_until, wrapper};
use crate::host::{Host, SUPPORT};

/// Runs one after the other, by a launcher of their own.
pub(crate) struct Row {
    launcher: Launcher,
    owner: TempDir,
}

/// A process 1 that waits for its task.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) init: Pid,
    spare: Pid,
    namespace: String,
    /// Keeps the namespace's number from passing to another.
    _held: fs::File,
}

impl Row {
    pub(crate) fn new() -> Self {
        let owner = tempfile::tempdir().unwrap();
        Self {
            launcher: Launcher::new(wrapper().to_owned(), owner.path().to_owned()),
            owner,
        }
    }

    /// A run that does nothing, and the view that is prepared for the next one like it.
    pub(crate) fn begin(&self, host: &Host, profile: Profile) -> Waiting {
        let first = self.finish(&host.of(profile, Run::sh(&SUPPORT, "exit 0")));
        assert_eq!(first.report.outcome, Outcome::Exited { code: 0 });
        self.waiting()
    }

    pub(crate) fn finish(&self, run: &Run) -> Result {
        let alive = sandbox::start(&self.launcher, &run.plan(), &run.dir, &run.delivery).unwrap();
        run.result(alive.finish().unwrap())
    }

    /// Waits until a view is prepared.
    fn waiting(&self) -> Waiting {
        let mut found = None;
        wait_until("a view is prepared", || {
            found = self.prepared().into_iter().next();
            found.is_some()
        });
        found.unwrap()
    }

    fn waits(&self, one: &Waiting) -> bool {
        self.prepared().iter().any(|other| other.init == one.init)
    }

    /// All that wait.
    fn prepared(&self) -> Vec<Waiting> {
        let owner = self.owner.path().as_os_str().as_encoded_bytes();
        let ours = |pid: &Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == owner)
        };
        let own = fs::read_link("/proc/self/ns/pid").unwrap();
        let me = Pid::this();
        let mut found = Vec::new();
        for launcher in children(me).into_iter().filter(ours) {
            for spare in children(launcher) {
                for init in children(spare) {
                    let of = |kind| format!("/proc/{init}/ns/{kind}");
                    let name = |kind| fs::read_link(of(kind));
                    if let (Ok(pids), Ok(held), Ok(mounts)) =
                        (name("pid"), fs::File::open(of("mnt")), name("mnt"))
                        && pids != own
                    {
                        found.push(Waiting {
                            init,
                            spare,
                            namespace: mounts.to_str().unwrap().to_owned(),
                            _held: held,
                        });
                    }
                }
            }
        }
        found
    }
}

fn children(of: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:\t"))?;
        (parent == of.to_string()).then_some(Pid::from_raw(pid))
    });
    found.collect()
}

const NAMESPACE: &str = "readlink /proc/self/ns/mnt\n";

/// A run of the script; whether it was in the view that waited, and what it printed.
fn next(
    row: &Row,
    host: &Host,
    profile: Profile,
    waited: &Waiting,
    script: &str,
) -> (bool, String) {
    let run = host.of(profile, Run::sh(&SUPPORT, &format!("{NAMESPACE}{script}")));
    outcome(&row.finish(&run), waited)
}

fn outcome(result: &Result, waited: &Waiting) -> (bool, String) {
    let (namespace, rest) = result.stdout().split_once('\n').unwrap();
    (
        namespace == waited.namespace,
        format!("{rest}{}", result.stderr()),
    )
}

const PROFILES: [Profile; 2] = [Profile::Standard, Profile::Confined];

#[test]
fn a_run_like_the_last_has_a_view_of_its_own_that_was_prepared() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let row = Row::new();
        let waited = row.begin(&host, profile);
        let script =
            "cat \"$OWN\"; echo; echo left >/tmp/left; ls -a /tmp; cat \"$KEY\" 2>&-; exit 3";
        let (prepared, printed) = next(&row, &host, profile, &waited, script);
        assert!(prepared);
        assert_eq!(printed, "content\n.\n..\nleft\n");
        let second = row.waiting();
        assert_ne!(waited.namespace, second.namespace, "each is used once");
        let (prepared, printed) = next(&row, &host, profile, &second, "ls /tmp; ls /dev/pts");
        assert!(prepared);
        assert_eq!(printed, "ptmx\n", "nothing of the run before is there");
    }
}

#[test]
fn a_run_that_may_do_less_is_not_in_a_view_that_was_prepared_for_others() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let row = Row::new();
        let waited = row.begin(&host, profile);
        let run = Run::sh(
            &SUPPORT,
            &format!("{NAMESPACE}cat \"$BINARY\" 2>&- || echo no"),
        );
        let run = host.of(profile, run).with(|run| {
            run.policy.paths.hidden.push(host.path("pxp-agent/bin"));
        });
        assert_eq!(
            outcome(&row.finish(&run), &waited),
            (false, "no\n".to_owned())
        );
    }
}

/// Something happens on the host while the view waits; the key is hidden and the policy read-only all the
/// same, at all their paths.
fn kept_after(change: impl Fn(&Host), script: &str, expected: &str) {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let row = Row::new();
        let waited = row.begin(&host, profile);
        change(&host);
        let (prepared, printed) = next(&row, &host, profile, &waited, script);
        assert!(!prepared, "the view of before was used");
        assert_eq!(printed, expected, "{profile}");
        // From the other side: it is the view that keeps it, and one of after has nothing to be made anew for.
        let waited = row.waiting();
        let (prepared, printed) = next(&row, &host, profile, &waited, script);
        assert!(prepared);
        assert_eq!(printed, expected, "{profile}");
    }
}

const READ_KEY: &str = "cat \"$KEY\" 2>&- || echo hidden";

#[test]
fn a_protected_directory_that_was_replaced_is_hidden() {
    let replace = |host: &Host| {
        let keys = host.path("ssl/private_keys");
        fs::rename(&keys, host.path("ssl/old")).unwrap();
        fs::create_dir(&keys).unwrap();
        fs::write(keys.join("node.pem"), "new").unwrap();
        fs::remove_dir_all(host.path("ssl/old")).unwrap();
    };
    kept_after(replace, READ_KEY, "hidden\n");
}

#[test]
fn a_directory_above_a_protected_one_that_was_replaced_changes_nothing() {
    // The very files, below other directories: no number tells them from those of before.
    let replace = |host: &Host| {
        let (ssl, old) = (host.path("ssl"), host.path("ssl-old"));
        fs::rename(&ssl, &old).unwrap();
        fs::create_dir(&ssl).unwrap();
        fs::rename(old.join("private_keys"), ssl.join("private_keys")).unwrap();
    };
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let row = Row::new();
        let waited = row.begin(&host, profile);
        replace(&host);
        // Whether what is mounted over it has moved along is the kernel's to say.
        let (_, printed) = next(&row, &host, profile, &waited, READ_KEY);
        assert_eq!(printed, "hidden\n");
    }
}

#[test]
fn a_protected_file_that_is_the_same_under_a_new_name_is_hidden() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let key = host.path("ssl/private_keys/node.pem");
        let of = |run: Run| {
            host.of(profile, run).with(|run| {
                let hidden = &mut run.policy.paths.hidden;
                hidden.retain(|path| !path.ends_with("private_keys"));
                hidden.push(key.clone());
            })
        };
        let row = Row::new();
        row.finish(&of(Run::sh(&SUPPORT, "exit 0")));
        let waited = row.waiting();
        // Device and inode number stay, and what the kernel had mounted over the name is gone with it.
        let other = host.path("ssl/other");
        fs::hard_link(&key, &other).unwrap();
        fs::remove_file(&key).unwrap();
        fs::rename(&other, &key).unwrap();
        let run = of(Run::sh(&SUPPORT, &format!("{NAMESPACE}{READ_KEY}")));
        assert_eq!(
            outcome(&row.finish(&run), &waited),
            (false, "hidden\n".to_owned())
        );
    }
}

#[test]
fn a_file_that_was_replaced_by_a_rename_is_read_only_and_the_new_one() {
    let replace = |host: &Host| {
        let bin = host.path("pxp-agent/bin");
        fs::rename(&bin, host.path("pxp-agent/old")).unwrap();
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("pxp-agent"), "new").unwrap();
    };
    let script = "cat \"$BINARY\"; echo; (echo bad >\"$BINARY\") 2>&- || echo kept";
    kept_after(replace, script, "new\nkept\n");
}

#[test]
fn what_comes_to_be_at_a_protected_path_is_protected() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let of = |run: Run| {
            host.of(profile, run).with(|run| {
                let paths = &mut run.policy.paths;
                paths.hidden.push(host.path("free/secret"));
                paths.read_only.push(host.path("free/rules"));
            })
        };
        let row = Row::new();
        row.finish(&of(Run::sh(&SUPPORT, "exit 0")));
        let waited = row.waiting();
        for name in ["free/secret", "free/rules"] {
            fs::write(host.path(name), "content").unwrap();
        }
        let script = "cat \"$FREE/secret\" 2>&- || echo hidden\n\
                      (echo x >\"$FREE/rules\") 2>&- || echo kept";
        let run = of(Run::sh(&SUPPORT, &format!("{NAMESPACE}{script}")));
        assert_eq!(
            outcome(&row.finish(&run), &waited),
            (false, "hidden\nkept\n".to_owned())
        );
    }
}

#[test]
fn a_protected_path_that_becomes_a_link_is_followed() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        let of = |run: Run| {
            host.of(profile, run).with(|run| {
                run.policy.paths.hidden.push(host.path("free/secrets"));
            })
        };
        fs::create_dir(host.path("free/secrets")).unwrap();
        fs::create_dir(host.path("free/behind")).unwrap();
        fs::write(host.path("free/behind/x"), "content").unwrap();
        let row = Row::new();
        row.finish(&of(Run::sh(&SUPPORT, "exit 0")));
        let waited = row.waiting();
        fs::remove_dir(host.path("free/secrets")).unwrap();
        symlink(host.path("free/behind"), host.path("free/secrets")).unwrap();
        let script = "cat \"$FREE/behind/x\" 2>&- || echo hidden";
        let run = of(Run::sh(&SUPPORT, &format!("{NAMESPACE}{script}")));
        assert_eq!(
            outcome(&row.finish(&run), &waited),
            (false, "hidden\n".to_owned())
        );
    }
}

#[test]
fn what_is_mounted_meanwhile_opens_no_other_way_and_ends_the_wait() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        // The host of this test alone, whose mounts are nobody else's.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&Path>;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, Path::new("/"), none, flags, none).unwrap();
        mount(none, Path::new("/"), none, MsFlags::MS_SHARED, none).unwrap();
        let row = Row::new();
        let waited = row.begin(&host, profile);
        let alias = host.path("free/alias");
        fs::create_dir(&alias).unwrap();
        let keys = host.path("ssl/private_keys");
        mount(Some(&keys), &alias, none, MsFlags::MS_BIND, none).unwrap();
        wait_until("the view is given up", || !row.waits(&waited));
        let script = "cat \"$FREE/alias/node.pem\" 2>&- || echo hidden";
        let (prepared, printed) = next(&row, &host, profile, &waited, script);
        assert!(!prepared);
        assert_eq!(printed, "hidden\n");
        nix::mount::umount(&alias).unwrap();
    }
}

#[test]
fn a_host_that_gets_another_name_is_known_by_it() {
    const NAME: &str = "/proc/sys/kernel/hostname";
    let Some(host) = Host::set_up() else { return };
    // A name of this test's own.
    unshare(CloneFlags::CLONE_NEWUTS).unwrap();
    fs::write(NAME, "before").unwrap();
    let row = Row::new();
    let profile = Profile::Confined;
    let waited = row.begin(&host, profile);
    let (prepared, printed) = next(&row, &host, profile, &waited, "uname -n");
    assert_eq!((prepared, printed.as_str()), (true, "before\n"));
    let waited = row.waiting();
    fs::write(NAME, "after").unwrap();
    let (prepared, printed) = next(&row, &host, profile, &waited, "uname -n");
    assert_eq!((prepared, printed.as_str()), (false, "after\n"));
}

#[test]
fn what_is_killed_while_it_waits_costs_the_next_run_nothing() {
    for profile in PROFILES {
        let Some(host) = Host::set_up() else { return };
        for who in [
            |waited: &Waiting| waited.init,
            |waited: &Waiting| waited.spare,
        ] {
            let row = Row::new();
            let waited = row.begin(&host, profile);
            kill(who(&waited), Signal::SIGKILL).unwrap();
            wait_until("it has ended", || !row.waits(&waited));
            let (prepared, printed) = next(&row, &host, profile, &waited, READ_KEY);
            assert!(!prepared);
            assert_eq!(printed, "hidden\n");
        }
    }
}

#[test]
fn what_waits_and_does_not_answer_is_passed_over_and_runs_nothing() {
    let Some(host) = Host::set_up() else { return };
    let row = Row::new();
    let waited = row.begin(&host, Profile::Standard);
    kill(waited.init, Signal::SIGSTOP).unwrap();
    let script = "echo run >>\"$FREE/runs\"";
    let (prepared, printed) = next(&row, &host, Profile::Standard, &waited, script);
    assert!(!prepared);
    assert_eq!(printed, "");
    kill(waited.init, Signal::SIGCONT).ok();
    wait_until("it has ended", || !row.waits(&waited));
    assert_eq!(fs::read_to_string(host.path("free/runs")).unwrap(), "run\n");
}

#[test]
fn nothing_waits_on_without_its_launcher() {
    let Some(host) = Host::set_up() else { return };
    let row = Row::new();
    let waited = row.begin(&host, Profile::Standard);
    let there = |pid: Pid| PathBuf::from(format!("/proc/{pid}/ns/mnt")).exists();
    drop(row);
    wait_until("it has ended", || {
        !there(waited.init) && !there(waited.spare)
    });
}
