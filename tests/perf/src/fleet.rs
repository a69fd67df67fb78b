//! Broker memory a connected agent: real sessions of the real client, each with a certificate of its
//! own, to one compiler. What they cost the primary, which hears of them all, is a second figure.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::Lab;
use pcp::ClientType;
use pcp_client::{BrokerAddress, ClientConfig, Event};

use crate::controller::identity;
use crate::memory::{cpu_seconds, resident};
use crate::table::Table;

/// Connects `agents` clients and reads the brokers' memory before and after.
pub(crate) async fn measure(lab: &Lab, agents: usize, table: &mut Table) -> Result<()> {
    let compiler = lab.pid("compiler-1").context("the compiler does not run")?;
    let primary = lab.pid("primary").context("the primary does not run")?;
    let names: Vec<_> = (0..agents)
        .map(|number| format!("fleet-{number}"))
        .collect();
    for name in &names {
        lab.issue(name, &[])?;
    }
    let broker: BrokerAddress = lab
        .broker_compilers()
        .first()
        .context("no compiler")?
        .parse()?;
    let before = (
        resident(compiler)?,
        resident(primary)?,
        cpu_seconds(compiler)?,
    );
    let tasks = daemon::Tasks::new();
    let start = Instant::now();
    let mut sessions = Vec::with_capacity(agents);
    for name in &names {
        let software = daemon::software("perf");
        let config = ClientConfig::new(
            vec![broker.clone()],
            identity(lab, name)?,
            ClientType::agent(),
            software,
        );
        sessions.push(pcp_client::start(config, &tasks));
    }
    for (_, events) in &mut sessions {
        while !matches!(
            events.recv().await.context("a client has ended")?,
            Event::Connected { .. }
        ) {}
    }
    let wall = start.elapsed();
    let after = (
        resident(compiler)?,
        resident(primary)?,
        cpu_seconds(compiler)?,
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / agents as f64;
    table.row(
        format!("compiler memory a connected agent, at {agents}"),
        format!("{:.1} KiB", each(before.0, after.0)),
        "bare quinn, tuned: 27.9 KiB (measured apart)",
        "<= 30 KiB at 10,000",
    );
    table.row(
        format!("primary memory an agent behind a compiler, at {agents}"),
        format!("{:.2} KiB", each(before.1, after.1)),
        "-",
        "-",
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let handshake = (after.2 - before.2) * 1000.0 / agents as f64;
    table.row(
        "compiler CPU a connection (handshake, session, inventory)",
        format!("{handshake:.2} ms"),
        format!(
            "all connected in {:.1} s, both ends on this machine",
            wall.as_secs_f64()
        ),
        "-",
    );
    tasks.shutdown(Duration::from_secs(20)).await;
    Ok(())
}
