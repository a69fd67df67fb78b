//! Resident memory of each process at rest, beside the smallest process there is.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::Lab;

use crate::memory::{mib, resident};
use crate::table::Table;

/// An agent is at rest when it has had nothing to do for so long after its start.
const AT_REST: Duration = Duration::from_secs(15);

/// Reads the memory of every process of the mesh, once it is at rest.
pub(crate) fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let mut baseline = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cat")?;
    // It is itself, and no copy of this program, once it has given a byte back.
    if let (Some(stdin), Some(stdout)) = (&mut baseline.stdin, &mut baseline.stdout) {
        stdin.write_all(b"x").context("cat takes nothing")?;
        stdout.read_exact(&mut [0]).context("cat gives nothing")?;
    }
    let baseline_kib = resident(baseline.id())?;
    drop(baseline.stdin.take());
    baseline.wait().context("cat does not end")?;
    sleep(AT_REST);
    let rows = [
        ("agent-1", "agent, resident at rest", "<= 8 MiB"),
        (
            "compiler-1",
            "broker (compiler), resident at rest",
            "<= 12 MiB",
        ),
        ("primary", "broker (primary), resident at rest", "<= 12 MiB"),
        ("orchestrator", "orchestrator, resident at rest", "-"),
    ];
    for (name, what, goal) in rows {
        let pid = lab
            .pid(name)
            .with_context(|| format!("{name} does not run"))?;
        table.row(
            what,
            mib(resident(pid)?),
            format!("cat: {}", mib(baseline_kib)),
            goal,
        );
    }
    Ok(())
}
