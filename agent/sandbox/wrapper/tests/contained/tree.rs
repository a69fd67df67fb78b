//! Nothing of a task outlives its report.

use sandbox::Outcome;

use crate::bed::{Run, Witness, in_each_containment};

#[test]
fn a_daemon_that_forked_twice_into_its_own_session_is_dead_afterwards() {
    in_each_containment(|support| {
        let script = "exec 9>witness
            (setsid sh -c '(setsid sh -c \"trap \\\"\\\" TERM HUP INT QUIT; : >up; sleep 1000\" &) ; exit' &)
            while [ ! -e up ]; do sleep 0.01; done
            echo main; exit 7";
        let run = Run::sh(support, script);
        let witness = Witness::new(&run);
        let result = run.finish();
        assert_eq!(result.report.outcome, Outcome::Exited { code: 7 });
        assert!(
            witness.all_gone(),
            "the report came before the end of the tree"
        );
        assert_eq!(result.stdout(), "main\n");
    });
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_delay_the_end() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exec 9>witness; sleep 1000 & echo $!");
        let witness = Witness::new(&run);
        assert_eq!(run.finish().report.outcome, Outcome::Exited { code: 0 });
        assert!(witness.all_gone());
    });
}

#[test]
fn processes_that_fork_without_end_are_all_killed() {
    in_each_containment(|support| {
        // Each of eight chains starts its successor and ends: their numbers are never the ones
        // that were just read from anywhere.
        let script = "exec 9>witness
            chain() { chain & exit; }
            for n in 1 2 3 4 5 6 7 8; do chain & done
            : >up; sleep 1000";
        let run = Run::sh(support, script)
            .with(|run| run.policy.limits.grace = std::time::Duration::from_millis(100));
        let witness = Witness::new(&run);
        let alive = run.start();
        run.await_file("up");
        assert!(sandbox::stop(&run.dir).unwrap());
        let result = run.result(alive.finish().unwrap());
        assert_eq!(result.report.outcome, Outcome::Stopped);
        assert!(witness.all_gone());
    });
}

#[test]
fn a_stopped_process_is_killed_too() {
    in_each_containment(|support| {
        let run = Run::sh(
            support,
            "exec 9>witness; sh -c 'kill -STOP $$' & sleep 0.1; exit 0",
        );
        let witness = Witness::new(&run);
        assert_eq!(run.finish().report.outcome, Outcome::Exited { code: 0 });
        assert!(witness.all_gone());
    });
}

#[test]
fn cgroups_that_the_task_made_below_its_own_go_with_it() {
    in_each_containment(|support| {
        let run = Run::sh(support, "");
        let Some(directory) = run.plan().cgroup().map(std::path::Path::to_path_buf) else {
            return;
        };
        let directory = directory.display();
        let script = format!(
            "exec 9>witness; mkdir -p {directory}/a/b/c && sleep 1000 & echo $! >{directory}/x
             while [ ! -d {directory}/a/b/c ]; do sleep 0.01; done
             echo $! >{directory}/a/b/c/cgroup.procs && echo moved"
        );
        let run = run.with(|run| run.arguments = vec!["-c".to_owned(), script]);
        let witness = Witness::new(&run);
        let result = run.finish();
        assert_eq!(result.stdout(), "moved\n", "{}", result.stderr());
        assert!(witness.all_gone());
    });
}
