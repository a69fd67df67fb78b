//! The process that makes wrappers: it comes and goes, and runs know nothing of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Alive, Launcher, Outcome};

use crate::bed::{Run, in_each_containment, wait_until, wrapper};

fn start(launcher: &Launcher, run: &Run) -> Alive {
    sandbox::start(launcher, &run.plan(), &run.dir, &run.delivery).unwrap()
}

/// The processes that have this directory in their command line, as a launcher and its wrappers do.
fn processes(owner: &Path) -> Vec<Pid> {
    let owner = owner.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let named = line.split(|byte| *byte == 0).any(|word| word == owner);
        named.then_some(Pid::from_raw(pid))
    });
    pids.collect()
}

const WAITS: &str = ": >up; while [ ! -e on ]; do sleep 0.01; done";

#[test]
fn a_launcher_that_was_killed_is_replaced_and_what_it_made_goes_on() {
    in_each_containment(|support| {
        let owner = tempfile::tempdir().unwrap();
        let launcher = Launcher::new(wrapper().to_owned(), owner.path().to_owned());
        assert!(
            launcher.rest(Duration::ZERO),
            "none is there before it is needed"
        );
        let first = Run::sh(support, WAITS);
        let alive = start(&launcher, &first);
        first.await_file("up");
        let own = format!("PPid:\t{}\n", std::process::id());
        let launchers: Vec<_> = processes(owner.path())
            .into_iter()
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/status"))
                    .is_ok_and(|status| status.contains(&own))
            })
            .collect();
        assert_eq!(launchers.len(), 1);
        kill(launchers[0], Signal::SIGKILL).unwrap();
        assert!(!alive.ended().unwrap());
        let second = Run::sh(support, "exit 3");
        // What it is told before its end is seen may be lost with it, and is told as that.
        wait_until("another launcher is at work", || {
            let run = Run::sh(support, "exit 0");
            start(&launcher, &run).finish().is_ok()
        });
        let report = start(&launcher, &second).finish().unwrap();
        assert_eq!(report.outcome, Outcome::Exited { code: 3 });
        fs::write(first.file("on"), "").unwrap();
        assert_eq!(alive.finish().unwrap().outcome, Outcome::Exited { code: 0 });
    });
}

#[test]
fn a_launcher_rests_when_it_is_told_to_and_ends_with_its_starter() {
    in_each_containment(|support| {
        let owner = tempfile::tempdir().unwrap();
        let launcher = Launcher::new(wrapper().to_owned(), owner.path().to_owned());
        let run = Run::sh(support, WAITS);
        let alive = start(&launcher, &run);
        run.await_file("up");
        assert!(
            !launcher.rest(Duration::from_secs(3600)),
            "it was used just now"
        );
        assert!(launcher.rest(Duration::ZERO));
        fs::write(run.file("on"), "").unwrap();
        assert_eq!(alive.finish().unwrap().outcome, Outcome::Exited { code: 0 });
        let again = Run::sh(support, "exit 3");
        let report = start(&launcher, &again).finish().unwrap();
        assert_eq!(report.outcome, Outcome::Exited { code: 3 });
        drop(launcher);
        wait_until("nothing is left of it", || {
            processes(owner.path()).is_empty()
        });
    });
}
