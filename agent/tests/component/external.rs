//! External modules: loaded by what they say of themselves, called in the original's protocol, and held
//! like everything else that the agent runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use serde_json::{Value, json};

use crate::node::{Node, open_gate, request, wait_until};
use crate::played::blocking;
use crate::stop::stop_and_outcome;

/// A module whose action gives back what it was given, and writes where it is told to.
const MIRROR: &str = r#"
case $1 in
    metadata) cat <<'END'
{"description": "gives back what it gets",
 "configuration": {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]},
 "actions": [
  {"name": "show", "description": "shows it",
   "input": {"type": "object", "properties": {"argument": {"type": "string"}}, "required": ["argument"]},
   "results": {"type": "object", "properties": {"given": {"type": "object"}}, "required": ["given"]}},
  {"name": "wait", "input": {"type": "object"}, "results": {"type": "object"}}]}
END
    ;;
    show)
        input=$(cat)
        files=$(echo "$input" | sed -n 's/.*"output_files":{"stdout":"\([^"]*\)".*/\1/p')
        echo "looking" >&2
        results="{\"given\": $input}"
        if [ -n "$files" ]; then
            echo "$results" >"$files"; echo 3 >"$(dirname "$files")/exitcode"
        else
            echo "$results"; exit 3
        fi ;;
    wait) echo begun >&2; while :; do sleep 1; done ;;
esac
"#;

/// A node with these modules, each a name and a script.
fn node(modules: &[(&str, &str)]) -> Option<Node> {
    let node = Node::new("")?;
    let dir = node.path("modules");
    let config = node.path("modules.d");
    node.reconfigure(&format!(
        "modules-dir: {dir:?}\nmodules-config-dir: {config:?}"
    ));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&config).unwrap();
    for (name, script) in modules {
        fs::write(dir.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        mode(&node, &format!("modules/{name}"), 0o755);
    }
    Some(node)
}

fn mode(node: &Node, name: &str, mode: u32) {
    fs::set_permissions(node.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_module_is_called_with_its_configuration_and_its_results_are_the_results() {
    let Some(node) = node(&[("mirror", MIRROR)]) else {
        return;
    };
    fs::write(node.path("modules.d/mirror.conf"), r#"{"size": 7}"#).unwrap();
    node.policy("rules: { no: { when: { modules: [mirror], actions: [wait] }, then: refuse } }");
    let t1 = &node.id("t1");
    let (_program, mut peer) = node.spawn().await;
    let params = json!({"argument": "hunter2"});
    let results: Value = peer.ask("mirror", "show", &params.to_string()).await;
    let given = json!({"input": params, "configuration": {"size": 7}});
    assert_eq!(results, json!({"given": given}));
    peer.request(NonBlockingRequest, &request(t1, "mirror", "show", &params))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    assert_eq!(results["given"]["input"], params);
    let files = &results["given"]["output_files"];
    assert!(
        files["stderr"].is_string() && files["exitcode"].is_string(),
        "{files}"
    );
    // The exit code is for who asks for the status.
    let status = peer.status(t1, pxp::Status::Failure).await;
    assert_eq!(status.exitcode, Some(3));
    assert_eq!(status.stderr.as_deref(), Some("looking\n"));
    for file in ["metadata", "plan.json"] {
        assert!(
            !node.read(&format!("spool/{t1}/{file}")).contains("hunter2"),
            "{file}"
        );
    }
    let refused = [
        (
            "show",
            json!({"argument": 1}),
            "invalid input for 'mirror show': /argument: it is not",
        ),
        ("show", json!({}), "\"argument\" is missing"),
        (
            "other",
            json!({}),
            "unknown action 'other' for module 'mirror'",
        ),
        ("wait", json!({}), "refused by the rule \"no\""),
    ];
    for (action, params, words) in refused {
        let body = blocking("mirror", action, &params.to_string());
        peer.request(BlockingRequest, &body).await;
        let error = peer.error("q").await;
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_module_that_is_no_good_is_named_and_left_out_and_the_others_stay() {
    let Some(node) = node(&[
        ("mirror", MIRROR),
        ("unconfigured", MIRROR),
        ("silent", "exit 0"),
        (
            "loud",
            "echo '{\"description\": \"\", \"actions\": []}'; echo oops >&2",
        ),
        (
            "unchecked",
            r#"echo '{"description": "", "actions": [{"name": "a", "input": {"pattern": "x"}, "results": {}}]}'"#,
        ),
        ("writable", MIRROR),
        ("echo", MIRROR),
        ("with.extension", MIRROR),
    ]) else {
        return;
    };
    for name in ["mirror", "writable"] {
        fs::write(
            node.path(&format!("modules.d/{name}.conf")),
            r#"{"size": 7}"#,
        )
        .unwrap();
    }
    fs::write(
        node.path("modules.d/unconfigured.conf"),
        r#"{"size": "large"}"#,
    )
    .unwrap();
    mode(&node, "modules/writable", 0o777);
    let (_program, mut peer) = node.spawn().await;
    let results: Value = peer.ask("mirror", "show", r#"{"argument": "x"}"#).await;
    assert_eq!(results["given"]["input"]["argument"], "x");
    let log = node.read("log");
    for (module, words) in [
        (
            "unconfigured",
            "its configuration is invalid: /size: it is not of the type integer",
        ),
        ("silent", "metadata is not in a valid JSON format"),
        ("loud", "failed to load external module metadata: oops"),
        ("unchecked", "the keyword \"pattern\" is not supported"),
        ("writable", "could be changed by somebody other than root"),
    ] {
        let line = |line: &&str| line.contains(module) && line.contains("not loaded");
        // A log line may quote what it says.
        let told = log.lines().find(line).unwrap_or_default().replace('\\', "");
        assert!(told.contains(words), "{module}: {told:?}\n{log}");
        peer.request(BlockingRequest, &blocking(module, "show", "{}"))
            .await;
        assert_eq!(peer.error("q").await, format!("unknown module: {module}"));
    }
    // The agent's own modules are not replaced.
    let echoed: Value = peer.ask("echo", "echo", r#"{"argument": "x"}"#).await;
    assert_eq!(echoed, json!({"outcome": "x"}));
}

#[tokio::test]
async fn a_module_is_stopped_and_limited_like_a_task() {
    let Some(node) = node(&[("mirror", MIRROR)]) else {
        return;
    };
    let (t1, t2) = (&node.id("t1"), &node.id("t2"));
    let (_program, mut peer) = node.spawn().await;
    peer.request(
        NonBlockingRequest,
        &request(t1, "mirror", "wait", &json!({})),
    )
    .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("it runs", || {
        node.read(&format!("spool/{t1}/stderr")) == "begun\n"
    })
    .await;
    let (stopped, outcome) = stop_and_outcome(&mut peer, t1).await;
    assert_eq!(stopped["state"], "stopped");
    let why = outcome["description"].as_str().unwrap();
    assert!(why.contains("the task was stopped"), "{why}");
    let params = json!({"pxp_mesh": {"time_limit": 1}});
    peer.request(NonBlockingRequest, &request(t2, "mirror", "wait", &params))
        .await;
    peer.expect(ProvisionalResponse).await;
    let why = peer.error(t2).await;
    assert!(why.contains("time limit of 1 s"), "{why}");
}

/// A module whose action says which edition it is, `slow` not before something is written to the gate.
fn edition(name: &str, gate: &std::path::Path) -> String {
    let actions = ["quick", "slow"].map(|action| {
        json!({
            "name": action, "input": {"type": "object"},
            "results": {"type": "object", "properties": {name: {}}, "required": [name]},
        })
    });
    let metadata = json!({"description": "an edition", "actions": actions});
    format!(
        r#"case $1 in
            metadata) echo '{metadata}' ;;
            slow) echo begun >&2; read -r word <{gate:?}; echo '{{"{name}": 1}}' ;;
            quick) echo '{{"{name}": 1}}' ;;
        esac"#
    )
}

/// Puts a module in the place of another, as packages do it.
fn install(node: &Node, name: &str, script: &str) {
    fs::write(node.path("modules/.new"), format!("#!/bin/sh\n{script}\n")).unwrap();
    mode(node, "modules/.new", 0o755);
    fs::rename(
        node.path("modules/.new"),
        node.path(&format!("modules/{name}")),
    )
    .unwrap();
}

#[tokio::test]
async fn modules_are_read_again_on_hangup_and_what_runs_ends_as_it_began() {
    let Some(node) = node(&[]) else {
        return;
    };
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    for name in ["changed", "removed", "broken"] {
        install(&node, name, &edition("first", &gate));
    }
    let t1 = &node.id("t1");
    let (program, mut peer) = node.spawn().await;
    for name in ["changed", "removed", "broken"] {
        let results: Value = peer.ask(name, "quick", "{}").await;
        assert_eq!(results, json!({"first": 1}), "{name}");
    }
    peer.request(
        NonBlockingRequest,
        &request(t1, "changed", "slow", &json!({})),
    )
    .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("it runs", || {
        node.read(&format!("spool/{t1}/stderr")) == "begun\n"
    })
    .await;
    install(&node, "changed", &edition("second", &gate));
    install(&node, "added", &edition("second", &gate));
    install(&node, "broken", "echo no longer");
    fs::remove_file(node.path("modules/removed")).unwrap();
    program.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("they are read", || {
        node.read("log").contains("external modules read again")
    })
    .await;
    for name in ["changed", "added"] {
        let results: Value = peer.ask(name, "quick", "{}").await;
        assert_eq!(results, json!({"second": 1}), "{name}");
    }
    for name in ["removed", "broken"] {
        peer.request(BlockingRequest, &blocking(name, "quick", "{}"))
            .await;
        assert_eq!(peer.error("q").await, format!("unknown module: {name}"));
        let log = node.read("log");
        let told = log.lines().any(|line| {
            line.contains(name)
                && (line.contains("not loaded") || line.contains("not there any more"))
        });
        assert!(told, "{name}: {log}");
    }
    // What was accepted before is held to what the module said then.
    open_gate(gate).await;
    assert_eq!(peer.outcome(t1).await, json!({"first": 1}));
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn signals_count_while_modules_are_asked_at_the_start() {
    let Some(node) = node(&[]) else {
        return;
    };
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script =
        format!("read -r word <{gate:?}\necho '{{\"description\": \"\", \"actions\": []}}'");
    install(&node, "slow", &script);
    let (program, mut peer) = node.spawn().await;
    program.signal(nix::sys::signal::Signal::SIGHUP);
    open_gate(gate.clone()).await;
    peer.nothing_waits().await;
    assert_eq!(program.terminate(), Some(0));
    let (program, _peer) = node.spawn().await;
    assert_eq!(program.terminate(), Some(0));
    // Should it have come as far as asking, whatever was asked ends; open for both, nobody is waited for.
    let gate = fs::File::options().read(true).write(true).open(gate);
    std::io::Write::write_all(&mut gate.unwrap(), b"word\n").unwrap();
}
