//! Old jobs are removed: the database keeps what ended within the configured time, and no more.

use std::time::Duration;

use daemon::Tasks;

use crate::clock::wall;
use crate::store::Store;

/// How often old jobs are looked for.
const INTERVAL: Duration = Duration::from_secs(3600);

/// How many jobs are removed in one transaction: others wait to write meanwhile, and a job may have
/// tens of thousands of nodes.
const AT_ONCE: u32 = 5;

/// Removes what ended longer ago than `threshold`, now and from time to time.
pub(crate) fn start(store: Store, threshold: Duration, tasks: &Tasks) {
    let shutdown = tasks.shutdown_token();
    let threshold = i64::try_from(threshold.as_millis()).unwrap_or(i64::MAX);
    tasks.spawn("prune", async move {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = interval.tick() => {}
            }
            prune(&store, wall().saturating_sub(threshold)).await;
        }
    });
}

/// Removes all that ended before a time.
async fn prune(store: &Store, before: i64) {
    let mut removed = 0;
    loop {
        match store.prune(before, AT_ONCE).await {
            Ok(0) => break,
            Ok(jobs) => removed += jobs,
            Err(error) => {
                let error = error.with_hint();
                tracing::warn!(error, "old jobs could not be removed; trying again later");
                break;
            }
        }
    }
    if removed > 0 {
        tracing::info!(removed, "old jobs removed");
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::{JobState, JobsQuery};

    use super::*;
    use crate::store::tests::{apply, entered, new_job};

    #[tokio::test]
    async fn what_ended_long_ago_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a.db")).unwrap();
        let mut jobs = vec![];
        for number in 0..12 {
            let transaction = format!("t{number}");
            jobs.push(
                store
                    .add_job(new_job("a", &[&transaction], 1))
                    .await
                    .unwrap(),
            );
        }
        // The last one has not ended. Ends are at 30.
        for job in &jobs[..11] {
            apply(&store, vec![entered(*job, JobState::Failed)]).await;
        }
        prune(&store, 30).await;
        let total = store.jobs(JobsQuery::default()).await.unwrap().1;
        assert_eq!(total, 12, "ended at that time and not before it");
        prune(&store, 31).await;
        let (left, total) = store.jobs(JobsQuery::default()).await.unwrap();
        assert_eq!((left[0].id, total), (jobs[11], 1));
        assert_eq!(store.count("node_runs").await, 1);
        assert_eq!(store.count("events").await, 0);
        assert_eq!(store.count("job_states").await, 2);
    }
}
