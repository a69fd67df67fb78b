//! What the wrapper does not do.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use sandbox::{Facility, Launcher, Outcome, StartError, Support};

use crate::bed::{Run, in_each_containment, launcher, wait_until, wrapper};

/// Starts the wrapper by hand with these bytes on its stdin, and returns its outcome.
fn outcome_of(run: &Run, plan: &[u8], delivery: &[u8]) -> Outcome {
    fs::write(run.dir.plan_path(), plan).unwrap();
    nix::unistd::mkfifo(&run.dir.control_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut child = Command::new(wrapper())
        .arg(run.dir.plan_path())
        .env("PATH", "/usr/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // A wrapper that refuses early does not read all of it.
    child.stdin.take().unwrap().write_all(delivery).ok();
    assert!(child.wait().unwrap().success());
    run.dir.report().unwrap().unwrap().outcome
}

#[test]
fn a_delivery_that_is_cut_oversized_or_malformed_starts_nothing() {
    in_each_containment(|support| {
        let whole = sandbox::Delivery {
            stdin: b"input".to_vec(),
            ..Default::default()
        };
        let whole = whole.encode().unwrap();
        let mut malformed = whole.clone();
        malformed[8] = 0xff;
        let cases: [(&[u8], &str); 5] = [
            (b"", "the delivery is incomplete"),
            (&whole[..whole.len() - 1], "the delivery is incomplete"),
            (
                &u64::MAX.to_le_bytes(),
                "the delivery is larger than 67108864 bytes",
            ),
            (&malformed, "the delivery is malformed"),
            (&[0; 8], "the delivery is malformed"),
        ];
        for (bytes, reason) in cases {
            let run = Run::sh(support, "echo ran >ran");
            let outcome = outcome_of(&run, &run.plan().encode().unwrap(), bytes);
            let expected = Outcome::SetupFailed {
                step: "read-delivery".to_owned(),
                error: reason.to_owned(),
            };
            assert_eq!(outcome, expected);
            assert!(!run.file("ran").exists());
            assert!(
                run.plan()
                    .cgroup()
                    .is_none_or(|directory| !directory.exists())
            );
        }
    });
}

#[test]
fn a_plan_that_is_not_whole_and_valid_starts_nothing() {
    in_each_containment(|support| {
        let good = Run::sh(support, "echo ran >ran").plan().encode().unwrap();
        let text = String::from_utf8(good.clone()).unwrap();
        let cases: [(&[u8], &str); 4] = [
            (b"", "the plan is malformed"),
            (&good[..good.len() / 2], "the plan is malformed"),
            (
                &text
                    .replace("\"version\": 3", "\"version\": 9")
                    .into_bytes(),
                "version 9",
            ),
            (
                &text.replace("\"/bin/sh\"", "\"bin/sh\"").into_bytes(),
                "the plan is invalid",
            ),
        ];
        for (plan, reason) in cases {
            let run = Run::sh(support, "");
            let delivery = sandbox::Delivery::default().encode().unwrap();
            let Outcome::SetupFailed { step, error } = outcome_of(&run, plan, &delivery) else {
                panic!("it ran")
            };
            assert_eq!(step, "read-plan");
            assert!(error.contains(reason), "{error}");
        }
    });
}

#[test]
fn a_directory_is_used_once() {
    in_each_containment(|support| {
        let run = Run::sh(support, "echo ran >>ran");
        run.finish();
        let again = sandbox::start(launcher(), &run.plan(), &run.dir, &run.delivery);
        assert!(matches!(again, Err(StartError::Create { .. })), "{again:?}");
        assert_eq!(fs::read_to_string(run.file("ran")).unwrap(), "ran\n");
    });
}

#[test]
fn a_cgroup_that_is_there_already_is_not_entered() {
    in_each_containment(|support| {
        let run = Run::sh(support, "echo ran >ran");
        let Some(directory) = run.plan().cgroup().map(Path::to_path_buf) else {
            return;
        };
        fs::create_dir(&directory).unwrap();
        let report = run.start().finish().unwrap();
        fs::remove_dir(&directory).unwrap();
        let Outcome::SetupFailed { step, error } = report.outcome else {
            panic!("{report:?}")
        };
        assert_eq!(step, "cgroup");
        assert!(error.contains("File exists"), "{error}");
        assert!(!run.file("ran").exists());
    });
}

#[test]
fn a_wrapper_that_cannot_be_executed_starts_nothing() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exit 0");
        let nowhere = Launcher::new("/nonexistent/execution-wrapper".into(), "/".into());
        let refused = sandbox::start(&nowhere, &run.plan(), &run.dir, &run.delivery);
        assert!(
            matches!(refused, Err(StartError::Spawn { .. })),
            "{refused:?}"
        );
        // A process that another test is making holds copies of our descriptors for a moment.
        wait_until("nobody holds the run", || {
            matches!(sandbox::adopt(&run.dir).unwrap(), sandbox::Adoption::Lost)
        });
    });
}

#[test]
fn a_delivery_above_the_limit_is_refused_before_anything_is_made() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exit 0")
            .with(|run| run.delivery.stdin = vec![0; sandbox::MAX_DELIVERY]);
        let refused = sandbox::start(launcher(), &run.plan(), &run.dir, &run.delivery);
        assert!(
            matches!(refused, Err(StartError::Delivery(_))),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(run.dir.path()).unwrap().count(), 0);
    });
}

#[test]
fn a_wrapper_that_is_none_offers_no_containment_and_says_so() {
    for (program, reason) in [
        ("/nonexistent", "cannot run"),
        ("/bin/true", "does not answer"),
    ] {
        let support = Support::probe(Path::new(program));
        let Facility::Missing(text) = &support.cgroup else {
            panic!("{support:?}")
        };
        assert!(text.contains(reason), "{text}");
        assert_eq!(support.describe().len(), 9);
    }
}

#[test]
fn a_wrapper_without_a_plan_says_how_it_is_used() {
    for arguments in [&[][..], &["/tmp/other.json"]] {
        let output = Command::new(wrapper()).args(arguments).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8(output.stderr).unwrap().contains("usage"));
    }
}

#[test]
fn a_plain_file_in_place_of_a_fifo_is_not_written_to() {
    in_each_containment(|support| {
        let run = Run::sh(support, "exit 0");
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(run.dir.control_path())
            .unwrap();
        assert!(sandbox::stop(&run.dir).is_err());
        assert_eq!(fs::metadata(run.dir.control_path()).unwrap().len(), 0);
    });
}
