//! What a task's containment costs: `sh -c 'exit 0'` started bare and in each profile, by turns, so that a
//! noisy machine is equally noisy for all. On a disk the durability of reports is a part of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use sandbox::{Delivery, Job, Launcher, Limits, Outcome, Paths, Policy, Profile, RunDir, Support};

use crate::latency::{median, milliseconds};
use crate::table::Table;

/// The profiles, the goal of each beside a bare spawn.
const PROFILES: [(&str, Profile, &str); 3] = [
    ("host", Profile::Host, "-"),
    ("standard", Profile::Standard, "bare spawn + 1 ms"),
    ("confined", Profile::Confined, "bare spawn + 1 ms"),
];

/// Runs so many of each.
pub(crate) fn measure(lab: &Lab, count: usize, table: &mut Table) -> Result<()> {
    let wrapper = lab::bin("execution-wrapper");
    let support = Support::probe(&wrapper);
    let place = lab.dir().join("sandbox");
    fs::create_dir(&place).context("cannot make a directory for the runs")?;
    let launcher = Launcher::new(wrapper, place.clone());
    let mut bare = Vec::with_capacity(count);
    let mut contained: Vec<_> = PROFILES
        .iter()
        .map(|profile| (profile, Vec::with_capacity(count)))
        .collect();
    for round in 0..count {
        bare.push(spawn()?);
        for ((name, profile, _), times) in &mut contained {
            let dir = place.join(format!("{name}-{round}"));
            times.push(run(&launcher, &support, *profile, &dir)?);
        }
    }
    let bare = median(&mut bare);
    for ((name, _, goal), mut times) in contained {
        let took = median(&mut times);
        let more = took.saturating_sub(bare);
        table.row(
            format!("sandbox: a run in the profile {name}, median of {count}"),
            milliseconds(took),
            format!(
                "bare spawn {} (+{})",
                milliseconds(bare),
                milliseconds(more)
            ),
            *goal,
        );
    }
    Ok(())
}

fn spawn() -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new("/bin/sh")
        .args(["-c", "exit 0"])
        .stdin(Stdio::null())
        .status()
        .context("cannot start a shell")?;
    ensure!(status.success(), "the shell failed");
    Ok(start.elapsed())
}

/// From the decision to the report in hand, as the agent has it: readable, and not yet on the disk.
fn run(launcher: &Launcher, support: &Support, profile: Profile, dir: &Path) -> Result<Duration> {
    fs::create_dir(dir).context("cannot make a run's directory")?;
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
    let name = dir.file_name().context("no name")?.to_string_lossy();
    let name = format!("perf-{}-{name}", std::process::id());
    let job = Job {
        program: Path::new("/bin/sh"),
        arguments: vec!["-c".to_owned(), "exit 0".to_owned()],
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        working_directory: "/".into(),
        name: &name,
        visible: Vec::new(),
    };
    let start = Instant::now();
    let plan = sandbox::plan(&policy, &job, support)?;
    let run = RunDir::new(dir.to_path_buf());
    let alive = sandbox::start(launcher, &plan, &run, &Delivery::default())?;
    let report = alive.finish()?;
    let took = start.elapsed();
    ensure!(
        report.outcome == Outcome::Exited { code: 0 },
        "a run failed: {:?}",
        report.outcome
    );
    fs::remove_dir_all(dir).context("cannot remove a run's directory")?;
    Ok(took)
}
