//! Tasks as a real Puppet Server describes them, run through the real `puppet` command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::said::{json as document, text};
use crate::stack::Stack;
use crate::support::{PATIENCE, mesh, puppet, run};

/// The result of the one node.
fn result(results: &[(String, Value)]) -> &Value {
    assert_eq!(results.len(), 1, "{results:?}");
    &results[0].1
}

#[test]
fn tasks_of_every_shape_run_as_puppet_server_describes_them() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 1).start().expect("the mesh starts");
    let on = ["--nodes", "web1.test"];
    let run = |arguments: &[&str]| run(&stack, &lab, &[arguments, &on].concat());

    // Without metadata, and named like its module.
    let init = run(&["stacktest"]);
    let output = result(&init)["_output"].as_str().expect("text");
    assert!(output.starts_with("init on "), "{output:?}");
    // Implementations, one of them for another system, and files from `files` and `lib`.
    assert_eq!(
        result(&run(&["stacktest::multi", "what=something"])),
        &json!({"_output": "said: something\ndeep data\nnix only\n"})
    );
    // A private task is not listed, and runs for who knows it.
    let listed = puppet(&stack, &lab, &["task", "show"]);
    let listed = text(&listed);
    assert!(
        listed.contains("stacktest::typed") && !listed.contains("stacktest::hidden"),
        "{listed}"
    );
    assert_eq!(
        result(&run(&["stacktest::hidden"])),
        &json!({"_output": "hidden\n"})
    );

    // A task that fails says how, and so does the exit code.
    let arguments = ["task", "run", "stacktest::fails", "--format", "json"];
    let output = puppet(&stack, &lab, &[&arguments[..], &on].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let error = &document(&output)["items"][0]["results"]["_error"];
    assert_eq!(error["kind"], "stacktest/broke", "{}", text(&output));
    assert_eq!(error["details"]["n"], 3, "{}", text(&output));
}

#[test]
fn parameters_are_those_of_the_metadata() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 1).start().expect("the mesh starts");
    let on = ["--nodes", "web1.test"];
    let file = lab.dir().join("params.json");
    let given = json!({"count": 3, "labels": {"a": "b", "n": 1}, "hosts": ["db1.test"]});
    fs::write(&file, given.to_string()).expect("a writable lab");
    let at = format!("@{}", file.display());
    let arguments = ["stacktest::typed", "--params", &at, "--noop"];
    let results = run(&stack, &lab, &[&arguments[..], &on].concat());
    let expected = json!({"count": 3, "labels": {"a": "b", "n": 1}, "hosts": ["db1.test"],
        "mode": "fast", "force": false, "_noop": true, "_task": "stacktest::typed"});
    assert_eq!(result(&results), &expected);

    let refused = |arguments: &[&str], parts: &[&str]| {
        let output = puppet(&stack, &lab, &[&["task", "run"], arguments, &on].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        for part in parts {
            assert!(text(&output).contains(part), "{part:?}: {}", text(&output));
        }
    };
    let bad = r#"{"count": 11, "mode": "idle", "labels": {"a": []}, "hosts": ["b c"], "hue": 1}"#;
    refused(
        &["stacktest::typed", "--params", bad],
        &[
            "count",
            "Integer[1,10]",
            "mode",
            "Enum['fast','slow']",
            "labels",
            "hosts",
            "hue",
        ],
    );
    refused(&["stacktest::typed"], &["count"]);
    refused(
        &["stacktest::hello", "--noop"],
        &["stacktest::hello", "does not support noop"],
    );
}

#[test]
fn a_sensitive_parameter_reaches_the_task_and_nothing_else() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 1).start().expect("the mesh starts");
    let secret = "correct-horse-battery";
    let password = format!("password={secret}");
    let task = [
        "stacktest::secret",
        "user=ada",
        &password,
        "--nodes",
        "web1.test",
    ];
    let results = run(&stack, &lab, &task);
    // What the task says it was given: the length of that JSON.
    let given = json!({"password": secret, "user": "ada", "_task": "stacktest::secret"});
    assert_eq!(result(&results), &json!({"bytes": given.to_string().len()}));
    let (_, job) = lab.api_get("jobs/1").expect("the API answers");
    assert_eq!(job["options"]["sensitive"], json!(["password"]), "{job:#}");
    assert_eq!(job["options"]["params"], json!({"user": "ada"}), "{job:#}");
    let found = files_with(lab.dir(), secret);
    assert_eq!(found, Vec::<PathBuf>::new(), "the secret is in these files");
    assert!(
        !files_with(lab.dir(), "stacktest::secret").is_empty(),
        "the search finds nothing"
    );
}

/// All files below a folder in which a text stands.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let kind = entry.file_type().expect("a kind");
        let path = entry.path();
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() {
            // A file may have gone meanwhile.
            let content = fs::read(&path).unwrap_or_default();
            if content
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_task_that_changes_is_run_as_it_is_and_old_files_make_room() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 1)
        .config("orchestrator", "orchestrator.task-files-size: 100KiB")
        .start()
        .expect("the mesh starts");
    let module = stack.module("changing");
    let version = |number: u32| {
        let padding = "#".repeat(80 << 10);
        let script = format!("#!/bin/sh\necho version {number}\n# {padding}\n");
        module.task("tell.sh", &script);
    };
    version(1);
    let tell = || run(&stack, &lab, &["changing::tell", "--nodes", "web1.test"]);
    assert_eq!(result(&tell()), &json!({"_output": "version 1\n"}));
    let kept = lab.dir().join("var/orchestrator/task-files");
    let first = only_file(&kept);

    // A description is used again for some seconds; its files are those of its digests all the same.
    version(2);
    wait_until("the new version runs", PATIENCE, || {
        let said = result(&tell()).clone();
        if said == json!({"_output": "version 2\n"}) {
            Ok(())
        } else {
            Err(said)
        }
    })
    .unwrap_or_else(|error| panic!("{error}"));

    // Asked for and not fetched: then it changes, and what runs is what there is.
    assert_eq!(
        lab.api_get("tasks/changing/tell")
            .expect("the API answers")
            .0,
        200
    );
    version(3);
    let said = result(&tell()).clone();
    assert!(
        [
            json!({"_output": "version 2\n"}),
            json!({"_output": "version 3\n"})
        ]
        .contains(&said),
        "{said}"
    );
    version(4);
    assert_eq!(
        lab.api_get("tasks/changing/other")
            .expect("the API answers")
            .0,
        404
    );
    module.task("other.sh", "#!/bin/sh\necho one\n");
    wait_until("the task is described", PATIENCE, || {
        let (status, answer) = lab
            .api_get("tasks/changing/other")
            .map_err(|e| e.to_string())?;
        if status == 200 {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .unwrap_or_else(|error| panic!("{error}"));
    module.task("other.sh", "#!/bin/sh\necho two\n");
    let other = run(&stack, &lab, &["changing::other", "--nodes", "web1.test"]);
    assert_eq!(result(&other), &json!({"_output": "two\n"}));

    // What no job needs and nobody has used for a while goes when there is too much of it.
    let aged = fs::File::options()
        .append(true)
        .open(&first)
        .expect("the first version's file");
    aged.set_modified(SystemTime::now() - Duration::from_secs(3600))
        .expect("a time");
    wait_until("the old file is gone", PATIENCE, || {
        drop(tell());
        if first.exists() {
            Err("still there")
        } else {
            Ok(())
        }
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// The one file of a folder.
fn only_file(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    let [file] = files.as_slice() else {
        panic!("{files:?}");
    };
    file.clone()
}

#[test]
fn sql_of_debians_postgresql_module_runs_in_the_stacks_database() {
    let Some(stack) = with_module("postgresql") else {
        return;
    };
    let lab = mesh(&stack, 1).start().expect("the mesh starts");
    // postgresql://USER:PASSWORD@HOST:PORT/DATABASE
    let url = stack.value("PG_URL").trim_start_matches("postgresql://");
    let parts: Vec<_> = url.split([':', '@', '/']).collect();
    let [user, password, host, port, database] = parts.as_slice() else {
        panic!("{url}");
    };
    let params = |sql: &str| {
        json!({"user": user, "password": password, "host": host, "port": port,
            "database": database, "sql": sql})
        .to_string()
    };
    let sql = |sql: &str| {
        let params = params(sql);
        let run = ["task", "run", "postgresql::sql", "--params", &params];
        puppet(
            &stack,
            &lab,
            &[&run[..], &["--nodes", "web1.test", "--format", "json"]].concat(),
        )
    };
    let output = sql("select 6 * 7 as answer");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = document(&output)["items"][0]["results"]["status"].clone();
    assert!(
        said.as_str().is_some_and(|said| said.contains("42")),
        "{}",
        text(&output)
    );
    let output = sql("select nonsense");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = document(&output)["items"][0]["results"]["error"].clone();
    assert!(
        said.as_str().is_some_and(|said| said.contains("nonsense")),
        "{}",
        text(&output)
    );
}

#[test]
fn debians_apache_module_reloads_a_service() {
    if Path::new("/run/systemd/system").exists() {
        // It would have to be told of the script, and to forget it.
        return lab::skip("sysv", "systemd starts this host's services");
    }
    let Some(stack) = with_module("apache") else {
        return;
    };
    let lab = mesh(&stack, 1).start().expect("the mesh starts");
    let service = Service::install(&lab);
    let name = format!("service_name={}", Service::NAME);
    let task = ["apache", "action=reload", &name, "--nodes", "web1.test"];
    let results = run(&stack, &lab, &task);
    assert_eq!(
        result(&results)["status"],
        "reload successful",
        "{results:?}"
    );
    let calls = fs::read_to_string(&service.calls).expect("a call");
    assert_eq!(calls, "reload\n");
}

/// The stack, where a module of Debian's is installed.
fn with_module(name: &str) -> Option<Stack> {
    let path = format!("/usr/share/puppet/modules/{name}");
    if !Path::new(&path).exists() {
        lab::skip(
            "modules",
            &format!("puppet-module-puppetlabs-{name} is not installed"),
        );
        return None;
    }
    Stack::up()
}

/// A service as hosts without systemd have them, which writes down how it is called.
struct Service {
    script: PathBuf,
    calls: PathBuf,
}

impl Service {
    const NAME: &str = "pxp-estate-httpd";

    fn install(lab: &Lab) -> Self {
        let service = Self {
            script: Path::new("/etc/init.d").join(Self::NAME),
            calls: lab.dir().join("calls"),
        };
        let script = format!("#!/bin/sh\necho \"$1\" >>'{}'\n", service.calls.display());
        fs::write(&service.script, script).expect("a writable /etc/init.d");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&service.script, mode).expect("an executable script");
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        fs::remove_file(&self.script).expect("the script goes");
    }
}
