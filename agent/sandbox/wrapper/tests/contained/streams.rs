//! The three streams of a task.

use std::fs;

use sandbox::Outcome;
use sandbox::output::{Output, Stream};

use crate::bed::{Run, in_each_containment, skip};

/// Every byte value, often enough to fill pipes several times.
fn every_byte(length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (place * 7 + place / 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn output_arrives_byte_for_byte() {
    in_each_containment(|support| {
        let run = Run::sh(support, "cat; printf 'a\\0b\\377' >&2")
            .with(|run| run.delivery.stdin = every_byte(300_000));
        let result = run.finish();
        assert_eq!(result.report.outcome, Outcome::Exited { code: 0 });
        assert!(result.stdout == every_byte(300_000), "stdout differs");
        assert_eq!(result.stderr, b"a\0b\xff");
        assert_eq!(
            (result.report.stdout_bytes, result.report.stderr_bytes),
            (300_000, 4)
        );
        assert!(!result.report.stdout_truncated && !result.report.stderr_truncated);
    });
}

#[test]
fn of_output_above_the_limit_head_and_tail_are_kept_and_the_task_is_not_stopped() {
    in_each_containment(|support| {
        let script = "seq 1000000; echo done >&2";
        let run = Run::sh(support, script).with(|run| run.policy.limits.output = 1000);
        let whole = (1..=1_000_000)
            .map(|n| format!("{n}\n"))
            .collect::<String>();
        let total = whole.len() as u64;
        let result = run.finish();
        assert_eq!(result.report.outcome, Outcome::Exited { code: 0 });
        assert_eq!(result.report.stdout_bytes, total);
        assert!(result.report.stdout_truncated);
        assert_eq!(result.stderr(), "done\n");
        assert!(!result.report.stderr_truncated);
        assert_eq!(result.report.output_error, None);
        let output = Output::of(&run.dir, Stream::Stdout);
        let kept = output.kept().unwrap();
        assert_eq!((kept[0].offset, kept[0].length), (0, 500));
        let kept_bytes: u64 = kept.iter().map(|kept| kept.length).sum();
        assert!((751..=1000).contains(&kept_bytes), "{kept:?}");
        let last = kept.last().unwrap();
        assert_eq!(last.offset + last.length, total);
        for kept in kept {
            let (offset, end, bytes) = output.read(kept.offset, 1000).unwrap();
            assert_eq!((offset, end), (kept.offset, total));
            let from = usize::try_from(kept.offset).unwrap();
            assert_eq!(bytes, &whole.as_bytes()[from..from + bytes.len()]);
        }
    });
}

#[test]
fn output_of_exactly_the_limit_is_whole() {
    in_each_containment(|support| {
        for limit in [0, 1, 3, 8, 1000] {
            let script = format!("head -c {limit} /dev/zero | tr '\\0' x");
            let run = Run::sh(support, &script).with(|run| run.policy.limits.output = limit);
            let result = run.finish();
            assert!(!result.report.stdout_truncated, "{limit}");
            let output = Output::of(&run.dir, Stream::Stdout);
            let kept: u64 = output.kept().unwrap().iter().map(|k| k.length).sum();
            assert_eq!(kept, limit);
            let run = Run::sh(support, "printf 12345").with(|run| run.policy.limits.output = 3);
            let result = run.finish();
            assert!(result.report.stdout_truncated);
            assert_eq!((result.stdout(), result.report.stdout_bytes), ("123", 5));
        }
    });
}

#[test]
fn output_is_there_while_the_task_runs() {
    in_each_containment(|support| {
        let run = Run::sh(
            support,
            "echo first; while [ ! -e on ]; do sleep 0.01; done; echo last",
        );
        let alive = run.start();
        crate::bed::wait_until("the first line is in the file", || {
            fs::read(run.dir.stdout()).is_ok_and(|bytes| bytes == b"first\n")
        });
        fs::write(run.file("on"), "").unwrap();
        assert_eq!(
            run.result(alive.finish().unwrap()).stdout(),
            "first\nlast\n"
        );
    });
}

#[test]
fn a_mebibyte_of_input_arrives_and_then_the_end() {
    in_each_containment(|support| {
        let run = Run::of(support, "/usr/bin/sha256sum", &[])
            .with(|run| run.delivery.stdin = vec![b'x'; 1 << 20]);
        let result = run.finish();
        assert_eq!(
            result.stdout(),
            "8f990ba0b577b51cf009ea049368c16bbda1b21e1b93be07a824758bb253c39b  -\n"
        );
    });
}

#[test]
fn without_input_there_is_the_end_at_once() {
    in_each_containment(|support| {
        assert_eq!(Run::sh(support, "cat; echo end").finish().stdout(), "end\n");
    });
}

#[test]
fn a_task_may_leave_its_input_unread() {
    in_each_containment(|support| {
        for script in [
            "exit 0",
            "exec 0<&-; sleep 0.1; exit 0",
            "head -c 10 >/dev/null",
        ] {
            let run = Run::sh(support, script).with(|run| run.delivery.stdin = vec![b'x'; 4 << 20]);
            assert_eq!(run.finish().report.outcome, Outcome::Exited { code: 0 });
        }
    });
}

#[test]
fn a_stream_that_somebody_outside_holds_open_is_not_waited_for() {
    in_each_containment(|support| {
        // The test opens the task's own stdout, as a service that was handed it would hold it.
        let run = Run::sh(
            support,
            "echo $$ >pid; echo out; while [ ! -e on ]; do sleep 0.01; done",
        );
        let alive = run.start();
        crate::bed::wait_until("output", || {
            fs::read(run.dir.stdout()).is_ok_and(|b| b == b"out\n")
        });
        let wrapper = run.wrapper_pid();
        let held = held_output(wrapper);
        fs::write(run.file("on"), "").unwrap();
        let result = run.result(alive.finish().unwrap());
        assert_eq!(result.report.outcome, Outcome::Exited { code: 0 });
        drop(held);
    });
}

/// Opens the write end of every pipe that the wrapper reads.
fn held_output(wrapper: i32) -> Vec<fs::File> {
    let descriptors = fs::read_dir(format!("/proc/{wrapper}/fd"))
        .unwrap()
        .flatten();
    let pipes = descriptors.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))
    });
    pipes
        .filter_map(|entry| fs::OpenOptions::new().write(true).open(entry.path()).ok())
        .collect()
}

#[test]
fn a_full_disk_cuts_the_output_with_its_reason_and_still_reports() {
    if !nix::unistd::geteuid().is_root() {
        return skip("root", "a file system of its own cannot be mounted");
    }
    in_each_containment(|support| {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};

        let run = Run::sh(support, "head -c 1000000 /dev/zero; echo done >&2");
        let size = Some("size=128k");
        mount(
            Some("tmpfs"),
            run.dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .unwrap();
        let report = run.start().finish();
        let kept = fs::metadata(run.dir.stdout()).unwrap().len();
        umount2(run.dir.path(), MntFlags::MNT_DETACH).unwrap();
        let report = report.unwrap();
        assert_eq!(report.outcome, Outcome::Exited { code: 0 });
        assert_eq!((report.stdout_bytes, report.stderr_bytes), (1_000_000, 5));
        assert!(report.stdout_truncated);
        assert!(kept > 0 && kept < 128 * 1024, "{kept}");
        let error = report.output_error.unwrap();
        assert!(error.starts_with("No space left on device"), "{error}");
    });
}
