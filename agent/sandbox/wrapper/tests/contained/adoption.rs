//! The agent's restart, and the wrapper's death.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Adoption, Alive, FinishError, Outcome, adopt};

use crate::bed::{Run, Witness, helper, in_each_containment, wait_until};

fn running(adoption: Adoption) -> Alive {
    match adoption {
        Adoption::Running(alive) => alive,
        other => panic!("not running: {other:?}"),
    }
}

#[test]
fn a_task_outlives_its_starter_and_is_adopted() {
    in_each_containment(|support| {
        let script = "exec 9>witness; : >up; cat; while [ ! -e on ]; do sleep 0.01; done; exit 4";
        let run = Run::sh(support, script);
        let witness = Witness::new(&run);
        let variables = BTreeMap::from([
            ("ADOPTION_DIR", run.dir.path().display().to_string()),
            (
                "ADOPTION_PLAN",
                String::from_utf8(run.plan().encode().unwrap()).unwrap(),
            ),
        ]);
        let starter = helper("adoption::helper_starts_a_plan_and_exits", &variables).status();
        assert!(starter.unwrap().success());
        let alive = running(adopt(&run.dir).unwrap());
        run.await_file("up");
        assert!(!alive.ended().unwrap());
        assert!(!witness.all_gone());
        fs::write(run.file("on"), "").unwrap();
        let result = run.result(alive.finish().unwrap());
        assert_eq!(result.report.outcome, Outcome::Exited { code: 4 });
        assert_eq!(result.stdout(), "delivered");
        match adopt(&run.dir).unwrap() {
            Adoption::Ended(report) => assert_eq!(report, result.report),
            other => panic!("{other:?}"),
        }
    });
}

/// Does nothing unless it is asked to by [`a_task_outlives_its_starter_and_is_adopted`].
#[test]
fn helper_starts_a_plan_and_exits() {
    let Ok(dir) = std::env::var("ADOPTION_DIR") else {
        return;
    };
    let plan = sandbox::Plan::decode(std::env::var("ADOPTION_PLAN").unwrap().as_bytes()).unwrap();
    let dir = sandbox::RunDir::new(dir.into());
    let delivery = sandbox::Delivery {
        stdin: b"delivered".to_vec(),
        ..Default::default()
    };
    sandbox::start(crate::bed::launcher(), &plan, &dir, &delivery).unwrap();
}

#[test]
fn an_adopted_task_can_be_stopped() {
    in_each_containment(|support| {
        let run = Run::sh(support, ": >up; sleep 1000");
        let first = run.start();
        run.await_file("up");
        let second = running(adopt(&run.dir).unwrap());
        assert!(sandbox::stop(&run.dir).unwrap());
        assert_eq!(second.finish().unwrap().outcome, Outcome::Stopped);
        assert_eq!(first.finish().unwrap().outcome, Outcome::Stopped);
    });
}

/// A run whose wrapper is killed while the task, deaf to signals and with a daemon, runs.
fn orphaned(run: &Run) -> (Alive, Witness) {
    let witness = Witness::new(run);
    let alive = run.start();
    run.await_file("up");
    kill(Pid::from_raw(run.wrapper_pid()), Signal::SIGKILL).unwrap();
    wait_until("the wrapper has ended", || alive.ended().unwrap());
    (alive, witness)
}

const DEAF: &str = "exec 9>witness; trap '' TERM HUP; (setsid sleep 1000 &) ; : >up; sleep 1000";

#[test]
fn the_tree_of_a_wrapper_that_was_killed_is_gone_once_it_is_known_to_be_lost() {
    in_each_containment(|support| {
        let run = Run::sh(support, DEAF);
        let (alive, witness) = orphaned(&run);
        assert!(matches!(adopt(&run.dir).unwrap(), Adoption::Lost));
        wait_until("the tree is gone", || witness.all_gone());
        if let Some(directory) = run.plan().cgroup() {
            assert!(!directory.exists());
        }
        assert!(matches!(alive.finish(), Err(FinishError::Lost)));
        // And it stays lost.
        assert!(matches!(adopt(&run.dir).unwrap(), Adoption::Lost));
    });
}

#[test]
fn an_agent_that_sees_its_wrapper_die_ends_the_tree_too() {
    in_each_containment(|support| {
        let run = Run::sh(support, DEAF);
        let (alive, witness) = orphaned(&run);
        assert!(matches!(alive.finish(), Err(FinishError::Lost)));
        wait_until("the tree is gone", || witness.all_gone());
    });
}

#[test]
fn a_directory_in_which_nothing_was_started_is_lost() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exit 0");
        assert!(matches!(adopt(&run.dir).unwrap(), Adoption::Lost));
        // The agent ended right after it had made the files.
        fs::write(run.dir.plan_path(), run.plan().encode().unwrap()).unwrap();
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&run.dir.control_path(), mode).unwrap();
        nix::unistd::mkfifo(&run.dir.alive_path(), mode).unwrap();
        assert!(matches!(adopt(&run.dir).unwrap(), Adoption::Lost));
    });
}

#[test]
fn a_report_whose_content_a_loss_of_power_took_is_none() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exit 0");
        run.finish();
        for left in [&b""[..], &[0; 300]] {
            fs::write(run.dir.report_path(), left).unwrap();
            assert!(matches!(adopt(&run.dir).unwrap(), Adoption::Lost));
        }
    });
}

#[test]
fn a_report_is_there_before_its_wrapper_has_ended_and_outlives_its_death() {
    in_each_containment(|support| {
        let run = Run::sh(
            support,
            "while [ ! -e on ]; do sleep 0.01; done; echo out; exit 4",
        );
        let alive = run.start();
        let wrapper = sandbox_sys::pidfd_open(Pid::from_raw(run.wrapper_pid())).unwrap();
        fs::write(run.file("on"), "").unwrap();
        wait_until("the run has ended", || alive.ended().unwrap());
        // It may have ended by itself.
        sandbox_sys::pidfd_send_signal(wrapper.as_fd(), Signal::SIGKILL).ok();
        match adopt(&run.dir).unwrap() {
            Adoption::Ended(report) => assert_eq!(report.outcome, Outcome::Exited { code: 4 }),
            other => panic!("{other:?}"),
        }
        let result = run.result(alive.finish().unwrap());
        assert_eq!(result.stdout(), "out\n");
    });
}

#[test]
fn a_writer_to_the_fifo_is_not_taken_for_the_wrappers_end() {
    in_each_containment(|support| {
        let run = Run::sh(support, ": >up; while [ ! -e on ]; do sleep 0.01; done");
        let alive = run.start();
        run.await_file("up");
        fs::write(run.dir.alive_path(), "noise").unwrap();
        assert!(!alive.ended().unwrap());
        running(adopt(&run.dir).unwrap());
        fs::write(run.file("on"), "").unwrap();
        assert_eq!(alive.finish().unwrap().outcome, Outcome::Exited { code: 0 });
    });
}
