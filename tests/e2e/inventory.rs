//! Where each node is: the inventory names the broker that holds it, and follows it to another.

use std::time::Duration;

use lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::support::mesh;

/// Reconnecting takes seconds; a loaded machine takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until the inventory's item of `agent-1` is right.
fn item(lab: &Lab, what: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    let found = wait_until(what, PATIENCE, || match lab.api_get("inventory/agent-1") {
        Ok((200, item)) if is_right(&item) => Ok(item),
        other => Err(format!("{other:?}")),
    });
    found.expect(what)
}

fn is_at(item: &Value, compiler: &str) -> bool {
    item["connected"] == true && item["broker"] == format!("pcp://{compiler}/server")
}

#[test]
fn the_inventory_names_the_compiler_that_holds_a_node_and_follows_it() {
    let lab = mesh(2);
    let compilers = ["compiler-1", "compiler-2"];
    let first = item(&lab, "agent-1 is at a compiler", |item| {
        compilers.iter().any(|compiler| is_at(item, compiler))
    });
    let holds = |compiler: &&&str| is_at(&first, compiler);
    let at = *compilers.iter().find(holds).expect("one of the two");
    let other = compilers[usize::from(at == compilers[0])];
    lab.stop(at).expect("the compiler stops");
    let second = item(&lab, "agent-1 is at the other one", |item| {
        is_at(item, other)
    });
    let stamp = |item: &Value| item["timestamp"].as_str().expect("a time").to_owned();
    assert!(stamp(&second) >= stamp(&first), "{first} {second}");

    let body = json!({"nodes": ["agent-1", "nobody"]});
    let (status, some) = lab.api_post("inventory", &body).expect("an answer");
    assert_eq!(status, 200, "{some}");
    assert!(is_at(&some["items"][0], other), "{some}");
    assert_eq!(
        some["items"][1],
        json!({"name": "nobody", "connected": false})
    );
}
