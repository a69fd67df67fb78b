//! Everything that a real Puppet Server and PuppetDB refuse becomes the documented error of the API.

use serde_json::{Value, json};

use crate::played::{Answer, play};
use crate::said::text;
use crate::stack::Stack;
use crate::support::{accepted, bare_mesh, estate, mesh, mesh_as, puppet, refused, wait_for_node};

fn task(name: &str, environment: &str) -> Value {
    json!({"task": name, "environment": environment, "scope": {"nodes": ["web1.test"]}})
}

fn query(query: &str) -> Value {
    json!({"task": "stacktest::hello", "scope": {"query": query}})
}

fn msg(error: &Value) -> &str {
    error["msg"].as_str().expect("a text")
}

#[test]
fn what_puppet_server_has_not_or_has_broken_is_told() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 0).start().expect("the mesh starts");
    for environment in ["nowhere", "no-where!", "../production"] {
        let error = refused(
            &lab,
            &task("stacktest::hello", environment),
            404,
            "unknown-environment",
        );
        assert_eq!(error["details"], json!({"environment": environment}));
    }
    for name in ["nomodule::hello", "stacktest::nothere", "nomodule"] {
        let error = refused(&lab, &task(name, "production"), 404, "unknown-task");
        assert_eq!(error["details"], json!({"task": name}));
    }
    refused(
        &lab,
        &task("stacktest::Bad-Name", "production"),
        400,
        "validation-error",
    );
    for (name, kind, part) in [
        ("badjson", "unparseable-metadata", "unexpected token"),
        ("noexec", "no-implementation", "stackbad::noexec"),
        ("nofile", "invalid-file", "absent.txt"),
        ("noimpl", "missing-implementation", "absent.sh"),
        ("twice", "multiple-implementations", "stackbad::twice"),
    ] {
        let request = task(&format!("stackbad::{name}"), "broken");
        let error = refused(&lab, &request, 500, "unknown-error");
        let details = &error["details"];
        assert_eq!(details["kind"], format!("puppet.tasks/{kind}"), "{error:#}");
        assert!(msg(&error).contains(part), "{error:#}");
        if name == "noimpl" {
            assert_eq!(
                details["details"],
                json!({"missing": ["absent.sh"]}),
                "{error:#}"
            );
        }
    }
    // What Puppet Server cannot parse it repeats to the end, however long that is.
    let module = stack.module("sick");
    module.task("long.sh", "");
    let metadata = format!("{{ \"description\": {:?},", "long ".repeat(2000));
    module.task("long.json", &metadata);
    let error = refused(
        &lab,
        &task("sick::long", "production"),
        500,
        "unknown-error",
    );
    let kind = &error["details"]["kind"];
    assert_eq!(kind, "puppet.tasks/unparseable-metadata", "{error:#}");
    // Broken tasks are not listed; an environment that is not there has no list.
    let (status, list) = lab
        .api_get("tasks?environment=broken")
        .expect("the API answers");
    assert_eq!((status, &list["items"]), (200, &json!([])));
    let (status, error) = lab
        .api_get("tasks?environment=nowhere")
        .expect("the API answers");
    assert_eq!(status, 404, "{error:#}");
    let (status, error) = lab
        .api_get("tasks/stacktest/nothere")
        .expect("the API answers");
    assert_eq!(status, 404, "{error:#}");
}

#[test]
fn a_query_that_cannot_be_answered_is_refused_with_the_reason() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 0).start().expect("the mesh starts");
    for (text, parts) in [
        (
            r#"gnodes { certname = "a" }"#,
            &["PQL parse error at line 1", "inventory"][..],
        ),
        (
            "nodes { certname ~ ",
            &["PQL parse error at line 1, column 20"],
        ),
        ("nodes[nofield] { }", &["nofield", "Acceptable fields"]),
        (
            r#"nodes[certname] { certname ~ "we(b" }"#,
            &["invalid regular expression"],
        ),
        ("", &["PQL parse error"]),
        ("nodes[count()] { }", &["certname"]),
        (
            "edges[source_title] { certname = \"web1.test\" }",
            &["certname"],
        ),
    ] {
        let error = refused(&lab, &query(text), 400, "query-error");
        assert_eq!(error["details"], json!({"query": text}), "{error:#}");
        for part in parts {
            assert!(msg(&error).contains(part), "{text}: {error:#}");
        }
    }
    let nobody = r#"nodes[certname] { certname = "nobody.test" }"#;
    let error = refused(&lab, &query(nobody), 400, "empty-target");
    assert_eq!(error["details"], json!({"query": nobody}), "{error:#}");

    // A person sees the cause, and where it is.
    let run = ["task", "run", "stacktest::hello", "--query", "gnodes { }"];
    let output = puppet(&stack, &lab, &run);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("line 1, column 1"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_certificate_that_puppetdb_does_not_list_keeps_nobody_from_naming_nodes() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh_as(&stack, "compiler1.test", 1)
        .config(
            "orchestrator",
            &estate(stack.value("PUPPET_URL"), stack.value("PUPPETDB_URL")),
        )
        .start()
        .expect("the mesh starts");
    let error = refused(&lab, &query("nodes[certname] {}"), 400, "puppetdb-error");
    for part in [
        "refuses the certificate of compiler1.test",
        "allowlist",
        "add the line compiler1.test",
    ] {
        assert!(msg(&error).contains(part), "{part:?}: {error:#}");
    }
    let job = accepted(&lab, &task("stacktest::hello", "production"));
    wait_for_node(&lab, &job, "web1.test", "finished");
}

#[test]
fn a_revoked_certificate_is_named() {
    let Some(stack) = Stack::up() else { return };
    let name = format!("revoked-{}.test", std::process::id());
    stack.certificate(&name, "DNS:localhost,IP:127.0.0.1");
    let lab = mesh_as(&stack, &name, 0)
        .config(
            "orchestrator",
            &estate(stack.value("PUPPET_URL"), stack.value("PUPPETDB_URL")),
        )
        .start()
        .expect("the mesh starts");
    let list = || lab.api_get("tasks").expect("the API answers");
    assert_eq!(list().0, 200);
    stack.revoke(&name);
    let answer = lab::wait_until(
        "Puppet Server refuses it",
        crate::support::PATIENCE,
        || match list() {
            (200, _) => Err("still let in"),
            refused => Ok(refused),
        },
    );
    let (status, error) = answer.unwrap_or_else(|error| panic!("{error}"));
    let expected = format!("refuses the certificate of {name}");
    assert!(
        status == 503 && msg(&error).contains(&expected),
        "{status} {error:#}"
    );
}

#[test]
fn answers_that_are_none_are_told_with_who_gave_them() {
    let Some(stack) = Stack::up() else { return };
    let server = play(&stack, |request| match request.line.as_str() {
        "GET /puppet/v3/environments" => Answer::json(&json!({"environments":
            {"production": {}, "forbidden": {}, "failing": {}, "odd": {}, "secretive": {}}})),
        line if line.ends_with("forbidden") => {
            Answer::text(403, "Forbidden request: /puppet/v3/tasks (method :get)")
        }
        line if line.ends_with("failing") => Answer::json(
            &json!({"kind": "puppet.tasks/unreadable-metadata", "msg": "eaten",
                "details": {"by": "mice"}}),
        )
        .with_status(500),
        line if line.ends_with("odd") => Answer::text(200, "<html>"),
        _ => Answer::text(500, "Internal Server Error: a class is missing"),
    });
    let puppetdb = play(&stack, |_| Answer::text(500, "no storage"));
    let lab = bare_mesh(&stack, 0)
        .config("orchestrator", &estate(&server, &puppetdb))
        .start()
        .expect("the mesh starts");
    let refused_in = |environment: &str, status: u16, kind: &str, parts: &[&str]| {
        let error = refused(&lab, &task("stacktest::hello", environment), status, kind);
        for part in parts {
            assert!(msg(&error).contains(part), "{part:?}: {error:#}");
        }
        error
    };
    let forbidden = [
        "refuses the certificate of orchestrator.test",
        "method :get",
    ];
    refused_in("forbidden", 503, "unavailable", &forbidden);
    let failing = refused_in("failing", 500, "unknown-error", &["eaten"]);
    assert_eq!(
        failing["details"]["kind"],
        "puppet.tasks/unreadable-metadata"
    );
    assert_eq!(failing["details"]["details"], json!({"by": "mice"}));
    refused_in("odd", 503, "unavailable", &[&server, "cannot be used"]);
    refused_in(
        "production",
        503,
        "unavailable",
        &[&server, "500", "a class is missing"],
    );

    let error = refused(&lab, &query("nodes[certname] {}"), 400, "puppetdb-error");
    assert!(
        msg(&error).contains(&puppetdb) && msg(&error).contains("no storage"),
        "{error:#}"
    );
}
