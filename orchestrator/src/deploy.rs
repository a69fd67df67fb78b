//! From a request for a Puppet run to a job: everything that must be right before anything is stored
//! or sent.

mod known;

use orchestrator_api::{ApiError, DeployOptions, DeployRequest, ErrorKind, JobType, RunFlags};
use pcp::uri::Certname;
use pxp::{JsonObject, PuppetRun, Wishes};

use crate::grant::NodeFilter;
use crate::store::NewJob;
use crate::submission::{self, Origin, Prepared};

pub(crate) use known::notes;

/// Checks a request. `nodes` are those of its scope, less those that `permitted` does not allow;
/// `time_limit` is the one that holds when the
/// request has none, in seconds; `at` the present in milliseconds since 1970.
///
/// # Errors
/// The answer to the caller.
pub(crate) fn prepare(
    request: DeployRequest,
    mut nodes: Vec<Certname>,
    origin: &Origin,
    permitted: &NodeFilter,
    time_limit: u64,
    at: i64,
) -> Result<Prepared, ApiError> {
    let invalid = |msg: &str| ApiError::new(ErrorKind::ValidationError, msg);
    let description = submission::description(request.description.clone())?;
    if request.timeout == Some(0) {
        return Err(invalid("the timeout is zero"));
    }
    if request.concurrency == Some(0) {
        return Err(invalid("the concurrency is zero"));
    }
    let environment = environment(&request);
    let enforce = request
        .enforce_environment
        .unwrap_or(!environment.is_empty());
    if enforce && environment.is_empty() {
        return Err(invalid(
            "no environment is named, so that none can be enforced; set enforce_environment to false",
        ));
    }
    let Some(scope) = request.scope else {
        return Err(invalid(
            "the request has no scope; name nodes, a query or a node_group",
        ));
    };
    let notes = submission::leave_out(permitted, &mut nodes, &origin.owner, "Puppet")?;
    let flags = flags(&request.flags, enforce.then_some(&environment))?;
    let time_limit = request.timeout.unwrap_or(time_limit);
    let run = PuppetRun {
        env: None,
        flags,
        // The job's number is added when there is one.
        job: None,
        pxp_mesh: Some(Wishes {
            time_limit: Some(time_limit),
            ..Wishes::default()
        }),
    };
    let run = JsonObject::of(&run).map_err(|error| invalid(&error.to_string()))?;
    let options = DeployOptions {
        description,
        environment,
        enforce_environment: enforce,
        scope,
        concurrency: request.concurrency,
        timeout: request.timeout,
        rerun_of: origin.rerun_of.map(|job| job.to_string()),
        notes,
        flags: request.flags,
    };
    let job = NewJob {
        job_type: JobType::Deploy,
        owner: origin.owner.clone(),
        options: orchestrator_api::JobOptions::Deploy(options),
        userdata: request.userdata.unwrap_or_default(),
        request: Some(run.clone()),
        files: vec![],
        time_limit,
        nodes: submission::transactions(nodes),
        concurrency: request.concurrency,
        plan_job: None,
        at,
    };
    Ok(Prepared { job, request: run })
}

/// What is refused whatever the rest says: what is not supported, and what contradicts itself.
///
/// # Errors
/// The answer to the caller.
pub(crate) fn check(request: &DeployRequest) -> Result<(), ApiError> {
    let invalid = |msg: &str| ApiError::new(ErrorKind::ValidationError, msg);
    if request.target.is_some() {
        return Err(invalid(
            "applications are not supported; name nodes, a query or a node_group as scope",
        ));
    }
    if request.flags.noop == Some(true) && request.flags.no_noop == Some(true) {
        return Err(invalid("noop and no_noop exclude each other"));
    }
    Ok(())
}

/// The environment that is named; empty when nodes are to use their own.
pub(crate) fn environment(request: &DeployRequest) -> String {
    request.environment.clone().unwrap_or_default()
}

/// The arguments of `puppet agent`, as the agent's module takes them.
fn flags(asked: &RunFlags, environment: Option<&String>) -> Result<Vec<String>, ApiError> {
    let mut flags = vec![];
    let switches = [
        ("noop", asked.noop),
        ("no-noop", asked.no_noop),
        ("debug", asked.debug),
        ("trace", asked.trace),
        ("evaltrace", asked.evaltrace),
    ];
    for (name, value) in switches {
        if value == Some(true) {
            flags.push(format!("--{name}"));
        }
    }
    // These are settings that a node may have: no is an answer as well.
    let settings = [
        ("use_cached_catalog", asked.use_cached_catalog),
        ("usecacheonfailure", asked.usecacheonfailure),
    ];
    for (name, value) in settings {
        match value {
            Some(true) => flags.push(format!("--{name}")),
            Some(false) => flags.push(format!("--no-{name}")),
            None => {}
        }
    }
    if let Some(environment) = environment {
        push(&mut flags, "environment", environment)?;
        flags.push("--strict_environment_mode".to_owned());
    }
    let values = [
        ("ordering", asked.ordering.clone()),
        ("tags", asked.tags.as_ref().map(ToString::to_string)),
        (
            "skip_tags",
            asked.skip_tags.as_ref().map(ToString::to_string),
        ),
        (
            "filetimeout",
            asked.filetimeout.as_ref().map(ToString::to_string),
        ),
        (
            "http_connect_timeout",
            asked.http_connect_timeout.as_ref().map(ToString::to_string),
        ),
        (
            "http_keepalive_timeout",
            asked
                .http_keepalive_timeout
                .as_ref()
                .map(ToString::to_string),
        ),
        (
            "http_read_timeout",
            asked.http_read_timeout.as_ref().map(ToString::to_string),
        ),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            push(&mut flags, name, &value)?;
        }
    }
    Ok(flags)
}

/// Adds a flag with its value, which agents take from a small set of characters only.
fn push(flags: &mut Vec<String>, name: &str, value: &str) -> Result<(), ApiError> {
    let fits = !value.is_empty()
        && !value.starts_with('-')
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_:,.-".contains(&b));
    if !fits {
        let msg = format!("{name}: {value:?} has characters that Puppet agents do not take");
        return Err(ApiError::new(ErrorKind::ValidationError, msg).with(name, value));
    }
    flags.push(format!("--{name}"));
    flags.push(value.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(body: Value) -> Result<(PuppetRun, DeployOptions), String> {
        let request: DeployRequest = serde_json::from_value(body).unwrap();
        check(&request).map_err(|error| error.msg)?;
        let nodes = vec![Certname::parse("a").unwrap()];
        let origin = Origin::by("ada");
        let prepared = prepare(request, nodes, &origin, &NodeFilter::all(), 600, 1)
            .map_err(|error| error.msg)?;
        let orchestrator_api::JobOptions::Deploy(options) = prepared.job.options else {
            panic!("options of a task");
        };
        Ok((prepared.request.parse().unwrap(), options))
    }

    #[test]
    fn the_request_becomes_flags_that_agents_take() {
        let (run, options) = run(
            json!({"environment": "production", "scope": {"nodes": ["a"]},
            "noop": true, "debug": true, "trace": false, "tags": ["web", "db"], "skip_tags": "x",
            "use_cached_catalog": false, "filetimeout": 30, "concurrency": 2, "timeout": 9}),
        )
        .unwrap();
        let expected = "--noop --debug --no-use_cached_catalog --environment production \
                        --strict_environment_mode --tags web,db --skip_tags x --filetimeout 30";
        assert_eq!(run.flags.join(" "), expected);
        assert_eq!(run.pxp_mesh.unwrap().time_limit, Some(9));
        assert!(options.enforce_environment);
    }

    #[test]
    fn without_an_environment_each_node_has_its_own() {
        for body in [
            json!({"environment": "", "enforce_environment": false, "scope": {"nodes": ["a"]}}),
            json!({"scope": {"nodes": ["a"]}}),
        ] {
            let (run, options) = run(body).unwrap();
            assert!(run.flags.is_empty());
            assert_eq!(
                (options.environment.as_str(), options.enforce_environment),
                ("", false)
            );
            assert_eq!(run.pxp_mesh.unwrap().time_limit, Some(600));
        }
        let (run, _) = run(json!({"environment": "dev", "enforce_environment": false,
            "scope": {"nodes": ["a"]}}))
        .unwrap();
        assert!(run.flags.is_empty(), "not enforced");
    }

    #[test]
    fn what_contradicts_itself_or_cannot_be_passed_on_is_refused_by_name() {
        let nodes = json!({"nodes": ["a"]});
        for (body, part) in [
            (
                json!({"scope": nodes, "noop": true, "no_noop": true}),
                "exclude each other",
            ),
            (
                json!({"scope": nodes, "environment": "", "enforce_environment": true}),
                "enforce",
            ),
            (json!({"scope": nodes, "target": "App"}), "applications"),
            (json!({"scope": nodes, "tags": "a b"}), "tags"),
            (json!({"scope": nodes, "ordering": "--noop"}), "ordering"),
            (json!({"scope": nodes, "concurrency": 0}), "concurrency"),
            (json!({"environment": "production"}), "no scope"),
        ] {
            let error = run(body.clone()).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
    }
}
