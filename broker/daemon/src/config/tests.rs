//! What files say and what is found wrong in them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::logs::{Format, LogConfig, LogFile, Target};

#[test]
fn the_first_place_that_is_there_counts() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().display().to_string();
    let away = dir.path().join("away").display().to_string();
    assert_eq!(first_of(&[&away, &there]), Path::new(&there));
    assert_eq!(first_of(&[&there, &away]), Path::new(&there));
    assert_eq!(first_of(&[&away, "/no/such"]), Path::new(&away));
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    broker: BrokerFile,
    log: LogFile,
    environments: BTreeMap<String, EnvironmentFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct BrokerFile {
    listen: Option<String>,
    role: Option<Role>,
    max_connections: Option<u16>,
    max_message_size: Option<Size>,
    grace_period: Option<Lasting>,
    controllers: Option<Vec<String>>,
    verify: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
struct EnvironmentFile {
    modulepath: Option<Vec<PathBuf>>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Role {
    Primary,
    Compiler,
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The faults as text, with the directory cut off.
    fn faults(&self) -> Vec<String> {
        let prefix = format!("{}/", self.path().display());
        let faults = load::<File>(self.path(), None).unwrap_err();
        faults
            .iter()
            .map(|fault| fault.to_string().replace(&prefix, ""))
            .collect()
    }
}

#[test]
fn a_directory_is_merged_from_its_files() {
    let dir = Dir::with(&[
        (
            "10-broker.conf",
            r#"
            # Comments, units, and values with quotes and without.
            broker {
                listen = ${base}":8142"
                max-connections: "12"
                max-message-size = 64KiB,
                grace-period = 90s
                controllers = [a.example, "b.example"]
            }
            "#,
        ),
        (
            "20-site.conf",
            "broker { role = primary, verify = yes }\nbase = \"::1\"\nlog.format = json\n\
             broker.max-connections = 12\nbroker.controllers += c.example",
        ),
        ("notes.txt", "not { a configuration"),
    ]);
    // `base` is known to no type, which is what a separate test is about.
    let source = Source::read(dir.path()).unwrap();
    let mut faults = Vec::new();
    let broker: BrokerFile = source.decode(Some("broker"), &mut faults);
    assert_eq!(faults, []);
    assert_eq!(broker.listen.as_deref(), Some("::1:8142"));
    assert_eq!(broker.role, Some(Role::Primary));
    assert_eq!(broker.max_connections, Some(12));
    assert_eq!(broker.max_message_size, Some(Size(65536)));
    assert_eq!(broker.grace_period, Some(Lasting(Duration::from_secs(90))));
    let controllers = broker.controllers.unwrap();
    assert_eq!(controllers, ["a.example", "b.example", "c.example"]);
    assert_eq!(broker.verify, Some(true));
    assert_eq!(source.keys(None), ["base", "broker", "log"]);
    assert_eq!(source.keys(Some("log")), ["format"]);
    assert_eq!(source.keys(Some("log.format")), [""; 0]);
    let log: LogFile = source.decode(Some("log"), &mut faults);
    assert_eq!(LogConfig::from(log).format, Format::Json);
}

#[test]
fn a_key_that_two_files_set_differently_is_told_with_both_places() {
    let dir = Dir::with(&[
        (
            "a.conf",
            "broker {\n  role = primary\n  controllers = [a]\n}\nlog.format = plain\nlog.format = json\n",
        ),
        (
            "b.conf",
            "broker.role = compiler\nbroker.controllers = [\"a\"]\nlog = loud\n",
        ),
    ]);
    let prefix = format!("{}/", dir.path().display());
    let faults = Source::read(dir.path()).unwrap_err();
    let texts = faults.iter().map(ToString::to_string);
    let texts: Vec<_> = texts.map(|text| text.replace(&prefix, "")).collect();
    assert_eq!(
        texts,
        [
            "b.conf:1: broker.role: is set differently at a.conf:2; keep one of the two",
            "b.conf:3: log: is set differently at a.conf:6; keep one of the two",
        ]
    );
}

#[test]
fn every_fault_is_told_at_once_with_file_line_and_nearest_key() {
    let dir = Dir::with(&[
        (
            "a.conf",
            "broker {\n  lisen = x\n  role = primry\n  max-connections = 70000\n  verify = maybe\n}\n",
        ),
        (
            "b.conf",
            "broker.grace-period = 5 moons\nbroker.controllers = one\nbrokr.x = 1\n\
             environments { production { modulepaths = [] } }\nlog = loud\n",
        ),
    ]);
    let mut faults = dir.faults();
    faults.sort();
    assert_eq!(
        faults,
        [
            "a.conf:2: broker.lisen: unknown key; did you mean \"listen\"?",
            "a.conf:3: broker.role: \"primry\" is none of primary, compiler; did you mean \"primary\"?",
            "a.conf:4: broker.max-connections: invalid value: integer `70000`, expected u16",
            "a.conf:5: broker.verify: \"maybe\" stands where true or false is expected",
            "b.conf:1: broker.grace-period: \"moons\" is none of the units ms, s, m, h, d, w",
            "b.conf:2: broker.controllers: \"one\" stands where a list is expected",
            "b.conf:3: brokr: unknown key; did you mean \"broker\"?",
            "b.conf:4: environments.production.modulepaths: unknown key; did you mean \"modulepath\"?",
            "b.conf:5: log: \"loud\" stands where a section is expected",
        ]
    );
}

#[test]
fn files_that_are_no_hocon_are_all_told_with_their_lines() {
    let dir = Dir::with(&[("a.conf", "ok = 1\nbroker {\n"), ("b.conf", "x = [1, 2\n")]);
    let faults = dir.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("a.conf:"), "{faults:?}");
    assert!(faults[1].starts_with("b.conf:"), "{faults:?}");

    let dir = Dir::with(&[("a.conf", "broker.listen = ${nowhere}")]);
    assert!(dir.faults()[0].contains("nowhere"), "{:?}", dir.faults());
    let missing = load::<File>(Path::new("/nowhere/x.conf"), None).unwrap_err();
    assert!(
        missing[0]
            .to_string()
            .starts_with("/nowhere/x.conf: cannot be read: No such")
    );
    let empty = load::<File>(Dir::with(&[]).path(), None).unwrap_err();
    assert!(empty[0].problem.contains("*.conf"));
}

#[test]
fn a_fault_found_later_stands_at_the_line_of_its_key() {
    let dir = Dir::with(&[("a.conf", "\nbroker {\n\n  listen = nonsense\n}")]);
    let source = Source::read(&dir.path().join("a.conf")).unwrap();
    let fault = source.fault("broker.listen", "no address");
    assert_eq!((fault.line, &*fault.problem), (Some(4), "no address"));
    let missing = source.fault("broker.role", "must be given");
    assert_eq!(missing.line, Some(2), "at the section it is missing from");
    let nowhere = source.fault("log.level", "no level").to_string();
    assert!(
        nowhere.ends_with("a.conf: log.level: no level"),
        "{nowhere}"
    );
}

#[test]
fn a_configuration_may_be_empty_and_sections_may_have_any_names() {
    let dir = Dir::with(&[("a.conf", "# nothing\n")]);
    let file: File = load(dir.path(), None).unwrap();
    assert!(file.broker.listen.is_none() && file.environments.is_empty());
    let dir = Dir::with(&[("a.conf", "environments.dev.modulepath += /opt/modules")]);
    let file: File = load(dir.path(), None).unwrap();
    let modulepath = file.environments["dev"].modulepath.as_deref();
    assert_eq!(modulepath, Some(&[PathBuf::from("/opt/modules")][..]));
    assert_eq!(LogConfig::from(file.log).target, Target::Stderr);
}

#[test]
fn durations_and_sizes_are_read_and_written_again() {
    for (text, seconds) in [
        ("45", 45),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("14d", 1_209_600),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    assert_eq!(duration("250 ms"), Ok(Duration::from_millis(250)));
    for (text, size) in [
        ("7", 7),
        ("8MB", 8_000_000),
        ("64KiB", 65536),
        ("1GiB", 1 << 30),
    ] {
        assert_eq!(bytes(text), Ok(size), "{text}");
    }
    for text in ["", "x", "-5s", "1.5h", "5 parsecs", "99999999999999999999s"] {
        assert!(duration(text).is_err() && bytes(text).is_err(), "{text}");
    }
    assert!(matches!(
        bytes("99999999999GiB"),
        Err(UnitError::TooLarge(_))
    ));
    for text in ["1d", "90s", "250ms", "0ms"] {
        assert_eq!(Lasting(duration(text).unwrap()).to_string(), text);
    }
    for text in ["64KiB", "1MiB", "1000B"] {
        assert_eq!(Size(bytes(text).unwrap()).to_string(), text);
    }
}
