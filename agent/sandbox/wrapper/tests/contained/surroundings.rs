//! What a task finds around it: exactly what it was given.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sandbox::{Outcome, RunDir};

use crate::bed::{Run, helper, in_each_containment};

#[test]
fn the_environment_is_exactly_what_was_given() {
    in_each_containment(|support| {
        let run = Run::of(support, "/usr/bin/env", &["-0"]).with(|run| {
            run.environment = vec![
                ("PATH".to_owned(), "/usr/bin".to_owned()),
                ("LANG".to_owned(), "C".to_owned()),
            ];
            run.delivery.environment = vec![
                ("PT_secret".into(), "line one\nline two".into()),
                ("LANG".into(), "C.UTF-8".into()),
                ("PT_empty".into(), "".into()),
            ];
        });
        let result = run.finish();
        assert_eq!(
            result.stdout(),
            "LANG=C.UTF-8\0PATH=/usr/bin\0PT_empty=\0PT_secret=line one\nline two\0"
        );
    });
}

#[test]
fn delivered_arguments_come_behind_those_of_the_plan() {
    in_each_containment(|support| {
        let run = Run::of(support, "/usr/bin/printf", &["[%s]", "a b"])
            .with(|run| run.delivery.arguments = vec!["c\nd".into(), "".into(), "é".into()]);
        assert_eq!(run.finish().stdout(), "[a b][c\nd][][é]");
    });
}

#[test]
fn what_is_delivered_is_nowhere_on_disk() {
    in_each_containment(|support| {
        let run = Run::sh(support, ": >up; while [ ! -e on ]; do sleep 0.01; done").with(|run| {
            run.delivery.environment = vec![("PT_x".into(), "a-secret-value".into())];
            run.delivery.arguments = vec!["a-secret-value".into()];
            run.delivery.stdin = b"a-secret-value".to_vec();
        });
        let alive = run.start();
        run.await_file("up");
        let mut seen = 0;
        for entry in fs::read_dir(run.dir.path()).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                let content = fs::read(entry.path()).unwrap();
                assert!(
                    !content
                        .windows(14)
                        .any(|window| window == b"a-secret-value")
                );
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0);
                seen += 1;
            }
        }
        assert!(seen >= 5, "plan, report, output and log are there: {seen}");
        let wrapper = fs::read(format!("/proc/{}/cmdline", run.wrapper_pid())).unwrap();
        assert!(
            !wrapper
                .windows(14)
                .any(|window| window == b"a-secret-value")
        );
        fs::write(run.file("on"), "").unwrap();
        assert_eq!(alive.finish().unwrap().outcome, Outcome::Exited { code: 0 });
    });
}

#[test]
fn a_task_has_three_descriptors_whatever_the_starter_left_open() {
    in_each_containment(|support| {
        // Without the close-on-exec flag, as a careless library would open it.
        let leak = fs::File::open("/dev/null").unwrap();
        let leak = nix::unistd::dup(&leak).unwrap();
        let run = Run::of(support, "/bin/ls", &["/proc/self/fd"]);
        let result = run.finish();
        drop(leak);
        // The fourth is the directory that ls reads.
        assert_eq!(result.stdout(), "0\n1\n2\n3\n", "{}", result.stderr());
    });
}

#[test]
fn a_task_cannot_write_to_what_tells_the_wrappers_life() {
    in_each_containment(|support| {
        let script =
            "for n in 0 1 2; do readlink /proc/self/fd/$n; done; echo x >&3 || echo closed";
        let run = Run::sh(support, script);
        let result = run.finish();
        let lines: Vec<_> = result.stdout().lines().collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(
            lines[..3].iter().all(|line| line.starts_with("pipe:")),
            "{lines:?}"
        );
        assert_eq!(lines[3], "closed");
    });
}

#[test]
fn process_one_of_a_namespace_holds_nothing_of_the_run() {
    in_each_containment(|support| {
        if run_has_no_init(support) {
            return;
        }
        let script = "ls -l /proc/1/fd; exit 0";
        let result = Run::sh(support, script).finish();
        // An ordinary user's process 1 may be closed to it: then there is nothing to see.
        let text = result.stdout();
        assert!(
            !text.contains("alive") && !text.contains("control"),
            "{text}"
        );
        assert!(
            !text.contains("stdout") && !text.contains("report.json"),
            "{text}"
        );
        assert!(
            !text.contains("wrapper.log") && !text.contains("timerfd"),
            "{text}"
        );
    });
}

fn run_has_no_init(support: &sandbox::Support) -> bool {
    matches!(support.cgroup, sandbox::Facility::Available(_))
}

#[test]
fn a_task_leads_its_own_session_with_every_signal_at_its_default() {
    in_each_containment(|support| {
        let script = "read pid name state parent group session rest </proc/$$/stat
            [ $pid = $group ] && [ $pid = $session ] && echo leader
            cat /proc/self/status";
        let result = Run::sh(support, script).finish();
        let text = result.stdout();
        assert!(text.starts_with("leader\n"), "{text}");
        for set in ["SigBlk", "SigIgn", "SigCgt"] {
            assert!(
                text.contains(&format!("{set}:\t0000000000000000\n")),
                "{set} in {text}"
            );
        }
    });
}

#[test]
fn a_task_starts_in_its_working_directory() {
    in_each_containment(|support| {
        let run = Run::of(support, "/bin/pwd", &["-P"]);
        let expected = fs::canonicalize(run.home.path()).unwrap();
        assert_eq!(run.finish().stdout().trim_end(), expected.to_str().unwrap());
    });
}

#[test]
fn arguments_arrive_as_they_are() {
    in_each_containment(|support| {
        let run = Run::of(
            support,
            "/usr/bin/printf",
            &["[%s]", "", "two words", "*", "a\nb"],
        );
        assert_eq!(run.finish().stdout(), "[][two words][*][a\nb]");
    });
}

#[test]
fn a_pid_namespace_shows_only_its_own_processes() {
    in_each_containment(|support| {
        if run_has_no_init(support) {
            return;
        }
        let result = Run::sh(support, "echo /proc/[0-9]*; grep -c ' /proc ' /proc/mounts").finish();
        let text = result.stdout();
        let processes = text.lines().next().unwrap().split(' ').count();
        assert_eq!(processes, 2, "process 1 and the shell: {text}");
    });
}

#[test]
fn the_umask_is_the_starters() {
    in_each_containment(|support| {
        let run = Run::sh(support, "umask");
        let variables = BTreeMap::from([
            ("CONTAINED_DIR", run.dir.path().display().to_string()),
            (
                "CONTAINED_PLAN",
                String::from_utf8(run.plan().encode().unwrap()).unwrap(),
            ),
        ]);
        let status = helper("surroundings::helper_runs_a_plan_to_its_end", &variables)
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(
            run.result(run.dir.report().unwrap().unwrap()).stdout(),
            "0027\n"
        );
    });
}

/// Does nothing unless it is asked to by [`the_umask_is_the_starters`].
#[test]
fn helper_runs_a_plan_to_its_end() {
    let Ok(dir) = std::env::var("CONTAINED_DIR") else {
        return;
    };
    let plan = sandbox::Plan::decode(std::env::var("CONTAINED_PLAN").unwrap().as_bytes()).unwrap();
    let dir = RunDir::new(PathBuf::from(dir));
    let delivery = sandbox::Delivery::default();
    sandbox::start(crate::bed::launcher(), &plan, &dir, &delivery)
        .unwrap()
        .finish()
        .unwrap();
}
