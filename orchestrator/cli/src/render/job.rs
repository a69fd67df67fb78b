//! Jobs in words: the list, and one with its nodes.

use std::collections::BTreeMap;

use orchestrator_api::{Job, JobOptions, JobType, Node, NodeState, Scope, StoppedJob};
use serde_json::Value;

use super::group::Groups;
use super::outcome::{Manner, outcome};
use super::summary;
use crate::printable::{cut, printable};
use crate::screen::Mood;

/// How wide the column of what a job was about may be when the terminal does not say.
const TARGET_WIDTH: usize = 60;

/// The nodes of a job that are in one state.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) mood: Mood,
    pub(crate) headline: String,
    pub(crate) groups: Vec<(Mood, String, String)>,
}

/// What is said of a job that was just started.
pub(crate) fn beginning(job: &Job) -> String {
    let notes: String = job
        .options
        .notes()
        .iter()
        .map(|note| format!("Note: {}\n", printable(note)))
        .collect();
    let (name, count) = (printable(&job.name), job.node_count);
    format!("{notes}New job ID: {name}\nNodes: {count}\n\n")
}

/// A table of jobs: ID, STATUS, JOB TYPE, TIMESTAMP, TARGET.
pub(crate) fn job_list(jobs: &[Job], width: Option<usize>) -> String {
    let mut rows = vec![["ID", "STATUS", "JOB TYPE", "TIMESTAMP", "TARGET"].map(str::to_owned)];
    rows.extend(jobs.iter().map(|job| {
        [
            printable(&job.name),
            job.state.text().to_owned(),
            type_of(job.job_type).to_owned(),
            job.timestamp.to_string(),
            target(job),
        ]
    }));
    let widths: Vec<usize> = (0..4)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let before: usize = widths.iter().map(|width| width + 2).sum();
    let room = width.map_or(TARGET_WIDTH, |width| width.saturating_sub(before).max(10));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.push_str(&cut(row.last().map_or("", String::as_str), room));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn type_of(job_type: JobType) -> &'static str {
    match job_type {
        JobType::Deploy => "deploy",
        JobType::Task => "task",
        JobType::PlanTask => "plan_task",
        JobType::PlanScript => "plan_script",
        JobType::PlanUpload => "plan_upload",
        JobType::PlanCommand => "plan_command",
        JobType::PlanWait => "plan_wait",
        JobType::PlanApply => "plan_apply",
        JobType::PlanApplyPrep => "plan_apply_prep",
    }
}

/// What it ran, and where.
fn target(job: &Job) -> String {
    let scope = scope(job.options.scope());
    let what = job.options.task().unwrap_or("puppet run");
    printable(&format!("{what} on {scope}"))
}

fn scope(scope: &Scope) -> String {
    match scope {
        Scope::Nodes(nodes) => match nodes.as_slice() {
            [node] => node.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
            [] => "no node".to_owned(),
        },
        Scope::Query(query) => query.clone(),
        Scope::NodeGroup(group) => format!("node group {group}"),
    }
}

/// A job in lines of `Key: value`.
pub(crate) fn job(job: &Job) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        text.push_str(&format!("{:17}{}\n", format!("{key}:"), printable(value)));
    };
    let time = |time: Option<orchestrator_api::Time>| time.map(|time| time.to_string());
    line("Status", job.state.text());
    line("Job type", type_of(job.job_type));
    line(
        "Start time",
        &time(job.started_timestamp).unwrap_or_default(),
    );
    line(
        "Finish time",
        &time(job.finished_timestamp).unwrap_or_default(),
    );
    if let Some(seconds) = job.duration.as_deref().and_then(|it| it.parse().ok()) {
        line("Duration", &summary::duration(seconds));
    }
    line("User", &job.owner.login);
    line("Environment", &job.environment.name);
    line("Nodes", &job.node_count.to_string());
    if !job.description.is_empty() {
        line("Description", &job.description);
    }
    line("Scope", &scope(job.options.scope()));
    if let JobOptions::Task(task) = &job.options {
        line("Task name", &task.task);
        let mut parameters: Vec<String> = task
            .params
            .iter()
            .map(|(name, value)| match value {
                Value::String(value) => format!("{name}={value}"),
                other => format!("{name}={other}"),
            })
            .collect();
        let sensitive = task.sensitive.iter();
        parameters.extend(sensitive.map(|name| format!("{name}=[redacted]")));
        line("Task parameters", &parameters.join(" "));
    }
    if job.options.noop() {
        line("Noop", "yes");
    }
    for note in job.options.notes() {
        line("Note", note);
    }
    text
}

/// The nodes by state, equal outcomes once: what succeeded first, what failed last, where it is read.
pub(crate) fn sections(nodes: &[Node], manner: Manner) -> Vec<Section> {
    let mut states: BTreeMap<usize, (&'static str, Mood, Groups, usize)> = BTreeMap::new();
    for node in nodes {
        let (rank, word, mood) = match node.state {
            NodeState::Finished => (0, "SUCCEEDED", Mood::Good),
            NodeState::New | NodeState::Ready => (1, "WAITING", Mood::Odd),
            NodeState::Running | NodeState::Stopping => (2, "RUNNING", Mood::Odd),
            NodeState::Skipped => (3, "SKIPPED", Mood::Odd),
            NodeState::Stopped => (4, "STOPPED", Mood::Odd),
            NodeState::Errored => (5, "ERRORED", Mood::Bad),
            NodeState::Failed => (6, "FAILED", Mood::Bad),
        };
        let section = states
            .entry(rank)
            .or_insert_with(|| (word, mood, Groups::default(), 0));
        section.2.add(outcome(node, manner), &printable(&node.name));
        section.3 += 1;
    }
    let all = nodes.len();
    states
        .into_values()
        .map(|(word, mood, groups, count)| Section {
            mood,
            headline: format!("\n{word} ({count}/{all})"),
            groups: groups.render(),
        })
        .collect()
}

/// A body two columns further to the right.
pub(crate) fn indented(body: &str) -> String {
    body.lines().map(|line| format!("  {line}\n")).collect()
}

/// What is said of a job that was asked to stop.
pub(crate) fn stopped(job: &StoppedJob, force: bool) -> String {
    let counts = &job.nodes;
    let name = printable(&job.name);
    let busy = counts.new + counts.running;
    let mut text = if busy == 0 {
        format!("Job {name} has ended.\n")
    } else if force {
        format!("Job {name} ends at once, also on nodes where it runs.\n")
    } else {
        format!("Job {name} is stopping: nodes that have started finish, the others are skipped.\n")
    };
    let parts: Vec<String> = [
        (counts.new, "waiting"),
        (counts.running, "running"),
        (counts.finished, "finished"),
        (counts.failed, "failed"),
        (counts.errored, "errored"),
        (counts.skipped, "skipped"),
        (counts.stopped, "stopped"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    text.push_str(&format!("Nodes: {}\n", parts.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use orchestrator_api::TaskOptions;
    use serde_json::json;

    use super::super::outcome::tests::node;
    use super::super::summary::tests::job as sample;
    use super::*;

    /// The options of a job that runs a task, as all of these do.
    fn options(job: &mut Job) -> &mut TaskOptions {
        match &mut job.options {
            JobOptions::Task(task) => task,
            JobOptions::Deploy(_) => panic!("a Puppet run"),
        }
    }

    #[test]
    fn the_list_fits_the_terminal() {
        let mut first = sample("finished", &json!({"finished": 1}), None);
        options(&mut first).scope = Scope::Nodes(vec!["web1.example.com".into(), "web2".into()]);
        let mut second = sample("failed", &json!({"failed": 1}), None);
        second.name = "10".into();
        options(&mut second).scope =
            Scope::Query("nodes { certname ~ \"w\u{1b}\" and so on }".into());
        let list = job_list(&[first.clone(), second.clone()], Some(70));
        assert_eq!(
            list,
            "ID  STATUS    JOB TYPE  TIMESTAMP             TARGET\n\
             2   finished  task      2026-11-22T14:30:00Z  a on web1.example.com...\n\
             10  failed    task      2026-11-22T14:30:00Z  a on nodes { certname...\n"
        );
        assert!(list.lines().all(|line| line.chars().count() <= 70));
        assert!(job_list(&[first], Some(200)).contains("web1.example.com and 1 more"));
        assert!(!job_list(&[second], Some(200)).contains('\u{1b}'));
    }

    #[test]
    fn a_job_shows_what_was_asked_and_hides_what_is_secret() {
        let mut it = sample("finished", &json!({"finished": 1}), Some("75.0"));
        options(&mut it).params.insert("name".into(), json!("x"));
        options(&mut it).sensitive = vec!["password".into()];
        options(&mut it).notes = vec!["1 node is left out".into()];
        assert_eq!(
            job(&it),
            "Status:          finished\nJob type:        task\nStart time:      \n\
             Finish time:     \nDuration:        1 min, 15 sec\nUser:            a\n\
             Environment:     production\nNodes:           1\nScope:           x\n\
             Task name:       a\nTask parameters: name=x password=[redacted]\n\
             Note:            1 node is left out\n"
        );
        assert_eq!(
            beginning(&it),
            "Note: 1 node is left out\nNew job ID: 2\nNodes: 1\n\n"
        );
    }

    #[test]
    fn nodes_are_told_by_state_with_failures_last() {
        let nodes = [
            node(
                "b",
                NodeState::Failed,
                &json!({"_error": {"msg": "no"}}),
                None,
            ),
            node("a", NodeState::Finished, &json!({"_output": "x"}), None),
            node("c", NodeState::Finished, &json!({"_output": "x"}), None),
        ];
        let sections = sections(&nodes, Manner::default());
        let headlines: Vec<_> = sections.iter().map(|it| it.headline.as_str()).collect();
        assert_eq!(headlines, ["\nSUCCEEDED (2/3)", "\nFAILED (1/3)"]);
        assert_eq!(sections[0].groups[0].1, "Finished on nodes (2): a, c");
        assert_eq!(indented(&sections[0].groups[0].2), "    STDOUT:\n      x\n");
    }
}
