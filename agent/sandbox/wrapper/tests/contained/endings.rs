//! How a task can end, and what its report says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sandbox::Outcome;

use crate::bed::{DEADLINE, Run, Witness, in_each_containment, wait_until};

/// Long enough for the task to run into it, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn exit_codes_are_reported() {
    in_each_containment(|support| {
        for code in [0, 1, 3, 127, 255] {
            let run = Run::sh(support, &format!("exit {code}"));
            let result = run.finish();
            assert_eq!(result.report.outcome, Outcome::Exited { code });
            assert_eq!(result.report.containment, Some(run.containment()));
            assert_eq!((result.stdout(), result.stderr()), ("", ""));
        }
    });
}

#[test]
fn signals_are_reported_real_time_ones_included() {
    in_each_containment(|support| {
        for signal in [9, 15, 11, 40] {
            let result = Run::sh(support, &format!("kill -{signal} $$; exit 1")).finish();
            assert_eq!(result.report.outcome, Outcome::Signaled { signal });
        }
    });
}

#[test]
fn a_program_that_cannot_be_executed_ends_with_127_and_says_why() {
    in_each_containment(|support| {
        let make = |name: &str, content: &str, mode: u32| {
            Run::sh(support, "").with(|run| {
                run.program = run.file(name);
                fs::write(&run.program, content).unwrap();
                fs::set_permissions(&run.program, PermissionsExt::from_mode(mode)).unwrap();
            })
        };
        let missing = Run::of(support, "/nonexistent/task", &[]);
        let cases = [
            (missing, "No such file or directory"),
            (make("plain", "#!/bin/sh\n", 0o644), "Permission denied"),
            (
                make("strange", "#!/no/such/ruby\n", 0o755),
                "the interpreter that it names is missing",
            ),
            (
                make("bare", "echo x\n", 0o755),
                "it is no program for this machine and has no #! line",
            ),
        ];
        for (run, reason) in cases {
            let result = run.finish();
            assert_eq!(result.report.outcome, Outcome::Exited { code: 127 });
            let program = run.program.display();
            let expected = format!("execution-wrapper: cannot execute {program}: {reason}\n");
            assert_eq!(result.stderr(), expected);
        }
    });
}

#[test]
fn a_missing_working_directory_fails_the_step_of_that_name() {
    in_each_containment(|support| {
        let run = Run::sh(support, "echo ran")
            .with(|run| run.working_directory = "/nonexistent/place".into());
        let result = run.finish();
        let Outcome::SetupFailed { step, error } = &result.report.outcome else {
            panic!("{:?}", result.report)
        };
        assert_eq!(step, "working-directory");
        assert!(
            error.starts_with("/nonexistent/place: No such file or directory"),
            "{error}"
        );
        assert_eq!(result.stdout(), "");
    });
}

#[test]
fn the_time_limit_kills_a_task_that_ignores_term() {
    in_each_containment(|support| {
        let script = "trap '' TERM HUP INT; exec 9>witness; sleep 1000 & sleep 1000; sleep 1000";
        let run = Run::sh(support, script).with(|run| {
            run.policy.limits.time = SHORT;
            run.policy.limits.grace = SHORT;
        });
        let witness = Witness::new(&run);
        let result = run.finish();
        assert_eq!(result.report.outcome, Outcome::TimedOut);
        assert!(witness.all_gone());
        let took = Duration::from_millis(result.report.duration_ms);
        assert!(took >= SHORT * 2 && took < DEADLINE, "{took:?}");
    });
}

#[test]
fn a_task_that_obeys_term_has_its_grace_children_included() {
    in_each_containment(|support| {
        // The main process ends of the signal at once; its child takes the time to clean up.
        let script =
            "sh -c 'trap \"echo cleaned; exit\" TERM; : >up; while :; do sleep 0.01; done' &
            wait";
        let run = Run::sh(support, script);
        let alive = run.start();
        run.await_file("up");
        assert!(sandbox::stop(&run.dir).unwrap());
        let result = run.result(alive.finish().unwrap());
        assert_eq!(result.report.outcome, Outcome::Stopped);
        assert_eq!(result.stdout(), "cleaned\n");
    });
}

#[test]
fn stop_ends_the_whole_tree_after_the_grace() {
    in_each_containment(|support| {
        let script = "exec 9>witness; trap '' TERM; (setsid sleep 1000 &) ; : >up; sleep 1000";
        let run = Run::sh(support, script).with(|run| run.policy.limits.grace = SHORT);
        let witness = Witness::new(&run);
        let alive = run.start();
        run.await_file("up");
        assert!(!alive.ended().unwrap());
        // Asking twice is no harm.
        assert!(sandbox::stop(&run.dir).unwrap());
        assert!(sandbox::stop(&run.dir).unwrap());
        let result = run.result(alive.finish().unwrap());
        assert_eq!(result.report.outcome, Outcome::Stopped);
        assert!(witness.all_gone());
        assert!(
            !sandbox::stop(&run.dir).unwrap(),
            "there is nobody to ask any more"
        );
    });
}

#[test]
fn a_stop_right_after_the_start_is_not_lost() {
    in_each_containment(|support| {
        let run = Run::sh(support, "sleep 1000");
        let alive = run.start();
        assert!(sandbox::stop(&run.dir).unwrap());
        assert_eq!(
            run.result(alive.finish().unwrap()).report.outcome,
            Outcome::Stopped
        );
    });
}

#[test]
fn a_wrapper_that_is_told_to_end_ends_its_task_first() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exec 9>witness; : >up; sleep 1000");
        let witness = Witness::new(&run);
        let alive = run.start();
        run.await_file("up");
        let wrapper = nix::unistd::Pid::from_raw(run.wrapper_pid());
        nix::sys::signal::kill(wrapper, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(
            run.result(alive.finish().unwrap()).report.outcome,
            Outcome::Stopped
        );
        assert!(witness.all_gone());
    });
}

#[test]
fn the_descriptor_of_a_run_tells_its_end() {
    in_each_containment(|support| {
        let run = Run::sh(support, "read line").with(|run| run.delivery.stdin = b"go\n".to_vec());
        let alive = run.start();
        wait_until("the run has ended", || alive.ended().unwrap());
        assert_eq!(alive.finish().unwrap().outcome, Outcome::Exited { code: 0 });
    });
}
