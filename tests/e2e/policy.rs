//! What a node's owner refuses, whatever the centre asks, and what everybody sees of it.

use std::fs;

use crate::support::{mesh, results, text};

#[test]
fn a_node_whose_policy_refuses_a_task_says_by_which_rule_and_the_others_run_it() {
    let lab = mesh(2);
    let config = lab.site().config("agent-1");
    let dir = config.parent().expect("a directory").join("policy.d");
    fs::create_dir(&dir).expect("a writable lab");
    let rule = "rules: { frozen: { when: { tasks: [\"probe::*\"] }, then: refuse, \
                reason: \"no changes before Monday; ask ops\" } }";
    fs::write(dir.join("frozen.conf"), rule).expect("a writable lab");
    lab.stop("agent-1").expect("the agent stops");
    lab.restart("agent-1").expect("the agent starts again");
    lab.wait_connected(2).expect("both agents are connected");
    let nodes = "agent-1,agent-2";
    let arguments = [
        "run",
        "probe::big",
        "bytes=3",
        "--nodes",
        nodes,
        "--format",
        "json",
    ];
    let output = lab.puppet_task(&arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let results = results(&output);
    let refused = results[0].1.to_string();
    assert!(
        refused.contains("refused by the rule") && refused.contains("frozen"),
        "{refused}"
    );
    assert!(
        refused.contains("no changes before Monday; ask ops"),
        "{refused}"
    );
    assert!(!results[1].1.to_string().contains("refused"), "{results:?}");
    // A person at a terminal sees the same.
    let output = lab.puppet_task(&["run", "probe::big", "bytes=3", "--nodes", "agent-1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("no changes before Monday"),
        "{}",
        text(&output)
    );
    // What the policy is silent about runs.
    let output = lab.puppet_task(&["run", "sample::host", "--nodes", "agent-1"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}
