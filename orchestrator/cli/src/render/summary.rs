//! The end of a job in two lines, and its present in one.

use std::collections::BTreeMap;

use orchestrator_api::{Job, JobOptions, JobState, NodeState};

/// How many nodes are in which state, for the progress bar: `3 running, 2 finished, 1 failed`.
pub(crate) fn counts(running: u64, ended: &BTreeMap<NodeState, u64>) -> String {
    let mut parts = Vec::new();
    if running > 0 {
        parts.push(format!("{running} running"));
    }
    for (state, count) in ended {
        parts.push(format!("{count} {}", state.text()));
    }
    parts.join(", ")
}

/// The last lines about a job.
pub(crate) fn summary(job: &Job) -> String {
    let states = job.node_states.clone().unwrap_or_default();
    let count = |state: NodeState| states.get(&state).copied().unwrap_or_default();
    let succeeded = count(NodeState::Finished);
    let failed = count(NodeState::Failed) + count(NodeState::Errored) + count(NodeState::Stopped);
    let skipped = count(NodeState::Skipped);
    let all = format!(
        "{} failed, {} skipped, {} succeeded.",
        nodes(failed),
        nodes(skipped),
        nodes(succeeded)
    );
    let first = match job.state {
        JobState::Finished if matches!(job.options, JobOptions::Deploy(_)) => {
            format!("Success! {succeeded}/{} runs succeeded.", job.node_count)
        }
        JobState::Finished => {
            format!(
                "Job completed. {succeeded}/{} nodes succeeded.",
                job.node_count
            )
        }
        JobState::Failed => format!("Job failed. {all}"),
        JobState::Stopped => format!("Job stopped. {all}"),
        JobState::New | JobState::Ready | JobState::Running | JobState::Stopping => {
            format!("Job {}. {all}", job.state.text())
        }
    };
    match job.duration.as_deref().and_then(|text| text.parse().ok()) {
        Some(seconds) => format!("{first}\nDuration: {}\n", duration(seconds)),
        None => format!("{first}\n"),
    }
}

fn nodes(count: u64) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

/// Seconds as people say them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest whole number of seconds, never below zero"
)]
pub(super) fn duration(seconds: f64) -> String {
    // Where tenths matter they are shown.
    if (0.0..9.95).contains(&seconds) {
        let text = format!("{seconds:.1}");
        return format!("{} sec", text.strip_suffix(".0").unwrap_or(&text));
    }
    let seconds = seconds.round().max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut parts = Vec::new();
    if hours > 0 {
        parts.push(format!("{hours} h"));
    }
    if minutes > 0 || hours > 0 {
        parts.push(format!("{minutes} min"));
    }
    parts.push(format!("{seconds} sec"));
    parts.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in super::super) fn job(state: &str, states: &Value, duration: Option<&str>) -> Job {
        let total: u64 = states
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum();
        serde_json::from_value(json!({
            "id": "u", "name": "2", "state": state, "command": "task", "type": "task",
            "options": {"description": "", "plan_job": null, "noop": false, "task": "a",
                "sensitive": [], "scheduled-job-id": null, "params": {},
                "scope": {"nodes": ["x"]}, "environment": "production", "timeout": null},
            "owner": {"id": "1", "login": "a", "email": "", "display_name": "", "is_revoked": false,
                "last_login": null, "is_remote": false, "is_superuser": true, "is_group": false,
                "role_ids": [], "inherited_role_ids": [], "group_ids": []},
            "description": "", "timestamp": "2026-11-22T14:30:00Z",
            "created_timestamp": "2026-11-22T14:30:00Z", "started_timestamp": null,
            "finished_timestamp": null, "duration": duration, "node_count": total,
            "node_states": states, "nodes": {"id": "u"}, "report": {"id": "u"},
            "events": {"id": "u"}, "environment": {"name": "production"}, "userdata": {},
        }))
        .unwrap()
    }

    #[test]
    fn the_summary_counts_what_counts() {
        for (state, states, duration, expected) in [
            (
                "finished",
                json!({"finished": 8}),
                Some("0.6"),
                "Job completed. 8/8 nodes succeeded.\nDuration: 0.6 sec\n",
            ),
            (
                "failed",
                json!({"finished": 81, "failed": 2, "errored": 1}),
                Some("75.0"),
                "Job failed. 3 nodes failed, 0 nodes skipped, 81 nodes succeeded.\nDuration: 1 min, 15 sec\n",
            ),
            (
                "stopped",
                json!({"finished": 1, "skipped": 2, "stopped": 1}),
                Some("3661.2"),
                "Job stopped. 1 node failed, 2 nodes skipped, 1 node succeeded.\nDuration: 1 h, 1 min, 1 sec\n",
            ),
            (
                "running",
                json!({"running": 1}),
                None,
                "Job running. 0 nodes failed, 0 nodes skipped, 0 nodes succeeded.\n",
            ),
        ] {
            assert_eq!(summary(&job(state, &states, duration)), expected);
        }
    }

    #[test]
    fn the_bar_tells_states_that_have_nodes() {
        let ended = BTreeMap::from([(NodeState::Failed, 1), (NodeState::Finished, 2)]);
        assert_eq!(counts(3, &ended), "3 running, 2 finished, 1 failed");
        assert_eq!(counts(0, &BTreeMap::new()), "");
    }
}
