//! Which options a requester may have given to `puppet agent`: the original's list, read by a grammar
//! that knows which of them take a value, so that nothing reaches Puppet as an option that was not
//! looked at as one. (The original lets options with a single dash pass, and an option
//! where Puppet expects a value.)

use pxp::PuppetRun;

/// Always given.
const BASE: [&str; 3] = ["--onetime", "--no-daemonize", "--verbose"];

/// Options that are given or not; `--no-` before the name says no.
const SWITCHES: [&str; 12] = [
    "debug",
    "evaltrace",
    "graph",
    "http_debug",
    "noop",
    "pluginsync",
    "show_diff",
    "splay",
    "strict_environment_mode",
    "trace",
    "use_cached_catalog",
    "usecacheonfailure",
];

/// Options whose value is the next element.
const WITH_VALUE: [&str; 13] = [
    "color",
    "configtimeout",
    "disable_warnings",
    "environment",
    "filetimeout",
    "http_connect_timeout",
    "http_keepalive_timeout",
    "http_read_timeout",
    "log_level",
    "ordering",
    "skip_tags",
    "tags",
    "waitforcert",
];

/// Why the options are not given to Puppet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// An element has a character that neither names nor values of these options have.
    #[error("the flag {0:?} has characters that flags may not have: {ALLOWED}")]
    Characters(String),
    /// The option is not on the list.
    #[error("the flag {0:?} is not permitted")]
    NotPermitted(String),
    /// It would undo what every run is given.
    #[error("the flag {0:?} overrides what every run is given: {given}", given = BASE.join(" "))]
    Overrides(String),
    /// There is no value where one must be.
    #[error("the flag {0:?} needs a value behind it")]
    NoValue(String),
    /// A value stands where no option takes one.
    #[error("{0:?} is no flag, and the one before it takes no value")]
    StrayValue(String),
    /// The job's id cannot be one.
    #[error("the job id {0:?} may not be given to Puppet: {ALLOWED}, and no dash first")]
    Job(String),
}

const ALLOWED: &str = "letters, digits and _ : , . - are allowed";

/// The arguments of `puppet agent` for a request.
///
/// # Errors
/// [`FlagError`] for the first element that may not be given.
pub fn arguments(run: &PuppetRun) -> Result<Vec<String>, FlagError> {
    let mut arguments: Vec<String> = Vec::with_capacity(run.flags.len() + 8);
    let mut names = Vec::new();
    let mut flags = run.flags.iter().peekable();
    while let Some(flag) = flags.next() {
        let takes = takes(flag)?;
        arguments.push(flag.clone());
        if takes == Takes::Value {
            let value = flags.next_if(|value| !value.starts_with('-'));
            let value = value.ok_or_else(|| FlagError::NoValue(flag.clone()))?;
            check_characters(value)?;
            arguments.push(value.clone());
        }
        names.push(flag.as_str());
    }
    for flag in BASE {
        if !names.contains(&flag) {
            arguments.push(flag.to_owned());
        }
    }
    // The output is read by people through a pipe.
    if !names.contains(&"--color") {
        arguments.extend(["--color", "false"].map(str::to_owned));
    }
    if let Some(job) = &run.job {
        if job.starts_with('-') || check_characters(job).is_err() {
            return Err(FlagError::Job(job.clone()));
        }
        arguments.extend(["--job-id".to_owned(), job.clone()]);
    }
    Ok(arguments)
}

/// The environments that a request names.
pub fn environments(run: &PuppetRun) -> Vec<String> {
    let pairs = run.flags.iter().zip(run.flags.iter().skip(1));
    let named = pairs.filter(|(flag, _)| *flag == "--environment");
    named.map(|(_, value)| value.clone()).collect()
}

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

fn takes(flag: &str) -> Result<Takes, FlagError> {
    check_characters(flag)?;
    if !flag.starts_with('-') {
        return Err(FlagError::StrayValue(flag.to_owned()));
    }
    let refused = || FlagError::NotPermitted(flag.to_owned());
    let name = flag.strip_prefix("--").ok_or_else(refused)?;
    if BASE.contains(&flag) {
        return Ok(Takes::Nothing);
    }
    let plain = name.strip_prefix("no-").unwrap_or(name);
    if ["onetime", "daemonize", "verbose"].contains(&plain) {
        return Err(FlagError::Overrides(flag.to_owned()));
    }
    if SWITCHES.contains(&plain) {
        Ok(Takes::Nothing)
    } else if WITH_VALUE.contains(&name) {
        Ok(Takes::Value)
    } else {
        Err(refused())
    }
}

fn check_characters(text: &str) -> Result<(), FlagError> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_:,.-".contains(&b));
    if fits {
        Ok(())
    } else {
        Err(FlagError::Characters(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_asked_for_each_argument_is_a_listed_option_or_the_value_of_one(
            flags in prop::collection::vec(
                "(--|-|--no-|)(noop|environment|tags|postrun_command|confdir|color|job-id|daemonize|a|\\PC)(=| |\t|)(x|)",
                0..6,
            ),
            job in prop::option::of("(-|)[a-z0-9 =\\-]{0,6}"),
        ) {
            let run = PuppetRun { env: None, flags, job, pxp_mesh: None };
            let given = arguments(&run).unwrap_or_default();
            let mut given = given.iter();
            while let Some(argument) = given.next() {
                let name = argument.strip_prefix("--").expect("an option");
                let valued = WITH_VALUE.contains(&name) || name == "job-id";
                let plain = name.strip_prefix("no-").unwrap_or(name);
                let known = BASE.contains(&argument.as_str()) || SWITCHES.contains(&plain);
                prop_assert!(known || valued, "{}", argument);
                if valued {
                    let value = given.next().expect("a value");
                    prop_assert!(!value.starts_with('-') && check_characters(value).is_ok());
                }
            }
        }
    }

    fn of(flags: &[&str], job: Option<&str>) -> Result<String, FlagError> {
        let run = PuppetRun {
            env: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            job: job.map(str::to_owned),
            pxp_mesh: None,
        };
        arguments(&run).map(|arguments| arguments.join(" "))
    }

    const END: &str = "--onetime --no-daemonize --verbose --color false";

    #[test]
    fn what_is_permitted_reaches_puppet_as_it_is() {
        for flags in [
            "--noop",
            "--no-noop --no-use_cached_catalog --debug --trace --evaltrace",
            "--environment dev_1 --strict_environment_mode --tags web,db::main --skip_tags a.b",
            "--ordering title-hash --http_read_timeout 30s --log_level debug --waitforcert 0",
            "--filetimeout 10 --waitforcert 5 --show_diff",
        ] {
            let words: Vec<&str> = flags.split(' ').collect();
            assert_eq!(of(&words, None).unwrap(), format!("{flags} {END}"));
        }
        assert_eq!(of(&[], Some("12")).unwrap(), format!("{END} --job-id 12"));
        assert_eq!(
            of(&["--verbose", "--color", "ansi", "--onetime"], None).unwrap(),
            "--verbose --color ansi --onetime --no-daemonize"
        );
    }

    #[test]
    fn every_option_of_the_original_is_known() {
        let names = "color configtimeout debug disable_warnings environment evaltrace filetimeout \
                     graph http_connect_timeout http_debug http_keepalive_timeout http_read_timeout \
                     log_level noop ordering pluginsync show_diff skip_tags splay \
                     strict_environment_mode tags trace use_cached_catalog usecacheonfailure \
                     waitforcert";
        let known: std::collections::BTreeSet<&str> =
            SWITCHES.iter().chain(&WITH_VALUE).copied().collect();
        assert_eq!(known, names.split_whitespace().collect());
    }

    #[test]
    fn what_is_not_permitted_is_refused_however_it_is_written() {
        use FlagError as E;
        type Make = fn(String) -> E;
        let table: [(&[&str], Make, &str); 28] = [
            (&["--server", "evil"], E::NotPermitted, "--server"),
            (&["--confdir", "x"], E::NotPermitted, "--confdir"),
            (&["--env", "x"], E::NotPermitted, "--env"),
            (&["--no-environment"], E::NotPermitted, "--no-environment"),
            (&["--no-color"], E::NotPermitted, "--no-color"),
            (&["--waitforcert"], E::NoValue, "--waitforcert"),
            (&["--NOOP"], E::NotPermitted, "--NOOP"),
            (&["--"], E::NotPermitted, "--"),
            (&["---noop"], E::NotPermitted, "---noop"),
            (&["--no-"], E::NotPermitted, "--no-"),
            (&["--no-no-noop"], E::NotPermitted, "--no-no-noop"),
            (&["-t"], E::NotPermitted, "-t"),
            (&["-"], E::NotPermitted, "-"),
            (&["-l", "x"], E::NotPermitted, "-l"),
            (&["--daemonize"], E::Overrides, "--daemonize"),
            (&["--no-onetime"], E::Overrides, "--no-onetime"),
            (&["--no-verbose"], E::Overrides, "--no-verbose"),
            (&["--environment"], E::NoValue, "--environment"),
            // Puppet would take the second one for the value of the first.
            (&["--environment", "--noop"], E::NoValue, "--environment"),
            (&["--tags", "-x"], E::NoValue, "--tags"),
            (&["production"], E::StrayValue, "production"),
            (&["--noop", "false"], E::StrayValue, "false"),
            (&["--tags", "a", "b"], E::StrayValue, "b"),
            (
                &["--noop\t--postrun_command"],
                E::Characters,
                "--noop\t--postrun_command",
            ),
            (&["--tags=a"], E::Characters, "--tags=a"),
            (&["--tags", "a b"], E::Characters, "a b"),
            (&["--tags", ""], E::Characters, ""),
            (&["--environment", "a\n"], E::Characters, "a\n"),
        ];
        for (flags, make, named) in table {
            assert_eq!(of(flags, None), Err(make(named.to_owned())), "{flags:?}");
        }
        for job in ["", "-1", "--server", "1 2", "a=b"] {
            assert_eq!(of(&[], Some(job)), Err(E::Job(job.to_owned())));
        }
    }

    #[test]
    fn the_environment_is_known_to_the_policy() {
        let run = PuppetRun {
            env: None,
            flags: ["--noop", "--environment", "dev"].map(str::to_owned).into(),
            job: None,
            pxp_mesh: None,
        };
        assert_eq!(environments(&run), ["dev"]);
    }
}
