//! A whole estate behind one compiler that is played: what a primary and the orchestrator hold of it,
//! and what a job on all of it takes, without fifty thousand sessions on the same two cores.

use std::time::Instant;

use anyhow::{Context as _, Result};
use lab::{Lab, wait_until};
use pcp::{Certname, ClientType};
use pcp_client::ClientConfig;

use crate::controller::identity;
use crate::jobs::{self, Cost, DEADLINE};
use crate::memory::{cpu_seconds, mib, peak, resident};
use crate::table::Table;

/// The compiler whose place is taken.
const COMPILER: &str = "compiler-1";

/// Measures a few nodes and very many, each with a mesh of its own.
pub(crate) async fn measure(sizes: [usize; 2], table: &mut Table) -> Result<()> {
    let [few, many] = sizes;
    let (_, few_cost) = known(few, table).await?;
    let (lab, cost) = known(many, table).await?;
    let each = |cost: Cost, nodes| jobs::each(cost.wall, nodes);
    let each_cpu = |cost: Cost, nodes| jobs::each(cost.cpu, nodes);
    table.row(
        format!("job on {many} nodes behind a played compiler"),
        format!("{:.2} s", cost.wall),
        format!(
            "{:.2} times the cost a node of {few}",
            each(cost, many) / each(few_cost, few)
        ),
        "flat",
    );
    table.row(
        format!("orchestrator CPU a node, job on {many}"),
        format!("{:.0} us", each_cpu(cost, many)),
        format!(
            "{:.2} times that of {few}",
            each_cpu(cost, many) / each_cpu(few_cost, few)
        ),
        "flat",
    );
    let pid = lab.pid("orchestrator").context("it does not run")?;
    table.row(
        format!("orchestrator peak, {many} nodes connected and a job on all"),
        mib(peak(pid)?),
        "-",
        "50,000: <= 300 MiB",
    );
    Ok(())
}

/// Announces so many agents, says what knowing them takes, and runs a job on all.
async fn known(nodes: usize, table: &mut Table) -> Result<(Lab, Cost)> {
    let lab = jobs::mesh()?;
    lab.stop(COMPILER)?;
    let pids = ["primary", "orchestrator"].map(|name| lab.pid(name).context("it does not run"));
    let [primary, orchestrator] = pids;
    let (primary, orchestrator) = (primary?, orchestrator?);
    let before = (resident(primary)?, resident(orchestrator)?);
    let cpu = cpu_seconds(orchestrator)?;
    let config = ClientConfig::new(
        vec![lab.broker_primary().parse()?],
        identity(&lab, COMPILER)?,
        ClientType::server(),
        daemon::software("perf"),
    );
    let names: Vec<String> = (1..=nodes).map(fleet::certname).collect();
    let certnames = names.iter().map(|name| Certname::parse(name));
    let certnames: Vec<Certname> = certnames.collect::<Result<_, _>>()?;
    let tasks = daemon::Tasks::new();
    let start = Instant::now();
    fleet::compiler::start(config, certnames, &tasks).await?;
    let (lab, cost) = tokio::task::block_in_place(|| {
        wait_until("the orchestrator knows them", DEADLINE, || {
            let connected = lab.connected().map_err(|error| error.to_string())?.len();
            if connected >= nodes {
                return Ok(());
            }
            Err(format!("{connected} are known"))
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu = cpu_seconds(orchestrator)? - cpu;
        let more = (
            resident(primary)?.saturating_sub(before.0),
            resident(orchestrator)?.saturating_sub(before.1),
        );
        table.row(
            format!("{nodes} nodes announced until the API lists them"),
            format!("{seconds:.2} s, orchestrator CPU {cpu:.2} s"),
            "-",
            "-",
        );
        table.row(
            format!("memory for {nodes} known nodes: primary; orchestrator"),
            format!("{}; {}", mib(more.0), mib(more.1)),
            format!("their names: {}", mib(bytes(&names) / 1024)),
            "-",
        );
        let cost = jobs::run(&lab, &names)?;
        anyhow::Ok((lab, cost))
    })?;
    tasks.shutdown_token().cancel();
    Ok((lab, cost))
}

fn bytes(names: &[String]) -> u64 {
    names.iter().map(|name| name.len() as u64).sum()
}
