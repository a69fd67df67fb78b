//! Modules as they are: those of this repository and those that the host has installed.

#![expect(
    clippy::unwrap_used,
    reason = "a broken test ends at once, and says where"
)]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use task_data::{ModulePath, TaskName};

/// Where Debian's `puppet-module-…` packages install.
const DEBIAN_MODULES: &str = "/usr/share/puppet/modules";

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn name(text: &str) -> TaskName {
    text.parse().unwrap()
}

#[test]
fn the_sample_modules_are_sound() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/lab-modules");
    let path = ModulePath::new(vec![directory]);
    let survey = path.survey().unwrap();
    assert!(survey.broken.is_empty(), "{:?}", survey.broken);
    let public: Vec<String> = survey
        .tasks
        .iter()
        .filter(|t| !t.private)
        .map(|t| t.name.to_string())
        .collect();
    assert!(public.len() >= 8, "{public:?}");
    for summary in &survey.tasks {
        let task = path.task(&summary.name).unwrap();
        assert!(
            task.metadata.warnings.is_empty(),
            "{:?}",
            task.metadata.warnings
        );
        assert!(!summary.description.is_empty(), "{}", summary.name);
    }
    assert_eq!(
        path.task(&name("sample::account")).unwrap().sensitive(),
        ["password"]
    );
    assert!(path.task(&name("sample")).unwrap().supports_noop());
}

#[test]
fn debians_apache_and_postgresql_tasks_are_read_and_checked() {
    let directory = PathBuf::from(DEBIAN_MODULES);
    let path = ModulePath::new(vec![directory.clone()]);
    let mut is_any_there = false;
    if directory.join("apache/tasks").is_dir() {
        is_any_there = true;
        let task = path.task(&name("apache")).unwrap();
        assert_eq!(task.files.first().unwrap().filename, "init.rb");
        let given = json!({"action": "reload"});
        assert_eq!(
            task.check_parameters(&object(&given)).unwrap(),
            object(&given)
        );
        let faults = task
            .check_parameters(&object(&json!({"action": "explode"})))
            .unwrap_err();
        assert!(
            faults
                .first()
                .unwrap()
                .to_string()
                .contains("'action' expects Enum")
        );
    }
    if directory.join("postgresql/tasks").is_dir() {
        is_any_there = true;
        let task = path.task(&name("postgresql::sql")).unwrap();
        assert!(
            task.check_parameters(&object(&json!({"sql": "select 1"})))
                .is_ok()
        );
        assert!(task.check_parameters(&object(&json!({"sql": 1}))).is_err());
    }
    if !is_any_there {
        eprintln!(
            "skipped: neither puppet-module-puppetlabs-apache nor -postgresql is installed in {DEBIAN_MODULES}"
        );
        return;
    }
    let survey = path.survey().unwrap();
    for summary in &survey.tasks {
        assert!(path.task(&summary.name).is_ok(), "{}", summary.name);
    }
}
