//! What a task in the profile `standard` cannot do, tried by a real one on a real agent, and what it
//! must be able to do all the same.

use lab::Lab;
use serde_json::json;

use crate::support::{modulepath, results, skip};

#[test]
fn a_standard_task_manages_the_host_and_reaches_neither_keys_nor_agent_nor_kernel() {
    if !nix::unistd::Uid::effective().is_root() {
        skip(
            "root",
            "only root's tasks have rights that can be taken from them",
        );
        return;
    }
    let mut builder = Lab::builder().compilers(0).agents(1);
    for folder in modulepath() {
        builder = builder.modulepath(folder);
    }
    let lab = builder.start().expect("the mesh starts");
    let ssl = lab.ssl_dir("agent-1").expect("a certificate");
    let params = json!({
        "key": ssl.join("private_keys/agent-1.pem"),
        "spool": lab.dir().join("var/agent-1/spool"),
        "config": lab.site().config("agent-1"),
        "agent": lab.pid("agent-1").expect("the agent runs"),
    });
    let before = std::fs::read(lab.site().config("agent-1")).expect("a configuration");
    let arguments = ["run", "probe::attack", "--nodes", "agent-1"];
    let params = params.to_string();
    let more = ["--params", params.as_str(), "--format", "json"];
    let output = lab.puppet_task(&[&arguments[..], &more[..]].concat());
    let results = results(&output);
    let told = results[0].1["_output"].as_str().expect("text").to_owned();
    let outcome = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {told}"))
            .trim()
            .to_owned()
    };
    for attack in [
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
    ] {
        assert_eq!(outcome(attack), "refused", "{attack}: {told}");
    }
    for ordinary in ["write-etc ", "read-shadow ", "own-tmp ", "other-user "] {
        assert_eq!(outcome(ordinary), "done", "{ordinary}: {told}");
    }
    let after = std::fs::read(lab.site().config("agent-1")).expect("a configuration");
    assert_eq!(before, after, "the agent's configuration has changed");
}
