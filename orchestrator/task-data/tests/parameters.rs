//! What callers give, against what tasks take.

#![expect(
    clippy::unwrap_used,
    reason = "a broken test ends at once, and says where"
)]

use serde_json::{Map, Value, json};
use task_data::{ModulePath, Task};

/// A task with these parameters (`null`: none are declared).
fn task(parameters: &Value) -> Task {
    let dir = tempfile::tempdir().unwrap();
    let tasks = dir.path().join("m/tasks");
    std::fs::create_dir_all(&tasks).unwrap();
    std::fs::write(tasks.join("t.sh"), "").unwrap();
    let metadata = json!({"parameters": parameters}).to_string();
    std::fs::write(tasks.join("t.json"), metadata).unwrap();
    ModulePath::new(vec![dir.path().to_owned()])
        .task(&"m::t".parse().unwrap())
        .unwrap()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// What the task is run with, or the faults as text.
fn check(parameters: &Value, given: &Value) -> Result<Value, Vec<String>> {
    match task(parameters).check_parameters(&object(given)) {
        Ok(checked) => Ok(Value::Object(checked)),
        Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn defaults_are_filled_in_and_null_counts_as_absent() {
    let parameters = json!({
        "count": {"type": "Integer[1,10]"},
        "mode": {"type": "Enum['fast','slow']", "default": "fast"},
        "hosts": {"type": "Array[String]", "default": []},
        "name": {"type": "Optional[String[1]]"},
        "note": {"type": "String", "default": null},
    });
    let given = json!({"count": 3, "mode": null, "name": null});
    let expected = json!({"count": 3, "mode": "fast", "hosts": []});
    assert_eq!(check(&parameters, &given).unwrap(), expected);
    let given = json!({"count": 3, "mode": "slow", "hosts": ["a"], "name": "x", "note": "y"});
    assert_eq!(check(&parameters, &given).unwrap(), given);
}

#[test]
fn every_fault_is_told_with_parameter_type_and_value() {
    let parameters = json!({
        "count": {"type": "Integer[1,10]"},
        "mode": {"type": "Enum['fast','slow']"},
        "password": {"type": "String[8]", "sensitive": true},
        "missing": {},
        "wanted": {"type": "String"},
    });
    let given = json!({"count": 11, "mode": "5", "password": "hunter2", "modus": 1, "_noop": true});
    assert_eq!(
        check(&parameters, &given).unwrap_err(),
        [
            "parameter '_noop' is set by the runner and cannot be given",
            "parameter 'count' expects Integer[1,10], got Integer 11",
            "parameter 'mode' expects Enum['fast','slow'], got String \"5\"",
            "parameter 'modus' is not a parameter of this task; did you mean 'mode'?",
            "parameter 'password' expects String[8], got String [sensitive value]",
            "parameter 'wanted' is required and expects String",
        ]
    );
}

#[test]
fn undeclared_parameters_take_anything_and_an_empty_declaration_nothing() {
    let given = json!({"a": 1, "b": {"c": [null]}, "gone": null});
    assert_eq!(
        check(&json!(null), &given).unwrap(),
        json!({"a": 1, "b": {"c": [null]}})
    );
    assert!(check(&json!(null), &json!({"_installdir": "/"})).is_err());
    assert_eq!(check(&json!({}), &json!({})).unwrap(), json!({}));
    let faults = check(&json!({}), &json!({"a": 1})).unwrap_err();
    assert_eq!(faults, ["parameter 'a' is not a parameter of this task"]);
}

#[test]
fn a_type_that_cannot_be_understood_lets_nothing_through() {
    let parameters = json!({"a": {"type": "Strin["}, "b": {"type": "Pattern[/(?=x)/]"}});
    let faults = check(&parameters, &json!({"a": "x"})).unwrap_err();
    assert_eq!(
        faults,
        [
            "parameter 'a' has a type that cannot be understood ('Strin[': syntax error at character 7)",
            "parameter 'b' has a type that cannot be understood ('Pattern[/(?=x)/]': the regular \
             expression /(?=x)/ cannot be used: look-ahead is not supported)",
        ]
    );
}

#[test]
fn a_default_of_the_wrong_type_is_the_tasks_fault_and_can_be_avoided() {
    let parameters = json!({"n": {"type": "Integer", "default": "5"}});
    let faults = check(&parameters, &json!({})).unwrap_err();
    assert_eq!(
        faults,
        ["parameter 'n' expects Integer, and the task's default \"5\" does not match it"]
    );
    assert_eq!(
        check(&parameters, &json!({"n": 5})).unwrap(),
        json!({"n": 5})
    );
}

#[test]
fn long_values_are_cut_in_faults() {
    let faults = check(
        &json!({"n": {"type": "Integer"}}),
        &json!({"n": "\u{e9}".repeat(5000)}),
    );
    let fault = faults.unwrap_err().remove(0);
    assert!(
        fault.chars().count() < 200 && fault.ends_with('…'),
        "{fault}"
    );
}

#[test]
fn values_are_bound_to_their_depth_by_their_parser_and_checked_without_harm() {
    let mut value = json!(1);
    for _ in 0..100 {
        value = json!([value]);
    }
    let parameters = json!({"a": {"type": "Data"}, "b": {"type": "TargetSpec", "default": []}});
    assert!(check(&parameters, &json!({"a": value})).is_ok());
    assert!(check(&parameters, &json!({"a": 1, "b": value})).is_err());
}
