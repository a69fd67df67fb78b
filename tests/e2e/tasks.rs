//! Tasks of every shape, run through the command line, seen from both sides.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::wait_until;
use serde_json::json;

use crate::support::{json as document, mesh, results, text};

#[test]
fn a_task_runs_on_every_node_named() {
    let lab = mesh(3);
    let marks = lab.dir().join("marks");
    let file = format!("file={}", marks.display());
    let nodes = "agent-1,agent-2,agent-3";
    let output = lab.puppet_task(&[
        "run",
        "probe::mark",
        &file,
        "--nodes",
        nodes,
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let answer = document(&output);
    assert_eq!(answer["state"], "finished", "{answer:#}");
    assert!(answer["job_id"].is_string(), "{answer:#}");

    let results = results(&output);
    let names: Vec<_> = results.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["agent-1", "agent-2", "agent-3"]);
    let marks = fs::read_to_string(&marks).expect("the tasks ran here");
    let mut marks: Vec<_> = marks.lines().collect();
    let mut tokens: Vec<_> = results
        .iter()
        .map(|(_, result)| result["token"].as_str().expect("a token"))
        .collect();
    marks.sort_unstable();
    tokens.sort_unstable();
    assert_eq!(marks, tokens, "each ran once, and its own result came back");
}

#[test]
fn nodes_and_parameters_may_come_from_files_and_show_teaches_their_names() {
    let lab = mesh(2);
    let nodes = lab.dir().join("nodes");
    fs::write(&nodes, "# web servers\nagent-1\n\nagent-2\n").expect("a writable lab");
    let params = lab.dir().join("params.json");
    let marks = lab.dir().join("marks");
    fs::write(&params, json!({ "file": marks }).to_string()).expect("a writable lab");
    let output = lab.puppet_task(&[
        "run",
        "probe::mark",
        "--params",
        &format!("@{}", params.display()),
        "--nodes",
        &format!("@{}", nodes.display()),
        "--description",
        "from files",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let human = String::from_utf8_lossy(&output.stdout);
    assert!(human.contains("2/2 nodes succeeded"), "{human}");
    assert!(
        !human.contains('\u{1b}'),
        "escape codes in a pipe: {human:?}"
    );

    let output = lab.puppet_task(&["show"]);
    let list = String::from_utf8_lossy(&output.stdout);
    assert!(list.contains("probe::mark"), "{}", text(&output));
    let output = lab.puppet_task(&["show", "probe::mark"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in [
        "Leaves one line",
        "file",
        "String[1]",
        "Optional[String[1]]",
    ] {
        assert!(shown.contains(part), "{part} is missing: {}", text(&output));
    }
}

#[test]
fn output_of_every_shape_comes_back_as_it_was() {
    let lab = mesh(1);
    let run = |arguments: &[&str]| {
        let mut all = vec!["run"];
        all.extend(arguments);
        all.extend(["--nodes", "agent-1", "--format", "json"]);
        lab.puppet_task(&all)
    };

    // Larger than what is sent inline (16 KiB): it crosses both brokers on a stream of its own.
    let output = run(&["probe::big", "bytes=1000000"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let result = &results(&output)[0].1;
    assert_eq!(result["_output"].as_str().map(str::len), Some(1_000_000));

    let output = run(&["probe::fail", "code=3"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let error = &results(&output)[0].1["_error"];
    assert_eq!(error["kind"], "puppetlabs.tasks/task-error", "{error:#}");
    assert_eq!(error["details"]["exitcode"], 3, "{error:#}");
    assert!(
        error["msg"]
            .as_str()
            .is_some_and(|m| m.contains("it broke")),
        "{error:#}"
    );

    let output = run(&["probe::files"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let result = &results(&output)[0].1;
    assert_eq!(result["shared"], "from a support file", "{result:#}");
    assert_eq!(result["task"], "probe::files", "{result:#}");
}

#[test]
fn noop_reaches_tasks_that_support_it_and_no_other() {
    let lab = mesh(1);
    let run = |task: &str, more: &[&str]| {
        let mut all = vec![
            "run", task, "--noop", "--nodes", "agent-1", "--format", "json",
        ];
        all.extend(more);
        lab.puppet_task(&all)
    };
    let output = run("probe::files", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(results(&output)[0].1["noop"], "true", "{}", text(&output));
    let output = run("probe::mark", &["file=/nonexistent/never"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("noop"), "{}", text(&output));
}

#[test]
fn a_secret_reaches_the_task_and_no_file() {
    let lab = mesh(1);
    let secret = "correct-horse-battery-staple";
    let gate = lab.dir().join("gate");
    let mut command = lab.puppet_task_command();
    command.args([
        "run",
        "probe::secret",
        "--nodes",
        "agent-1",
        "--format",
        "json",
    ]);
    command
        .arg(format!("password={secret}"))
        .arg(format!("gate={}", gate.display()));
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("the command line starts");
    wait_until("the task runs", Duration::from_secs(60), || {
        let (_, answer) = lab
            .api_get("jobs/1/nodes")
            .map_err(|error| error.to_string())?;
        let state = answer["items"][0]["state"].clone();
        if state == "running" {
            Ok(())
        } else {
            Err(state.to_string())
        }
    })
    .expect("the job starts");
    // While it runs: spool, plan, database, logs and task files are all there.
    assert_eq!(files_with(lab.dir(), secret), Vec::<String>::new());
    fs::write(&gate, "").expect("a writable lab");
    let output = child.wait_with_output().expect("the command line ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(
        results(&output)[0].1["length"],
        secret.len(),
        "{}",
        text(&output)
    );
    assert_eq!(files_with(lab.dir(), secret), Vec::<String>::new());

    let (status, job) = lab.api_get("jobs/1").expect("the API answers");
    assert_eq!(status, 200);
    assert!(!job.to_string().contains(secret), "{job:#}");
    assert_eq!(job["options"]["sensitive"], json!(["password"]), "{job:#}");
}

/// The files below `dir` that hold `needle`.
fn files_with(dir: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable folder").flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        if kind.is_dir() {
            found.extend(files_with(&path, needle));
        } else if kind.is_file() {
            // A file may go away between listing and reading; then it holds nothing.
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes
                .windows(needle.len())
                .any(|window| window == needle.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_stopped_job_starts_no_further_nodes_and_ends() {
    let lab = lab::Lab::builder()
        .compilers(1)
        .agents(2)
        .modulepath(Path::new(env!("CARGO_MANIFEST_DIR")).join("modules"))
        .config("orchestrator", "orchestrator { task-concurrency: 1 }")
        .start()
        .expect("the mesh starts");
    let gate = lab.dir().join("gate");
    let marks = lab.dir().join("marks");
    let body = json!({
        "task": "probe::mark",
        "params": { "file": marks, "gate": gate },
        "scope": { "nodes": ["agent-1", "agent-2"] },
    });
    let (status, answer) = lab
        .api_post("command/task", &body)
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    wait_until("one task has begun", Duration::from_secs(60), || {
        let lines = fs::read_to_string(&marks)
            .unwrap_or_default()
            .lines()
            .count();
        if lines == 1 { Ok(()) } else { Err(lines) }
    })
    .expect("the job runs");
    let (status, answer) = lab
        .api_post("command/stop", &json!({ "job": "1" }))
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    fs::write(&gate, "").expect("a writable lab");
    let states = wait_until("the job has stopped", Duration::from_secs(60), || {
        let (_, job) = lab.api_get("jobs/1").map_err(|error| error.to_string())?;
        if job["state"] == "stopped" {
            Ok(job["node_states"].clone())
        } else {
            Err(job.to_string())
        }
    })
    .expect("the job stops");
    assert_eq!(states["finished"], 1, "{states}");
    assert_eq!(states["skipped"], 1, "{states}");
    assert_eq!(
        fs::read_to_string(&marks).expect("marks").lines().count(),
        1
    );
}
