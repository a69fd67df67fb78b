//! What a task in the profiles `standard` and `confined` cannot do, tried by a real one on a real agent, and
//! what it must be able to do all the same. The whole list is `agent/sandbox/ATTACKS.md`; here is shown
//! that an agent puts its own key, spool and configuration under that protection.

use std::fs;
use std::path::Path;

use lab::Lab;
use serde_json::json;

use crate::support::{modulepath, results, skip};

const ATTACKS: [&str; 13] = [
    "read-key ",
    "read-key-through-init ",
    "list-other-transactions ",
    "write-config ",
    "signal-agent ",
    "mount ",
    "unmount ",
    "unshare ",
    "user-namespace ",
    "core-pattern ",
    "sysrq ",
    "make-disk ",
    "load-module ",
];

#[test]
fn a_standard_task_manages_the_host_and_reaches_neither_keys_nor_agent_nor_kernel() {
    let Some(lab) = start() else { return };
    let told = attack(&lab);
    for attack in ATTACKS {
        assert_eq!(outcome(&told, attack), "refused", "{attack}: {told}");
    }
    for ordinary in ["write-etc ", "read-shadow ", "own-tmp ", "other-user "] {
        assert_eq!(outcome(&told, ordinary), "done", "{ordinary}: {told}");
    }
}

#[test]
fn a_task_that_the_policy_confines_does_none_of_it() {
    let Some(lab) = start() else { return };
    let config = lab.site().config("agent-1");
    let policy = config.parent().expect("a directory").join("policy.d");
    fs::create_dir(&policy).expect("a writable lab");
    let rule =
        "rules: { looks: { when: { tasks: [\"probe::*\"] }, then: allow, sandbox: confined } }";
    fs::write(policy.join("looks.conf"), rule).expect("a writable lab");
    lab.stop("agent-1").expect("the agent stops");
    lab.restart("agent-1").expect("the agent starts again");
    lab.wait_connected(1).expect("the agent is connected");
    let told = attack(&lab);
    for attack in ATTACKS
        .iter()
        .chain(&["write-etc ", "read-shadow ", "other-user "])
    {
        assert_eq!(outcome(&told, attack), "refused", "{attack}: {told}");
    }
    assert_eq!(outcome(&told, "own-tmp "), "done", "{told}");
}

/// A mesh with one agent that is root; `None` where there cannot be one.
fn start() -> Option<Lab> {
    if !nix::unistd::Uid::effective().is_root() {
        skip(
            "root",
            "only root's tasks have rights that can be taken from them",
        );
        return None;
    }
    let mut builder = Lab::builder().compilers(0).agents(1);
    for folder in modulepath() {
        builder = builder.modulepath(folder);
    }
    Some(builder.start().expect("the mesh starts"))
}

/// What the task told that tries everything: a line an attempt.
fn attack(lab: &Lab) -> String {
    let ssl = lab.ssl_dir("agent-1").expect("a certificate");
    let config = lab.site().config("agent-1");
    let params = json!({
        "key": ssl.join("private_keys/agent-1.pem"),
        "spool": lab.dir().join("var/agent-1/spool"),
        "config": &config,
        "agent": lab.pid("agent-1").expect("the agent runs"),
    });
    let read = |path: &Path| fs::read(path).expect("a configuration");
    let before = read(&config);
    let arguments = ["run", "probe::attack", "--nodes", "agent-1"];
    let params = params.to_string();
    let more = ["--params", params.as_str(), "--format", "json"];
    let output = lab.puppet_task(&[&arguments[..], &more[..]].concat());
    let results = results(&output);
    assert_eq!(
        before,
        read(&config),
        "the agent's configuration has changed"
    );
    let told = results[0].1["_output"].as_str();
    told.unwrap_or_else(|| panic!("{results:?}")).to_owned()
}

fn outcome<'a>(told: &'a str, name: &str) -> &'a str {
    let line = told.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}: {told}")).trim()
}
