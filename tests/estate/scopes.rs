//! Which nodes a scope means, asked of a real PuppetDB.

use serde_json::json;

use crate::said::{results, text};
use crate::stack::Stack;
use crate::support::{mesh, puppet};

#[test]
fn a_task_of_puppet_server_runs_on_the_nodes_of_a_query() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 4).start().expect("the mesh starts");
    let query = r#"inventory[certname] { certname ~ "^web" }"#;
    let output = puppet(
        &stack,
        &lab,
        &[
            "task",
            "run",
            "stacktest::hello",
            "name=fleet",
            "--query",
            query,
            "--format",
            "json",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let greeting = json!({"greeting": "hello fleet", "task": "stacktest::hello", "noop": ""});
    let expected = ["web1.test", "web2.test"].map(|name| (name.to_owned(), greeting.clone()));
    assert_eq!(results(&output), expected, "{}", text(&output));
}
