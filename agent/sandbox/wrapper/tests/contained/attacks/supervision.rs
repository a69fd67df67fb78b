//! Attacks on what ends a task: each comes to the same in every profile that restricts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use sandbox::{Outcome, Profile};

use crate::bed::{Result, Run, wait_until};
use crate::host::{Host, SUPPORT};

/// Bytes of each stream that are kept.
const OUTPUT_LIMIT: u64 = 65536;

/// A FIFO that the processes of a task hold open, for reading: a `confined` task writes to nothing.
struct Readers {
    path: PathBuf,
    /// While it is open, others need not wait for a writer.
    both: File,
}

impl Readers {
    fn of(path: &Path) -> Self {
        nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        let both = OpenOptions::new().read(true).write(true).open(path);
        Self {
            path: path.to_owned(),
            both: both.unwrap(),
        }
    }

    /// Fails if a process keeps it open. One that another test of this process starts just now has it
    /// for a moment, so more than one look is taken.
    fn assert_all_gone(self) {
        let nonblocking = OFlag::O_NONBLOCK.bits();
        let writer = OpenOptions::new()
            .write(true)
            .custom_flags(nonblocking)
            .open(&self.path);
        let mut writer = writer.unwrap();
        drop(self.both);
        wait_until("no process of the task is left", || {
            let written = writer.write(b"x");
            matches!(written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe)
        });
    }
}

/// How a run is ended from outside.
#[derive(Clone, Copy)]
enum By {
    /// Not at all.
    Itself,
    /// As soon as it has printed something.
    Wish,
    /// At its time limit.
    Time,
}

/// What a run of this script comes to in a profile, nothing of which is left afterwards. Its
/// descriptor 9 is the witness of that.
fn ends(script: &str, by: By, expected: fn(&Result)) {
    for profile in [Profile::Standard, Profile::Confined] {
        let Some(host) = Host::set_up() else { return };
        let witness = Readers::of(&host.path("free/witness"));
        let script = format!("exec 9<\"$FREE/witness\"; {script}");
        let run = Run::sh(&SUPPORT, &script);
        let run = host.of(profile, run).with(|run| {
            run.policy.limits.output = OUTPUT_LIMIT;
            run.policy.limits.grace = Duration::from_millis(100);
            if matches!(by, By::Time) {
                run.policy.limits.time = Duration::from_secs(3);
            }
        });
        let alive = run.start();
        if matches!(by, By::Wish) {
            let printed = || fs::metadata(run.dir.stdout()).is_ok_and(|file| file.len() > 0);
            wait_until("the task prints something", printed);
            assert!(sandbox::stop(&run.dir).unwrap());
        }
        let result = run.result(alive.finish().unwrap());
        witness.assert_all_gone();
        assert_eq!(result.report.usage.profile, Some(profile));
        expected(&result);
    }
}

fn exited_7(result: &Result) {
    assert_eq!(result.report.outcome, Outcome::Exited { code: 7 });
}

fn was_stopped(result: &Result) {
    assert_eq!(result.report.outcome, Outcome::Stopped);
}

#[test]
fn fork_bomb() {
    // Each chain starts its successor and ends: no number that was read is still one of theirs.
    let script = "chain() { chain & exit; }
        for n in 1 2 3 4 5 6 7 8; do chain & done
        echo up; sleep 1000";
    ends(script, By::Wish, was_stopped);
}

#[test]
fn output_bomb() {
    ends(
        "head -c 67108864 /dev/zero; echo kept >&2",
        By::Itself,
        |result| {
            assert_eq!(result.report.outcome, Outcome::Exited { code: 0 });
            assert_eq!(result.report.stdout_bytes, 67_108_864);
            assert!(result.report.stdout_truncated);
            assert!(result.stdout.len() < 131_072, "{}", result.stdout.len());
            assert_eq!(result.stderr(), "kept\n");
        },
    );
}

#[test]
fn daemon_left_behind() {
    let script = "(setsid sh -c '(setsid sh -c \"trap : TERM HUP INT; echo up; exec >&- 2>&-
        while :; do sleep 1000; done\" &) ; exit' &)
        read -r line < /dev/null; exit 7";
    ends(script, By::Itself, exited_7);
}

#[test]
fn wish_to_end_ignored() {
    let script = "trap '' TERM HUP INT QUIT; echo up; while :; do sleep 1000; done";
    ends(script, By::Wish, was_stopped);
}

#[test]
fn time_limit_evaded() {
    // Everything that can be is stopped: what counts the time must not be among it.
    let script = "setsid sleep 1000 & kill -STOP 1 2>/dev/null; echo up; kill -STOP -1 $$";
    ends(script, By::Time, |result| {
        assert_eq!(result.report.outcome, Outcome::TimedOut);
        assert_eq!(result.stdout(), "up\n", "{}", result.stderr());
    });
}

#[test]
fn process_one_killed() {
    // The kernel does not let a namespace kill its own process 1; as nobody it may not even try.
    let script = "for signal in KILL STOP SEGV TERM; do kill -$signal 1; done 2>/dev/null; exit 7";
    ends(script, By::Itself, exited_7);
}
