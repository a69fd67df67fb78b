//! `task run` to the letter of the original.

use super::*;

const SHA: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn run(rest: &str, files: &[&str]) -> TaskRun {
    let files: Vec<_> = files
        .iter()
        .map(|name| {
            format!(
                r#"{{"filename":"{name}","sha256":"{SHA}","uri":{{"path":"/","params":{{}}}}}}"#
            )
        })
        .collect();
    let text = format!(
        r#"{{"task":"demo::hello","files":[{}],"input":{{"name":"x\ny","n":1,"l":[1, 2],"z":null}}{rest}}}"#,
        files.join(",")
    );
    serde_json::from_str(&text).unwrap()
}

fn task(rest: &str, files: &[&str]) -> Result<Task, TaskError> {
    Task::new(run(rest, files))
}

fn environment(delivery: &Delivery) -> Vec<(&str, &str)> {
    let pairs = delivery.environment.iter();
    pairs
        .map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap()))
        .collect()
}

#[test]
fn without_metadata_the_first_file_runs_and_gets_its_input_both_ways() {
    let task = task("", &["hello.sh", "other.sh"]).unwrap();
    assert_eq!(task.executable(), Path::new("hello.sh"));
    let delivery = task.delivery(Some(Path::new("/staging"))).unwrap();
    assert_eq!(
        environment(&delivery),
        [
            ("PT__task", "demo::hello"),
            ("PT_l", "[1, 2]"),
            ("PT_n", "1"),
            ("PT_name", "x\ny"),
            ("PT_z", "null"),
        ]
    );
    assert_eq!(
        String::from_utf8(delivery.stdin).unwrap(),
        r#"{"_task":"demo::hello","l":[1, 2],"n":1,"name":"x\ny","z":null}"#
    );
}

#[test]
fn noop_reaches_a_task_and_one_that_says_that_it_cannot_is_not_run() {
    let noop = |metadata: &str, noop: bool| {
        let mut run = run(metadata, &["a.sh"]);
        run.input.set("_noop", &noop).unwrap();
        Task::new(run)
    };
    // Controllers of the original do not send it: they have looked at it.
    for metadata in ["", r#","metadata":{"supports_noop":true}"#] {
        let task = noop(metadata, true).unwrap();
        let delivery = task.delivery(None).unwrap();
        assert!(environment(&delivery).contains(&("PT__noop", "true")));
        assert!(
            String::from_utf8(delivery.stdin)
                .unwrap()
                .contains(r#""_noop":true"#)
        );
    }
    let refused = r#","metadata":{"supports_noop":false}"#;
    let error = noop(refused, true).unwrap_err();
    assert_eq!(error.to_string(), "Task demo::hello does not support noop");
    assert!(noop(refused, false).is_ok());
    assert!(task(refused, &["a.sh"]).is_ok());
}

#[test]
fn the_input_method_is_that_of_the_implementation_then_of_the_metadata_then_the_old_one() {
    let method = |rest: &str| task(rest, &["a.sh"]).unwrap().delivery;
    assert_eq!(method(r#","input_method":"stdin""#), Method::Stdin);
    assert_eq!(
        method(r#","input_method":"stdin","metadata":{"input_method":"environment"}"#),
        Method::Environment
    );
    let implementation = r#","metadata":{"input_method":"environment","implementations":[{"name":"a.sh","input_method":"both"}]}"#;
    assert_eq!(method(implementation), Method::Both);
    for (rest, name) in [
        (r#","input_method":"telepathy""#, "a.sh"),
        (r#","input_method":"powershell""#, "a.sh"),
        ("", "a.ps1"),
    ] {
        let error = task(rest, &[name]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unsupported task input method: "),
            "{error}"
        );
    }
}

#[test]
fn stdin_alone_sets_no_variables_and_environment_alone_writes_nothing() {
    let stdin = task(r#","input_method":"stdin""#, &["a"])
        .unwrap()
        .delivery(None)
        .unwrap();
    assert!(stdin.environment.is_empty() && !stdin.stdin.is_empty());
    let method = r#","input_method":"environment""#;
    let environment = task(method, &["a"]).unwrap().delivery(None).unwrap();
    assert!(environment.stdin.is_empty() && !environment.environment.is_empty());
}

#[test]
fn the_first_implementation_whose_requirements_the_node_has_is_chosen() {
    let implementations = r#"[{"name":"a.ps1","requirements":["powershell"]},
        {"name":"a.rb","requirements":["puppet-agent","extra"]},
        {"name":"a.sh","requirements":["shell"]}]"#;
    let files = ["a.ps1", "a.rb", "a.sh"];
    let with = |rest: &str| {
        let rest = format!(r#","metadata":{{"implementations":{implementations}{rest}}}"#);
        task(&rest, &files).unwrap().executable()
    };
    assert_eq!(with(""), Path::new("a.sh"));
    assert_eq!(with(r#","features":["extra"]"#), Path::new("a.rb"));
    let only =
        r#","metadata":{"implementations":[{"name":"a.ps1","requirements":["powershell"]}]}"#;
    assert_eq!(
        task(only, &files).unwrap_err().to_string(),
        "no implementations match supported features: puppet-agent, shell"
    );
    let missing = r#","metadata":{"implementations":[{"name":"b.sh"}]}"#;
    assert!(matches!(task(missing, &files), Err(TaskError::MissingFile(name)) if name == "b.sh"));
}

#[test]
fn top_level_features_count_only_without_metadata() {
    let features = |rest: &str| features(&run(rest, &["a"])).contains("extra");
    assert!(features(r#","features":["extra"]"#));
    assert!(!features(r#","features":["extra"],"metadata":{}"#));
    assert!(features(r#","metadata":{"features":["extra"]}"#));
}

#[test]
fn support_files_are_laid_out_by_module_and_the_input_says_where() {
    let rest = r#","metadata":{"files":["demo/files/dir/","lib/lib/one.rb"],
        "implementations":[{"name":"hello.sh","files":["demo/scripts/two.sh"]}]}"#;
    let files = [
        "hello.sh",
        "demo/files/dir/a",
        "demo/files/dir/b/c",
        "demo/files/not",
        "lib/lib/one.rb",
        "demo/scripts/two.sh",
    ];
    let task = task(rest, &files).unwrap();
    let places: Vec<_> = task.files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        places,
        [
            "demo/files/dir/a",
            "demo/files/dir/b/c",
            "demo/scripts/two.sh",
            "lib/lib/one.rb",
            "demo/tasks/hello.sh",
        ]
        .map(PathBuf::from)
    );
    let delivery = task.delivery(Some(Path::new("/staging"))).unwrap();
    assert!(environment(&delivery).contains(&("PT__installdir", "/staging")));
    let missing = r#","metadata":{"files":["demo/files/none"]}"#;
    assert!(matches!(
        self::task(missing, &["a"]),
        Err(TaskError::MissingFile(_))
    ));
}

#[test]
fn hostile_names_are_refused() {
    for name in ["../a", "a/b", "..", ".", ""] {
        assert!(
            matches!(
                task("", &[name]),
                Err(TaskError::Source(SourceError::Name { .. }))
            ),
            "{name}"
        );
    }
    let rest = r#","metadata":{"files":["demo/"]}"#;
    for name in [
        "demo/../x",
        "demo/files/../../../x",
        "demo//x",
        "demo/x\\u0000/y",
    ] {
        let result = task(rest, &["a", name]);
        assert!(
            matches!(result, Err(TaskError::Source(SourceError::Name { .. }))),
            "{name}: {result:?}"
        );
    }
    for name in ["..::x", "/etc::x", "", "a/b"] {
        let mut run = run("", &["a"]);
        run.task = name.to_owned();
        assert!(
            matches!(Task::new(run), Err(TaskError::TaskName(_))),
            "{name}"
        );
    }
    let mut run = run("", &["a"]);
    run.files[0].sha256 = "0".repeat(63);
    assert!(matches!(
        Task::new(run),
        Err(TaskError::Source(SourceError::Digest(_)))
    ));
}

#[test]
fn parameters_that_no_environment_takes_are_refused_by_name() {
    let with = |name: &str, value: &str, method: &str| {
        let mut run = run(&format!(r#","input_method":"{method}""#), &["a"]);
        run.input.set_text(name, value);
        Task::new(run).map(|_| ())
    };
    assert!(matches!(
        with("a=b", "x", "both"),
        Err(TaskError::Variable(_))
    ));
    assert!(matches!(
        with("a", "x\0y", "environment"),
        Err(TaskError::Variable(_))
    ));
    let large = "x".repeat(MAX_TEXT);
    assert!(matches!(
        with("a", &large, "both"),
        Err(TaskError::TooLargeVariable { size, .. }) if size == MAX_TEXT
    ));
    assert_eq!(with("a=b", &large, "stdin"), Ok(()));
}

#[test]
fn a_timeout_of_nothing_is_none() {
    let limit = |rest| task(rest, &["a"]).unwrap().wishes().time_limit;
    assert_eq!(limit(""), None);
    assert_eq!(limit(r#","timeout":0"#), None);
    let minute = limit(r#","timeout":60"#);
    assert_eq!(minute, Some(60));
}
