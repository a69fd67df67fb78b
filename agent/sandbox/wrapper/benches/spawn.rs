//! What a task's containment costs: `sh -c 'exit 0'` started bare and in each profile, by turns, so that
//! a noisy machine is equally noisy for all. Prints milliseconds.
//!
//! `cargo bench -p execution-wrapper [-- DIRECTORY]`: the runs' directories are made there. On a
//! disk the report's durability is part of the price, in /dev/shm it is not.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has nothing to show, and is shown on stdout"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{Delivery, Facility, Job, Limits, Outcome, Paths, Policy, Profile, RunDir, Support};

const ROUNDS: usize = 300;

fn main() {
    // Cargo itself passes arguments that begin with dashes.
    let place = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let place = place.map_or_else(std::env::temp_dir, Into::into);
    let wrapper = Path::new(env!("CARGO_BIN_EXE_execution-wrapper"));
    let support = Support::probe(wrapper);
    for line in support.describe() {
        println!("{line}");
    }
    let cgroup = Support {
        cgroup: support.cgroup.clone(),
        ..Support::nothing("not measured")
    };
    let namespace = Support {
        pid_namespace: support.pid_namespace.clone(),
        ..Support::nothing("not measured")
    };
    let available = |facility: &Facility<()>| facility.missing().is_none();
    let mut rows = vec![("bare", None, Vec::new())];
    if matches!(cgroup.cgroup, Facility::Available(_)) {
        rows.push(("host, cgroup", Some((cgroup, Profile::Host)), Vec::new()));
    }
    if matches!(namespace.pid_namespace, Facility::Available(_)) {
        let row = Some((namespace, Profile::Host));
        rows.push(("host, PID namespace", row, Vec::new()));
    }
    if available(&support.standard) {
        let row = Some((support.clone(), Profile::Standard));
        rows.push(("standard", row, Vec::new()));
    }
    if available(&support.confined) {
        let row = Some((support, Profile::Confined));
        rows.push(("confined", row, Vec::new()));
    }
    for round in 0..ROUNDS {
        for (_, support, times) in &mut rows {
            times.push(match support {
                None => bare(),
                Some((support, profile)) => contained(wrapper, support, *profile, &place, round),
            });
        }
    }
    println!("{:<20}{:>8}{:>8}{:>8}", "", "p10", "median", "p90");
    for (name, _, mut times) in rows {
        times.sort();
        let at = |percent: usize| times.get(ROUNDS * percent / 100).unwrap().as_secs_f64() * 1e3;
        println!("{name:<20}{:>8.2}{:>8.2}{:>8.2}", at(10), at(50), at(90));
    }
}

fn bare() -> Duration {
    let start = Instant::now();
    let mut command = Command::new("/bin/sh");
    let status = command
        .args(["-c", "exit 0"])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    let took = start.elapsed();
    assert!(status.success());
    took
}

/// From the decision to the report in hand.
fn contained(
    wrapper: &Path,
    support: &Support,
    profile: Profile,
    place: &Path,
    round: usize,
) -> Duration {
    let directory = tempfile::tempdir_in(place).unwrap();
    let policy = Policy {
        profile,
        limits: Limits {
            time: Duration::from_secs(60),
            grace: Duration::from_secs(1),
            output: 1 << 20,
            memory: None,
            processes: None,
            cpu_percent: None,
            open_files: None,
        },
        run_as: None,
        paths: Paths::default(),
    };
    let name = format!("bench-{}-{round}", std::process::id());
    let job = Job {
        program: Path::new("/bin/sh"),
        arguments: vec!["-c".to_owned(), "exit 0".to_owned()],
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        working_directory: "/".into(),
        name: &name,
        visible: Vec::new(),
    };
    let start = Instant::now();
    let plan = sandbox::plan(&policy, &job, support).unwrap();
    let dir = RunDir::new(directory.path().to_path_buf());
    let alive = sandbox::start(wrapper, &plan, &dir, &Delivery::default()).unwrap();
    let report = alive.finish().unwrap();
    let took = start.elapsed();
    assert_eq!(report.outcome, Outcome::Exited { code: 0 });
    took
}
