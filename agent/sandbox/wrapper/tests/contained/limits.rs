//! What a cgroup keeps a task from taking, and what the report says of it. Where this host's own cgroups
//! lack a controller, a guest that has all of them runs these tests (`guest.rs`).

use std::time::Duration;

use sandbox::{Facility, KilledBy, Limits, Outcome, Profile, Support};

use crate::bed::{Result, Run, Witness, skip, wrapper};
use crate::host::SUPPORT;

/// What this script comes to within the limits, in each profile that a task with rights can have. Nothing
/// of it is left when its report is there: its descriptor 9 is the witness.
fn within(controller: &str, script: &str, limit: fn(&mut Limits), expected: fn(Profile, &Result)) {
    let controllers = &SUPPORT.controllers;
    let facility = match controller {
        "memory" => &controllers.memory,
        "pids" => &controllers.pids,
        _ => &controllers.cpu,
    };
    if let Facility::Missing(reason) = facility {
        return skip(controller, reason);
    }
    for profile in [Profile::Host, Profile::Standard] {
        if profile == Profile::Standard
            && let Facility::Missing(reason) = &SUPPORT.standard
        {
            return skip("standard", reason);
        }
        let script = format!("exec 9>witness; {script}");
        let run = Run::sh(&SUPPORT, &script).with(|run| {
            run.policy.profile = profile;
            // Where the working directory is.
            run.policy.paths.shared = vec!["/tmp".into()];
            limit(&mut run.policy.limits);
        });
        let witness = Witness::new(&run);
        let result = run.finish();
        assert!(witness.all_gone(), "in {profile}: {}", result.stderr());
        expected(profile, &result);
    }
}

const MEMORY: u64 = 32 << 20;

#[test]
fn memory_bomb() {
    let script = "sleep 1000 & exec perl -e '$x = \"x\" x (256 << 20); print \"had it\"'";
    within(
        "memory",
        script,
        |limits| limits.memory = Some(MEMORY),
        |_, result| {
            assert_eq!(result.report.outcome, Outcome::Signaled { signal: 9 });
            assert_eq!(result.report.usage.killed_by, Some(KilledBy::Memory));
            assert_eq!(result.stdout(), "");
            let peak = result.report.usage.peak_memory_bytes.unwrap();
            assert!((1 << 20..=MEMORY).contains(&peak), "{peak}");
        },
    );
}

#[test]
fn memory_bomb_in_a_child() {
    let script = "perl -e '$x = \"x\" x (256 << 20)'; echo $?; exit 5";
    within(
        "memory",
        script,
        |limits| limits.memory = Some(MEMORY),
        |_, result| {
            assert_eq!(result.report.outcome, Outcome::Exited { code: 5 });
            assert_eq!(result.report.usage.killed_by, Some(KilledBy::Memory));
            assert_eq!(result.stdout(), "137\n");
        },
    );
}

#[test]
fn a_task_that_keeps_below_its_limits_is_left_alone() {
    let script = "perl -e '$x = \"x\" x (2 << 20)'; echo $?";
    within(
        "memory",
        script,
        |limits| {
            limits.memory = Some(2 * MEMORY);
            limits.processes = Some(50);
        },
        |_, result| {
            assert_eq!(result.stdout(), "0\n");
            assert_eq!(result.report.usage.killed_by, None);
            assert_eq!(result.report.usage.processes_refused, 0);
        },
    );
}

#[test]
fn fork_bomb_is_bounded_by_the_limit_of_processes() {
    // Perl goes on when it cannot fork; each child waits for the end.
    let script = "exec perl -e '
        for (1 .. 100) { my $child = fork; defined $child or ++$refused, next;
            $child == 0 and sleep 1000, exit; ++$made }
        print \"$made $refused\n\"'";
    within(
        "pids",
        script,
        |limits| limits.processes = Some(8),
        |_, result| {
            assert_eq!(result.report.outcome, Outcome::Exited { code: 0 });
            // The helper that is process 1 does not count.
            assert_eq!(result.stdout(), "7 93\n", "{}", result.stderr());
            assert_eq!(result.report.usage.processes_refused, 93);
        },
    );
}

#[test]
fn processor_time_is_bounded() {
    // Two processes that would take all of two processors.
    let script = "for n in 1 2; do (while :; do :; done) & done; sleep 1000";
    within(
        "cpu",
        script,
        |limits| {
            limits.cpu_percent = Some(20);
            limits.time = Duration::from_secs(3);
            limits.grace = Duration::from_millis(100);
        },
        |_, result| {
            assert_eq!(result.report.outcome, Outcome::TimedOut);
            let took = result.report.usage.cpu_ms.unwrap();
            let lasted = result.report.duration_ms;
            // Half of a processor is far from both what is allowed and what is wanted.
            assert!(took > 0 && took * 2 < lasted, "{took} ms in {lasted} ms");
        },
    );
}

/// A cgroup below the root of version 2, given away as systemd does it.
const GIVEN: &str = r#"
    my ($given, $setxattr) = @ARGV;
    mkdir $given or die "mkdir: $!";
    my ($name, $value) = ("trusted.delegate", "1");
    syscall($setxattr, $given, $name, $value, 1, 0) == 0 or die "setxattr: $!";
"#;

/// What a run in it comes to that is held to these limits.
fn ends(support: &Support, limit: fn(&mut Limits)) -> Outcome {
    let run = Run::sh(support, "echo in; exit 3").with(|run| limit(&mut run.policy.limits));
    run.finish().report.outcome
}

#[test]
fn a_cgroup_that_the_agent_itself_is_in_holds_tasks_and_one_below_which_it_is_limits_them() {
    if let Facility::Missing(reason) = &SUPPORT.controllers.memory {
        return skip("memory", reason);
    }
    let root = std::path::Path::new("/sys/fs/cgroup");
    let given = root.join("given");
    let made = std::process::Command::new("perl")
        .args(["-e", GIVEN])
        .arg(&given)
        .arg(nix::libc::SYS_setxattr.to_string())
        .status();
    assert!(made.unwrap().success());
    let enter =
        |cgroup: &std::path::Path| std::fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    // As every systemd starts a service with Delegate=yes.
    enter(&given);
    let support = Support::probe(wrapper());
    assert_eq!(support.cgroup, Facility::Available(given.join("pxp-agent")));
    let controllers = &support.controllers;
    for missing in [&controllers.memory, &controllers.pids, &controllers.cpu] {
        let reason = missing.missing().unwrap();
        assert!(reason.contains("DelegateSubgroup=supervisor"), "{reason}");
    }
    assert_eq!(ends(&support, |_| {}), Outcome::Exited { code: 3 });
    // As systemd 254 does with DelegateSubgroup=supervisor.
    let supervisor = given.join("supervisor");
    std::fs::create_dir(&supervisor).unwrap();
    // Whatever makes the wrappers of this test comes along.
    let all = std::fs::read_to_string(given.join("cgroup.procs")).unwrap();
    for process in all.lines() {
        std::fs::write(supervisor.join("cgroup.procs"), process).unwrap();
    }
    let support = Support::probe(wrapper());
    assert_eq!(support.cgroup, Facility::Available(given.join("pxp-agent")));
    let controllers = &support.controllers;
    for there in [&controllers.memory, &controllers.pids, &controllers.cpu] {
        assert_eq!(there, &Facility::Available(()));
    }
    let limited = |limits: &mut Limits| {
        limits.memory = Some(MEMORY);
        limits.processes = Some(8);
    };
    assert_eq!(ends(&support, limited), Outcome::Exited { code: 3 });
    enter(root);
    for name in ["supervisor", "pxp-agent"] {
        std::fs::remove_dir(given.join(name)).ok();
    }
    std::fs::remove_dir(given).ok();
}
