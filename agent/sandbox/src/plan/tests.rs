//! Plans as they are made, written and refused.

use proptest::prelude::*;

use super::*;
use crate::policy::{Limits, Paths};
use crate::user::UserIds;
use crate::{Report, RunDir};

fn policy() -> Policy {
    Policy {
        profile: Profile::Host,
        limits: Limits {
            time: Duration::from_secs(3600),
            grace: Duration::from_secs(5),
            output: 1024,
            memory: None,
            processes: None,
            cpu_percent: None,
            open_files: None,
        },
        run_as: None,
        paths: Paths::default(),
    }
}

fn job() -> Job<'static> {
    Job {
        program: Path::new("/opt/cache/task.sh"),
        arguments: vec!["--flag".to_owned(), "two words\n".to_owned()],
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        working_directory: "/".into(),
        name: "0192f0c4-77aa-7000-8000-000000000001",
        visible: Vec::new(),
    }
}

fn with_cgroup() -> Support {
    Support {
        cgroup: Facility::Available("/cg/pxp-agent".into()),
        ..Support::nothing("not here")
    }
}

fn with_namespaces(user: Option<UserIds>) -> Support {
    Support {
        pid_namespace: Facility::Available(user),
        ..Support::nothing("not here")
    }
}

#[test]
fn a_plan_survives_its_written_form() {
    let user = UserIds {
        uid: 1000,
        gid: 1001,
    };
    for support in [
        with_cgroup(),
        with_namespaces(None),
        with_namespaces(Some(user)),
    ] {
        let plan = plan(&policy(), &job(), &support).unwrap();
        assert_eq!(Plan::decode(&plan.encode().unwrap()).unwrap(), plan);
    }
}

#[test]
fn a_cgroup_is_preferred_and_named_by_the_transaction() {
    let both = Support {
        pid_namespace: Facility::Available(None),
        ..with_cgroup()
    };
    let plan = plan(&policy(), &job(), &both).unwrap();
    assert_eq!(plan.containment(), Containment::Cgroup);
    assert_eq!(
        plan.cgroup(),
        Some(Path::new("/cg/pxp-agent").join(job().name).as_path())
    );
    let steps: Vec<_> = plan.steps().iter().map(Step::name).collect();
    assert_eq!(steps, ["cgroup", "working-directory", "execute"]);
}

#[test]
fn without_a_cgroup_a_pid_namespace_does_it() {
    let plan = plan(&policy(), &job(), &with_namespaces(None)).unwrap();
    assert_eq!(plan.containment(), Containment::PidNamespace);
    let steps: Vec<_> = plan.steps().iter().map(Step::name).collect();
    assert_eq!(
        steps,
        ["namespaces", "proc", "working-directory", "execute"]
    );
}

#[test]
fn a_host_that_has_neither_is_refused_with_both_reasons() {
    let neither = Support::nothing("not here");
    let refused = plan(&policy(), &job(), &neither).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no containment on this host (cgroup: not here; PID namespace: not here)"
    );
}

#[test]
fn what_cannot_be_run_is_refused_by_name() {
    type Change = fn(&mut Policy, &mut Job<'static>);
    let cases: [(Change, PlanError); 14] = [
        (|_, job| job.name = "", PlanError::Name),
        (|_, job| job.name = "..", PlanError::Name),
        (|_, job| job.name = "-rf", PlanError::Name),
        (|_, job| job.name = "a/b", PlanError::Name),
        (|_, job| job.name = "a\nb", PlanError::Name),
        (
            |_, job| job.program = Path::new("bin/sh"),
            PlanError::Program("bin/sh".into()),
        ),
        (
            |_, job| job.program = Path::new("/a\0b"),
            PlanError::Text("the program"),
        ),
        (
            |_, job| job.arguments.push("\0".to_owned()),
            PlanError::Text("an argument"),
        ),
        (
            |_, job| job.working_directory = "x".into(),
            PlanError::WorkingDirectory("x".into()),
        ),
        (
            |_, job| job.environment.push(("A=B".to_owned(), String::new())),
            PlanError::Variable("A=B".to_owned()),
        ),
        (
            |_, job| job.environment.push(("A".to_owned(), "\0".to_owned())),
            PlanError::Text("an environment variable"),
        ),
        (
            |policy, _| policy.limits.time = Duration::ZERO,
            PlanError::Time("the time limit"),
        ),
        (
            |policy, _| policy.limits.time = Duration::MAX,
            PlanError::Time("the time limit"),
        ),
        (
            |policy, _| policy.limits.grace = Duration::from_micros(1),
            PlanError::Time("the grace"),
        ),
    ];
    for (change, expected) in cases {
        let (mut policy, mut job) = (policy(), job());
        change(&mut policy, &mut job);
        assert_eq!(plan(&policy, &job, &with_cgroup()), Err(expected));
    }
    let long = "x".repeat(MAX_NAME + 1);
    let job = Job {
        name: &long,
        ..job()
    };
    assert_eq!(plan(&policy(), &job, &with_cgroup()), Err(PlanError::Name));
}

#[test]
fn steps_out_of_order_missing_or_repeated_are_refused() {
    let good = plan(&policy(), &job(), &with_namespaces(None)).unwrap();
    let refused = |steps: Vec<Step>| {
        let plan = Plan {
            steps,
            ..good.clone()
        };
        let error = Plan::decode(&plan.encode().unwrap()).unwrap_err();
        assert!(
            matches!(error, DecodeError::Content(PlanError::Order)),
            "{error:?}"
        );
    };
    let steps = good.steps.clone();
    for left_out in 0..steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(left_out);
        refused(fewer);
    }
    for doubled in 0..steps.len() {
        let mut more = steps.clone();
        more.insert(doubled, steps[doubled].clone());
        refused(more);
    }
    refused(steps.iter().rev().cloned().collect());
    let mut both = steps.clone();
    both.insert(
        0,
        Step::Cgroup {
            directory: Path::new("/cg").join(good.name()),
            limits: CgroupLimits::default(),
        },
    );
    refused(both);
    refused(Vec::new());
}

#[test]
fn a_plan_that_was_tampered_with_cannot_name_another_cgroup() {
    let text = plan(&policy(), &job(), &with_cgroup())
        .unwrap()
        .encode()
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    for other in ["/cg/system.slice", "/cg/pxp-agent/..", "relative/0192f0c4"] {
        let text = text.replace(&format!("/cg/pxp-agent/{}", job().name), other);
        assert!(matches!(
            Plan::decode(text.as_bytes()),
            Err(DecodeError::Content(_))
        ));
    }
}

#[test]
fn bytes_that_are_no_plan_of_this_version_are_refused() {
    let text = plan(&policy(), &job(), &with_cgroup())
        .unwrap()
        .encode()
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    let newer = text.replace("\"version\": 3", "\"version\": 4");
    assert!(matches!(
        Plan::decode(newer.as_bytes()),
        Err(DecodeError::Version(4))
    ));
    let unknown = text.replace("\"step\": \"cgroup\"", "\"step\": \"chroot\"");
    assert!(matches!(
        Plan::decode(unknown.as_bytes()),
        Err(DecodeError::Form(_))
    ));
    let more = text.replace("\"version\": 3", "\"version\": 3, \"as_root\": true");
    assert!(matches!(
        Plan::decode(more.as_bytes()),
        Err(DecodeError::Form(_))
    ));
    for end in 0..text.trim_end().len() {
        assert!(
            Plan::decode(&text.as_bytes()[..end]).is_err(),
            "cut at {end}"
        );
    }
}

/// A report as a wrapper writes it, and one of a wrapper that knew less.
const REPORTS: [&str; 2] = [
    r#"{"outcome":{"kind":"exited","code":0},"stdout_bytes":1,"stderr_bytes":0,"stdout_truncated":false,"stderr_truncated":false,"output_error":null,"duration_ms":5,"containment":"cgroup","usage":{"profile":"standard","cpu_ms":1,"peak_memory_bytes":null,"killed_by":"time-limit","processes_refused":0}}"#,
    r#"{"outcome":{"kind":"setup-failed","step":"jail","error":"no"},"stdout_bytes":1,"stderr_bytes":0,"stdout_truncated":false,"stderr_truncated":true,"output_error":"full","duration_ms":5,"containment":null}"#,
];

proptest! {
    #[test]
    fn a_damaged_plan_is_refused_or_one_that_this_agent_would_make(
        at in any::<prop::sample::Index>(), cut in 0..20_usize,
        insert in "(\\.\\./|\\\\u0000|\"|,|\\{|\\}|\\[|\\]|:|null|-1|0|true|\\PC){0,4}",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        Plan::decode(&bytes).ok();
        let whole = plan(&policy(), &job(), &with_cgroup()).unwrap().encode().unwrap();
        let mut damaged = whole.clone();
        let at = at.index(damaged.len());
        damaged.splice(at..(at + cut).min(whole.len()), insert.bytes());
        if let Ok(read) = Plan::decode(&damaged) {
            prop_assert!(read.check().is_ok());
            prop_assert_eq!(Plan::decode(&read.encode().unwrap()).unwrap(), read);
        }
    }

    #[test]
    fn a_damaged_view_is_none_or_one_that_a_plan_could_ask_for(
        at in any::<prop::sample::Index>(), cut in 0..20_usize,
        insert in "(\\.\\./|\\\\u0000|\"|,|\\{|\\}|\\[|\\]|:|null|-1|0|true|\\PC){0,4}",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert_eq!(Jail::decode(&bytes), None);
        let view = Jail {
            profile: Profile::Standard,
            hidden: vec!["/etc/keys".into()],
            read_only: vec!["/etc/conf".into()],
            shared: Vec::new(),
            visible: Vec::new(),
            bus: Some("/run/dbus/socket".into()),
        };
        let mut damaged = view.encode(1000);
        prop_assert_eq!(Jail::decode(&damaged), Some(view.clone()));
        prop_assert_eq!(view.encode(10), Vec::<u8>::new());
        let at = at.index(damaged.len());
        damaged.splice(at..(at + cut).min(damaged.len()), insert.bytes());
        if let Some(read) = Jail::decode(&damaged) {
            prop_assert!(read.visible.is_empty());
            prop_assert_eq!(Jail::decode(&read.encode(1000)), Some(read));
        }
    }

    #[test]
    fn a_damaged_report_is_none_or_an_error_and_never_a_panic(
        report in prop::sample::select(&REPORTS[..]),
        at in any::<prop::sample::Index>(), cut in 0..20_usize,
        insert in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let whole: Report = serde_json::from_str(report).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().to_path_buf());
        std::fs::write(run.report_path(), serde_json::to_vec(&whole).unwrap()).unwrap();
        prop_assert_eq!(run.report().unwrap(), Some(whole));
        let mut damaged = report.as_bytes().to_vec();
        let at = at.index(damaged.len());
        damaged.splice(at..(at + cut).min(report.len()), insert);
        for bytes in [damaged, vec![0; at], Vec::new()] {
            std::fs::write(run.report_path(), &bytes).unwrap();
            let read = run.report();
            if bytes.iter().all(|byte| *byte == 0) {
                prop_assert!(matches!(read, Ok(None)));
            }
        }
    }
}
