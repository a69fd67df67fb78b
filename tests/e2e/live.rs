//! What a task writes is seen while it runs, piece by piece, and afterwards from the beginning.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::support::mesh;

const PATIENCE: Duration = Duration::from_secs(60);

/// One piece of the output of `agent-1`, from these offsets on.
fn piece(lab: &Lab, job: &str, stdout: u64, stderr: u64) -> Result<Value, String> {
    let path = format!("jobs/{job}/nodes/agent-1/output?stdout={stdout}&stderr={stderr}&wait=1");
    match lab.api_get(&path) {
        Ok((200, piece)) => Ok(piece),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn output_is_read_by_offset_while_the_task_runs_and_afterwards() {
    let lab = mesh(1);
    let gate = lab.dir().join("gate");
    let body = json!({"task": "probe::talk", "params": {"gate": gate},
        "scope": {"nodes": ["agent-1"]}});
    let (status, answer) = lab
        .api_post("command/task", &body)
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    let job = answer["job"]["name"].as_str().expect("a name").to_owned();

    let first = wait_until("the first line is there", PATIENCE, || {
        let piece = piece(&lab, &job, 0, 0)?;
        match (&piece["stdout"]["data"], &piece["stderr"]["data"]) {
            (Value::String(out), Value::String(err)) if !out.is_empty() && !err.is_empty() => {
                Ok(piece)
            }
            _ => Err(piece.to_string()),
        }
    })
    .expect("live output");
    assert_eq!(first["stdout"]["data"], "before the gate\n");
    assert_eq!(first["stderr"]["data"], "on the other stream\n");
    assert_eq!(
        (&first["end"], &first["state"]),
        (&json!(false), &json!("running"))
    );

    fs::write(&gate, "").expect("a writable lab");
    let next = first["stdout"]["next"].as_u64().expect("an offset");
    let rest = wait_until("the last line is there", PATIENCE, || {
        let piece = piece(&lab, &job, next, 0)?;
        if piece["end"] == true {
            return Ok(piece);
        }
        Err(piece.to_string())
    })
    .expect("the rest");
    assert_eq!(rest["stdout"]["data"], "behind the gate\n");

    wait_until("the job has ended", PATIENCE, || {
        match lab.api_get(&format!("jobs/{job}")) {
            Ok((200, job)) if job["state"] == "finished" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .expect("an end");
    let all = piece(&lab, &job, 0, 0).expect("the stored output");
    assert_eq!(all["stdout"]["data"], "before the gate\nbehind the gate\n");
    assert_eq!(all["stderr"]["data"], "on the other stream\n");
    assert_eq!(all["end"], true);
}

#[test]
fn the_command_line_shows_what_nodes_write_while_they_write_it() {
    let lab = mesh(2);
    let gate = lab.dir().join("gate");
    let mut child = lab
        .puppet_task_command()
        .args(["run", "probe::talk", &format!("gate={}", gate.display())])
        .args(["--nodes", "agent-1,agent-2", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"))
        .lines()
        .map(|line| line.expect("text"));
    let mut seen: Vec<String> = vec![];
    // Nothing ends before the gate opens: these lines come while the tasks run.
    let early = ["agent-1", "agent-2"].map(|node| format!("[{node}] before the gate"));
    while !early.iter().all(|line| seen.contains(line)) {
        seen.push(lines.next().expect("lines of both nodes"));
    }
    fs::write(&gate, "").expect("a writable lab");
    seen.extend(lines);
    assert_eq!(child.wait().expect("an end").code(), Some(0), "{seen:#?}");
    for node in ["agent-1", "agent-2"] {
        let at = |line: &str| {
            let line = line.replace("NODE", node);
            let mut found = seen.iter().enumerate().filter(|(_, it)| **it == line);
            let first = found.next().unwrap_or_else(|| panic!("{line}: {seen:#?}"));
            assert!(found.next().is_none(), "{line} is told once: {seen:#?}");
            first.0
        };
        at("[NODE] stderr: on the other stream");
        let (begun, written) = (at("Started on NODE ..."), at("[NODE] behind the gate"));
        assert!(begun < written && written < at("Finished on node NODE"));
    }
    assert!(
        !seen.iter().any(|line| line.contains("STDOUT")),
        "{seen:#?}"
    );
}
