//! The REST API: which path is answered by what. Only this module and those below it know about
//! HTTP. Every answer is JSON, also those to paths, methods and bodies that do not fit.

mod answer;
mod command;
mod events;
mod gate;
mod inventory;
mod jobs;
mod metrics;
mod output;
mod plans;
mod rbac;
mod request;
mod rerun;
mod serve;
mod status;
mod task_targets;
mod tasks;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use daemon::Tasks;
use identity::Current;
use orchestrator_api::{ApiError, Collection, Command, ErrorKind, Index, openapi, path};
use pcp::uri::Certname;
use tokio::sync::{RwLock, Semaphore};

pub(crate) use metrics::serve_plain as serve_metrics;
pub(crate) use serve::serve;

use crate::auth::Access;
use crate::code::Code;
use crate::dispatch::DispatchHandle;
use crate::estate::Estate;
use crate::library::Library;
use crate::store::Store;
use answer::Answer;
use request::Base;

/// The largest body in bytes. 50,000 certnames have about 2 MiB; parameters may carry a file.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// How many clients may follow events as streams at once.
pub(crate) const FOLLOWERS: usize = 256;

/// What the endpoints work with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) access: Access,
    pub(crate) dispatch: DispatchHandle,
    pub(crate) code: Code,
    pub(crate) estate: Estate,
    pub(crate) library: Library,
    pub(crate) settings: Arc<ApiSettings>,
    /// Held for reading from the storing of a job until it is handed on, and for writing by whoever
    /// must know that every job which is stored has been handed on.
    pub(crate) submissions: Arc<RwLock<()>>,
    /// Who follows events as a stream: each costs a query at every change.
    pub(crate) followers: Arc<Semaphore>,
    /// For what must be done to its end although its caller goes away.
    pub(crate) tasks: Tasks,
}

/// What the endpoints need to be told.
#[derive(Debug)]
pub(crate) struct ApiSettings {
    /// The host and port that URLs in answers have when a request does not say which it used.
    pub(crate) authority: String,
    /// Seconds that a task may take on each node when the request does not say.
    pub(crate) task_node_timeout: u64,
    /// Seconds that Puppet may take on each node when the request does not say.
    pub(crate) deploy_node_timeout: u64,
    /// Who may read metrics, beside ourselves.
    pub(crate) metrics_allowlist: Vec<Certname>,
    pub(crate) identity: Arc<Current>,
    /// The database file.
    pub(crate) database: PathBuf,
}

/// All endpoints.
pub(crate) fn router(api: Api) -> Router {
    let commands = Router::new()
        .route("/orchestrator/v1/command/task", post(command::task))
        .route("/orchestrator/v1/command/deploy", post(command::deploy))
        .route("/orchestrator/v1/command/stop", post(command::stop))
        .route("/orchestrator/v1/command/rerun", post(rerun::rerun))
        .route("/orchestrator/v1/command/plan_start", post(plans::start))
        .route("/orchestrator/v1/command/plan_task", post(plans::task))
        .route("/orchestrator/v1/command/plan_finish", post(plans::finish))
        .route(
            "/orchestrator/v1/command/task_target",
            post(task_targets::create),
        );
    let collections = Router::new()
        .route("/orchestrator/v1", get(index))
        .route(openapi::PATH, get(described))
        .route("/orchestrator/v1/jobs", get(jobs::list))
        .route("/orchestrator/v1/jobs/{job}", get(jobs::one))
        .route("/orchestrator/v1/jobs/{job}/nodes", get(jobs::nodes))
        .route(
            "/orchestrator/v1/jobs/{job}/nodes/{node}/output",
            get(output::output),
        )
        .route("/orchestrator/v1/jobs/{job}/report", get(jobs::report))
        .route("/orchestrator/v1/jobs/{job}/events", get(events::events))
        .route("/orchestrator/v1/plan_jobs", get(plans::list))
        .route("/orchestrator/v1/plan_jobs/{plan}", get(plans::one))
        .route(
            "/orchestrator/v1/plan_jobs/{plan}/events",
            get(plans::events),
        )
        .route(
            "/orchestrator/v1/plan_jobs/{plan}/event/{event}",
            get(plans::event),
        )
        .route(
            "/orchestrator/v1/scopes/task_targets",
            get(task_targets::list),
        )
        .route(
            "/orchestrator/v1/scopes/task_targets/{target}",
            get(task_targets::one).delete(task_targets::remove),
        )
        .route("/orchestrator/v1/usage", get(usage::usage))
        .route("/orchestrator/v1/tasks", get(tasks::list))
        .route("/orchestrator/v1/tasks/{module}/{task}", get(tasks::one))
        .route(
            "/orchestrator/v1/inventory",
            get(inventory::list).post(inventory::some),
        )
        .route("/orchestrator/v1/inventory/{node}", get(inventory::one));
    let refused = LATER.iter().fold(Router::new(), |router, (path, msg)| {
        router.route(
            &format!("/orchestrator/v1/{path}"),
            any(|uri| not_yet(uri, msg)),
        )
    });
    let open = Router::new()
        .route("/metrics", get(metrics::listed))
        .route("/status/v1/services", get(status::services))
        .route("/status/v1/services/{service}", get(status::service))
        .route("/status/v1/simple", get(status::simple))
        .route("/status/v1/simple/{service}", get(status::simple_service));
    let users = Router::new()
        .route("/rbac-api/v1/users/current", get(rbac::current))
        .route("/rbac-api/v1/auth/token/revoke", post(rbac::revoke));
    let open = open.route("/rbac-api/v1/auth/token", post(rbac::login));
    // The last layer is the first that a request meets: who it is, then what they may do.
    commands
        .merge(collections)
        .merge(refused)
        .route_layer(from_fn_with_state(api.clone(), gate::permit))
        .merge(users)
        .route_layer(from_fn_with_state(api.clone(), request::authenticate))
        .merge(open)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(metrics::measure))
        .with_state(api)
}

/// The API described for machines.
async fn described() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        openapi::COMMITTED,
    )
}

async fn index(base: Base) -> Answer<Index> {
    let collection = |name: &str, path: &str| Collection {
        name: name.to_owned(),
        id: base.url(path),
        rel: format!("https://api.puppetlabs.com/orchestrator/v1/{name}"),
    };
    let command = |name: &str, path: &str| Command {
        name: name.to_owned(),
        id: base.url(path),
        rel: format!("https://api.puppetlabs.com/orchestrator/v1/command/{name}"),
    };
    Answer::ok(Index {
        info: "Orchestrator of PXP Mesh: runs tasks on the nodes of a Puppet estate".to_owned(),
        status: "GA".to_owned(),
        collections: vec![
            collection("jobs", path::JOBS),
            collection("plan_jobs", path::PLAN_JOBS),
            collection("tasks", path::TASKS),
            collection("inventory", path::INVENTORY),
            collection("task_targets", path::TASK_TARGETS),
            collection("usage", path::USAGE),
        ],
        commands: vec![
            command("deploy", path::COMMAND_DEPLOY),
            command("task", path::COMMAND_TASK),
            command("stop", path::COMMAND_STOP),
            command("rerun", path::COMMAND_RERUN),
            command("plan_start", path::COMMAND_PLAN_START),
            command("plan_task", path::COMMAND_PLAN_TASK),
            command("plan_finish", path::COMMAND_PLAN_FINISH),
            command("task_target", path::COMMAND_TASK_TARGET),
        ],
    })
}

/// What the original has and this does not, each with what to do instead. It is refused by name:
/// nobody shall believe that something is scheduled.
const LATER: [(&str, &str); 13] = [
    ("command/schedule_deploy", SCHEDULES),
    ("command/schedule_task", SCHEDULES),
    ("command/schedule_plan", SCHEDULES),
    ("scheduled_jobs", SCHEDULES),
    ("scheduled_jobs/{rest}", SCHEDULES),
    ("scheduled_jobs/environment_jobs/{rest}", SCHEDULES),
    ("command/plan_run", PLANS),
    ("command/environment_plan_run", PLANS),
    ("command/stop_plan", PLANS),
    ("plans", PLANS),
    ("plans/{module}/{plan}", PLANS),
    ("rollouts", ROLLOUTS),
    ("rollouts/{rest}", ROLLOUTS),
];

const SCHEDULES: &str = "schedules are not supported; call the command at the time from a timer";
const PLANS: &str = "plans are not run here; run them with Bolt, which reports them as plan jobs";
const ROLLOUTS: &str = "rollouts are not supported; run one job after another";

async fn not_yet(uri: axum::http::Uri, msg: &'static str) -> Answer<()> {
    Answer::from(ApiError::new(ErrorKind::NotFound, msg).with("path", uri.path()))
}

async fn not_found(uri: axum::http::Uri) -> Answer<()> {
    let msg = "there is no such endpoint";
    Answer::from(ApiError::new(ErrorKind::NotFound, msg).with("path", uri.path()))
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Answer<()> {
    let msg = format!("the endpoint does not know the method {method}");
    Answer::from(ApiError::new(ErrorKind::MethodNotAllowed, msg).with("path", uri.path()))
}
