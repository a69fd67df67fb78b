//! Real modules work as they are: the tasks of Debian's packages of puppetlabs-apache and
//! puppetlabs-postgresql list, show and validate, and run where what they manage is installed.

use std::path::Path;

use lab::Lab;
use serde_json::json;

use crate::support::{skip, text};

/// Where Debian's packages put modules.
const MODULES: &str = "/usr/share/puppet/modules";

#[test]
fn tasks_of_real_modules_list_show_and_validate() {
    if !Path::new(MODULES).join("apache/tasks").exists() {
        return skip(
            "modules",
            "puppet-module-puppetlabs-apache is not installed",
        );
    }
    let lab = Lab::builder()
        .compilers(1)
        .agents(1)
        .modulepath(MODULES)
        .start()
        .expect("the mesh starts");
    let output = lab.puppet_task(&["show", "--all"]);
    let list = String::from_utf8_lossy(&output.stdout);
    for task in ["apache", "apache::init", "postgresql::sql"] {
        if task == "apache::init" {
            assert!(
                !list.contains(task),
                "init is named like its module: {list}"
            );
        } else {
            assert!(list.contains(task), "{task} is missing: {}", text(&output));
        }
    }
    let output = lab.puppet_task(&["show", "apache"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains("action") && shown.contains("service_name"),
        "{}",
        text(&output)
    );
    let output = lab.puppet_task(&["show", "postgresql::sql"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains("sql") && shown.contains("database"),
        "{}",
        text(&output)
    );

    // Refused before anything is sent, by the module's own types.
    let output = lab.puppet_task(&["run", "apache", "action=explode", "--nodes", "agent-1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("Enum[reload"), "{}", text(&output));

    // Accepted, and run for real: its interpreter is Ruby, which may not be installed. Then the
    // task itself must be what failed, with exit code 127 or the module's own words.
    let body = json!({
        "task": "apache",
        "params": { "action": "reload", "service_name": "no-such-service" },
        "scope": { "nodes": ["agent-1"] },
    });
    let (status, answer) = lab
        .api_post("command/task", &body)
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    let items = lab::wait_until("the job ends", std::time::Duration::from_secs(60), || {
        let (_, job) = lab.api_get("jobs/1").map_err(|error| error.to_string())?;
        if job["state"] != "failed" {
            return Err(job["state"].to_string());
        }
        let (_, nodes) = lab
            .api_get("jobs/1/nodes")
            .map_err(|error| error.to_string())?;
        Ok(nodes["items"].clone())
    })
    .expect("a service that is not there cannot be reloaded");
    let error = &items[0]["result"]["_error"];
    assert!(error["msg"].is_string(), "{items:#}");
}
