//! Counts by day.

use orchestrator_api::{Date, UsageDay};
use rusqlite::{Connection, params};

use super::{Store, StoreError, row};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

impl Store {
    /// What was done on each of these days, in their order.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn usage(&self, days: Vec<Date>) -> Result<Vec<UsageDay>, StoreError> {
        self.read(move |connection| days.into_iter().map(|date| day(connection, date)).collect())
            .await
    }
}

fn day(connection: &Connection, date: Date) -> Result<UsageDay, StoreError> {
    let error = || StoreError::of("count what was done");
    let start = date.as_millis();
    let end = start.saturating_add(DAY);
    let total: i64 = connection
        .prepare_cached("SELECT count(*) FROM nodes WHERE coalesce(first_seen, 0) < ?1")
        .and_then(|mut select| select.query_row(params![end], |row| row.get(0)))
        .map_err(error())?;
    // Jobs that ended before that day have no part in it, and an index tells which.
    let (tasks, plans, corrective, changed): (i64, i64, i64, i64) = connection
        .prepare_cached(
            "SELECT count(DISTINCT CASE WHEN jobs.type = 'task' THEN certname END), \
             count(DISTINCT CASE WHEN jobs.type LIKE 'plan\\_%' ESCAPE '\\' THEN certname END), \
             coalesce(sum(CASE WHEN jobs.type = 'deploy' THEN \
                 json_extract(result, '$.metrics.corrective_change') END), 0), \
             coalesce(sum(CASE WHEN jobs.type = 'deploy' THEN \
                 json_extract(result, '$.metrics.changed') END), 0) \
             FROM jobs JOIN node_runs ON node_runs.job = jobs.id \
             WHERE (jobs.finished IS NULL OR jobs.finished >= ?1) AND jobs.created < ?2 \
             AND node_runs.finished >= ?1 AND node_runs.finished < ?2 \
             AND node_runs.started IS NOT NULL",
        )
        .and_then(|mut select| {
            select.query_row(params![start, end], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
        })
        .map_err(error())?;
    Ok(UsageDay {
        date,
        total_nodes: row::count(total),
        nodes_with_agent: row::count(total),
        nodes_without_agent: 0,
        corrective_agent_changes: Some(row::count(corrective)),
        intentional_agent_changes: Some(row::count(changed.saturating_sub(corrective))),
        nodes_affected_by_task_runs: row::count(tasks),
        nodes_affected_by_plan_runs: row::count(plans),
    })
}
