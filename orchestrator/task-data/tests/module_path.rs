//! Module directories against what a real Puppet Server answers for the same ones: names, order of
//! files, mounts, and every kind of fault.

#![expect(
    clippy::unwrap_used,
    reason = "a broken test ends at once, and says where"
)]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use task_data::{ModulePath, Task, TaskError, TaskName};

/// A module path in a temporary directory.
struct Modules {
    dir: tempfile::TempDir,
}

impl Modules {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Those of these files, each `path = content`.
    fn with(files: &[(&str, &str)]) -> Self {
        let modules = Self::new();
        for (path, content) in files {
            modules.write(path, content);
        }
        modules
    }

    fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn path(&self) -> ModulePath {
        ModulePath::new(vec![self.dir.path().to_owned()])
    }

    fn task(&self, name: &str) -> Result<Task, TaskError> {
        self.path().task(&name.parse().unwrap())
    }

    fn names(&self) -> Vec<String> {
        self.path()
            .list()
            .unwrap()
            .iter()
            .map(|task| task.name.to_string())
            .collect()
    }

    /// Asserts the kind of fault, and gives its text with the directory's name cut short.
    fn fault(&self, name: &str, kind: &str) -> String {
        let error = self.task(name).unwrap_err();
        assert_eq!(error.kind(), format!("puppet.tasks/{kind}"), "{error}");
        error
            .to_string()
            .replace(&self.dir.path().display().to_string(), "/M")
    }
}

fn filenames(task: &Task) -> Vec<&str> {
    task.files
        .iter()
        .map(|file| file.filename.as_str())
        .collect()
}

fn name(text: &str) -> TaskName {
    text.parse().unwrap()
}

#[test]
fn a_task_with_metadata_is_answered_as_puppet_server_does() {
    let metadata = json!({"description": "Greets someone", "input_method": "environment",
        "parameters": {"name": {"default": "world", "type": "Optional[String[1,64]]"}},
        "puppet_task_version": 1});
    let modules = Modules::with(&[
        ("m/tasks/hello.sh", "#!/bin/sh\n"),
        ("m/tasks/hello.json", &metadata.to_string()),
    ]);
    let task = modules
        .path()
        .in_environment("dev")
        .task(&name("m::hello"))
        .unwrap();
    assert_eq!(Value::Object(task.metadata.raw().clone()), metadata);
    assert_eq!(
        serde_json::to_value(&task.files).unwrap(),
        json!([{
            "filename": "hello.sh",
            "sha256": "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf",
            "size_bytes": 10,
            "uri": {"path": "/puppet/v3/file_content/tasks/m/hello.sh", "params": {"environment": "dev"}},
        }])
    );
}

#[test]
fn a_task_without_metadata_has_empty_ones() {
    let modules = Modules::with(&[
        ("m/tasks/init.sh", "x"),
        ("m/tasks/e.rb", ""),
        ("m/tasks/e.json", ""),
    ]);
    for (name, file) in [("m", "init.sh"), ("m::init", "init.sh"), ("m::e", "e.rb")] {
        let task = modules.task(name).unwrap();
        assert!(task.metadata.raw().is_empty() && task.metadata.parameters.is_none());
        assert_eq!(filenames(&task), [file]);
    }
    assert_eq!(modules.task("m::init").unwrap().name.to_string(), "m");
}

#[test]
fn implementations_come_first_then_shared_files_then_those_of_implementations() {
    let metadata = json!({
        "files": ["m/files/common.sh", "m/lib/"],
        "implementations": [
            {"name": "multi_win.ps1", "requirements": ["powershell"], "input_method": "powershell"},
            {"name": "multi_nix.sh", "requirements": ["shell"], "files": ["m/files/nix.txt", "m/files/common.sh"]},
        ]
    });
    let modules = Modules::with(&[
        ("m/tasks/multi.json", &metadata.to_string()),
        ("m/tasks/multi_win.ps1", "w"),
        ("m/tasks/multi_nix.sh", "n"),
        ("m/files/common.sh", "c"),
        ("m/files/nix.txt", "t"),
        ("m/lib/deep/data.txt", "d"),
        ("m/lib/b.rb", "b"),
        ("m/lib/.hidden", "h"),
        ("m/scripts/s.sh", "s"),
    ]);
    let task = modules.task("m::multi").unwrap();
    assert_eq!(
        filenames(&task),
        [
            "multi_win.ps1",
            "multi_nix.sh",
            "m/files/common.sh",
            "m/lib/b.rb",
            "m/lib/deep/data.txt",
            "m/files/nix.txt"
        ]
    );
    let uris: Vec<&str> = task
        .files
        .iter()
        .map(|file| file.uri.path.as_str())
        .collect();
    assert_eq!(
        uris[1..5],
        [
            "/puppet/v3/file_content/tasks/m/multi_nix.sh",
            "/puppet/v3/file_content/modules/m/common.sh",
            "/puppet/v3/file_content/plugins/b.rb",
            "/puppet/v3/file_content/plugins/deep/data.txt",
        ]
    );
    assert_eq!(
        modules.names(),
        ["m::multi", "m::multi_nix", "m::multi_win"]
    );
    modules.write(
        "m/tasks/multi.json",
        r#"{"files": ["m/scripts/s.sh", "m/tasks/multi_nix.sh"]}"#,
    );
    modules.write("m/tasks/multi.py", "");
    let task = modules.task("m::multi").unwrap();
    assert_eq!(
        filenames(&task),
        ["multi.py", "m/scripts/s.sh", "m/tasks/multi_nix.sh"]
    );
    assert_eq!(
        task.files[1].uri.path,
        "/puppet/v3/file_content/scripts/m/s.sh"
    );
}

#[test]
fn each_kind_of_broken_task_is_told_and_none_is_listed() {
    let modules = Modules::with(&[
        ("b/tasks/badjson.sh", ""),
        ("b/tasks/badjson.json", "{ \"description\": \n"),
        (
            "b/tasks/noexec.json",
            "{ \"description\": \"metadata with no executable\" }",
        ),
        ("b/tasks/nofile.sh", ""),
        (
            "b/tasks/nofile.json",
            "{ \"files\": [\"b/files/absent.txt\"] }",
        ),
        (
            "b/tasks/noimpl.json",
            "{\"implementations\":[{\"name\":\"absent.sh\"}]}",
        ),
        ("b/tasks/twice.rb", ""),
        ("b/tasks/twice.sh", ""),
    ]);
    assert_eq!(
        modules.fault("b::badjson", "unparseable-metadata"),
        "/M/b/tasks/badjson.json is not valid JSON"
    );
    assert_eq!(
        modules.fault("b::noexec", "no-implementation"),
        "No source besides task metadata was found in directory /M/b/tasks for task b::noexec"
    );
    assert_eq!(
        modules.fault("b::nofile", "invalid-file"),
        "Could not find /M/b/files/absent.txt on disk"
    );
    assert_eq!(
        modules.fault("b::noimpl", "missing-implementation"),
        "Task metadata for task b::noimpl specifies missing implementation absent.sh"
    );
    let details = modules.task("b::noimpl").unwrap_err().details();
    assert_eq!(details, json!({"missing": ["absent.sh"]}));
    assert_eq!(
        modules.fault("b::twice", "multiple-implementations"),
        "Multiple executables were found in directory /M/b/tasks/twice.rb for task b::twice; define 'implementations' in metadata to differentiate between them"
    );
    let survey = modules.path().survey().unwrap();
    assert!(survey.tasks.is_empty());
    assert_eq!(survey.broken.len(), 5);
}

#[test]
fn metadata_that_say_nothing_usable_are_refused() {
    let modules = Modules::with(&[
        ("m/tasks/t.sh", ""),
        ("m/files/f", ""),
        ("m/manifests/init.pp", ""),
    ]);
    fs::create_dir_all(modules.dir.path().join("m/files/dir")).unwrap();
    for (metadata, text) in [
        ("[]", "not a JSON object"),
        (r#"{"parameters": []}"#, "parameters as an object"),
        (
            r#"{"parameters": {"a": "String"}}"#,
            "parameter a as an object",
        ),
        (r#"{"implementations": {}}"#, "implementations as an array"),
        (
            r#"{"implementations": null}"#,
            "implementations as an array",
        ),
        (
            r#"{"implementations": [{"requirements": []}]}"#,
            "without a name",
        ),
        (
            r#"{"implementations": [{"name": "t.sh", "requirements": "shell"}]}"#,
            "requirements as an array",
        ),
        (r#"{"files": "m/files/f"}"#, "expects an array"),
        (r#"{"files": [5]}"#, "array of strings"),
        (
            r#"{"files": ["other/files/f"]}"#,
            "Could not find module other containing task file f",
        ),
        (r#"{"files": ["../files/f"]}"#, "Could not find module"),
        (
            r#"{"files": ["m/manifests/init.pp"]}"#,
            "mount points: files, lib, scripts, tasks",
        ),
        (
            r#"{"files": ["m/files/../manifests/init.pp"]}"#,
            "cannot include relative paths",
        ),
        (
            r#"{"files": ["m/files//f"]}"#,
            "cannot include relative paths",
        ),
        (
            r#"{"files": ["m/files/dir"]}"#,
            "must include a trailing slash: m/files/dir",
        ),
        (
            r#"{"files": ["m/files/f/"]}"#,
            "cannot include a trailing slash: m/files/f/",
        ),
    ] {
        modules.write("m/tasks/t.json", metadata);
        let fault = modules.fault("m::t", "invalid-metadata");
        assert!(fault.contains(text), "{metadata}: {fault}");
    }
}

#[test]
fn what_is_merely_odd_is_a_warning() {
    let modules = Modules::with(&[
        ("m/tasks/t.sh", ""),
        (
            "m/tasks/t.json",
            r#"{"supports_noop": "yes", "private": null, "input_method": "pipe", "unknown": 1, "parameters": {
                "path": {"type": "Stdlib::Absolutepath"}, "bad": {"type": "Strin["}, "none": {},
                "secret": {"type": "String", "sensitive": "true"}, "wrapped": {"type": "Optional[Sensitive]"}}}"#,
        ),
    ]);
    let task = modules.task("m::t").unwrap();
    assert!(!task.supports_noop() && !task.metadata.private);
    assert_eq!(task.sensitive(), ["secret", "wrapped"]);
    let warnings = task.metadata.warnings.join("\n");
    for text in [
        "supports_noop",
        "input_method",
        "Stdlib::Absolutepath",
        "'Strin['",
        "taken as true",
    ] {
        assert!(warnings.contains(text), "{text}: {warnings}");
    }
    assert_eq!(task.metadata.warnings.len(), 5);
}

#[test]
fn what_is_not_there_is_said_as_puppet_server_says_it() {
    let modules = Modules::with(&[("m/tasks/t.sh", ""), ("empty/manifests/init.pp", "")]);
    for (name, text) in [
        ("nomodule::hello", "Could not find module 'nomodule'"),
        ("m::nothere", "Could not find task 'nothere'"),
        ("m", "Could not find task 'init'"),
        ("empty", "Could not find task 'init'"),
    ] {
        let error = modules.task(name).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(error.is_not_found());
    }
    let nowhere = ModulePath::new(vec!["/nonexistent/modules".into()]);
    assert!(nowhere.list().unwrap().is_empty());
    assert!(nowhere.task(&name("m")).unwrap_err().is_not_found());
}

#[test]
fn the_first_directory_that_has_a_module_wins() {
    let first = Modules::with(&[("m/tasks/a.sh", "1"), ("shadow/manifests/init.pp", "")]);
    let second = Modules::with(&[
        ("m/tasks/b.sh", "2"),
        ("shadow/tasks/t.sh", ""),
        ("other/tasks/t.sh", ""),
    ]);
    let path = ModulePath::new(vec![
        first.dir.path().to_owned(),
        "/nonexistent".into(),
        second.dir.path().to_owned(),
    ]);
    let names: Vec<String> = path
        .list()
        .unwrap()
        .iter()
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(names, ["m::a", "other::t"]);
    assert!(path.task(&name("m::b")).unwrap_err().is_not_found());
    assert!(path.task(&name("shadow::t")).unwrap_err().is_not_found());
}

#[test]
fn odd_file_names_are_no_tasks() {
    let modules = Modules::with(&[
        ("m/tasks/good", "no extension"),
        ("m/tasks/README.md", ""),
        ("m/tasks/readme.md", ""),
        ("m/tasks/settings.conf", ""),
        ("m/tasks/Upper.sh", ""),
        ("m/tasks/two.dots.sh", ""),
        ("m/tasks/.hidden.sh", ""),
        ("m/tasks/with-dash.sh", ""),
        ("m/tasks/_under.sh", ""),
        ("m/tasks/dir.sh/inner.sh", ""),
        ("author-m/tasks/t.sh", ""),
        ("M/tasks/t.sh", ""),
        ("file", "not a module"),
    ]);
    let odd = std::ffi::OsStr::from_bytes(b"m/tasks/\xff.sh");
    fs::write(modules.dir.path().join(odd), "").unwrap();
    assert_eq!(modules.names(), ["m::good"]);
}

#[test]
fn links_may_point_within_the_module_and_nowhere_else() {
    let modules = Modules::with(&[("m/tasks/t.sh", "x"), ("m/files/real/a.txt", "a")]);
    let m = modules.dir.path().join("m");
    symlink("t.sh", m.join("tasks/inside.sh")).unwrap();
    symlink("/etc/passwd", m.join("tasks/outside.sh")).unwrap();
    symlink("/etc/passwd", m.join("files/secret")).unwrap();
    symlink("/etc", m.join("files/real/etc")).unwrap();
    symlink("/nonexistent", m.join("files/dangling")).unwrap();
    assert_eq!(
        filenames(&modules.task("m::inside").unwrap()),
        ["inside.sh"]
    );
    let fault = modules.fault("m::outside", "invalid-file");
    assert!(
        fault.ends_with("/m/tasks/outside.sh leads out of the module m"),
        "{fault}"
    );
    // What metadata say is shown to callers.
    modules.write("m/tasks/linked.sh", "x");
    modules.write("elsewhere.json", r#"{"description": "not of this module"}"#);
    symlink("../../elsewhere.json", m.join("tasks/linked.json")).unwrap();
    let fault = modules.fault("m::linked", "invalid-file");
    assert!(fault.contains("linked.json leads out"), "{fault}");
    for (entry, text) in [
        ("m/files/secret", "leads out of the module m"),
        ("m/files/real/etc/", "leads out of the module m"),
        ("m/files/dangling", "Could not find"),
    ] {
        modules.write("m/tasks/t.json", &json!({"files": [entry]}).to_string());
        let fault = modules.fault("m::t", "invalid-file");
        assert!(fault.contains(text), "{entry}: {fault}");
    }
    // As Puppet's glob does, a linked directory below a named one is not walked into.
    modules.write("m/tasks/t.json", r#"{"files": ["m/files/real/"]}"#);
    assert_eq!(
        filenames(&modules.task("m::t").unwrap()),
        ["t.sh", "m/files/real/a.txt"]
    );
    symlink("/etc/passwd", m.join("files/real/b.txt")).unwrap();
    assert!(
        modules
            .fault("m::t", "invalid-file")
            .contains("real/b.txt leads out")
    );
}

#[test]
fn a_module_may_itself_be_a_link_as_debian_installs_them() {
    let store = Modules::with(&[
        ("puppetlabs-m/tasks/t.sh", "x"),
        ("puppetlabs-m/files/f", ""),
    ]);
    store.write("puppetlabs-m/tasks/t.json", r#"{"files": ["m/files/f"]}"#);
    let modules = Modules::new();
    symlink(
        store.dir.path().join("puppetlabs-m"),
        modules.dir.path().join("m"),
    )
    .unwrap();
    assert_eq!(modules.names(), ["m::t"]);
    assert_eq!(
        filenames(&modules.task("m::t").unwrap()),
        ["t.sh", "m/files/f"]
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let modules = Modules::with(&[("m/tasks/t.sh", "x"), ("m/tasks/t.json", "{}")]);
    let close = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let metadata = modules.dir.path().join("m/tasks/t.json");
    close(&metadata);
    if fs::read(&metadata).is_ok() {
        eprintln!("skipped: permissions do not hold for this user");
        return;
    }
    let fault = modules.fault("m::t", "unreadable-metadata");
    assert_eq!(fault, "Error reading metadata: /M/m/tasks/t.json");
    fs::remove_file(&metadata).unwrap();
    close(&modules.dir.path().join("m/tasks/t.sh"));
    assert_eq!(
        modules.fault("m::t", "invalid-file"),
        "could not read /M/m/tasks/t.sh"
    );
    close(&modules.dir.path().join("m/tasks"));
    assert_eq!(
        modules
            .path()
            .list()
            .unwrap_err()
            .to_string()
            .matches("m/tasks")
            .count(),
        1
    );
}

#[test]
fn metadata_have_a_size_and_depth_that_they_cannot_exceed() {
    let modules = Modules::with(&[("m/tasks/t.sh", "x")]);
    let large = format!("{{\"description\": \"{}\"}}", "x".repeat(2 << 20));
    modules.write("m/tasks/t.json", &large);
    modules.fault("m::t", "unreadable-metadata");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    modules.write("m/tasks/t.json", &deep);
    modules.fault("m::t", "unparseable-metadata");
}
