//! The API described for machines: an OpenAPI document, generated from the types that server and
//! clients use. It is committed as `openapi.json`; a test fails when the two differ.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::{
    ApiError, DeployRequest, EnvironmentQuery, Events, EventsQuery, Index, Inventory,
    InventoryItem, InventoryQuery, Job, JobAccepted, Jobs, JobsQuery, NodeOutput, Nodes,
    NodesQuery, OutputQuery, PlanEvent, PlanEvents, PlanFinishRequest, PlanJob, PlanJobs,
    PlanJobsQuery, PlanStartRequest, PlanStarted, Report, RerunRequest, Services, StatusQuery,
    StopAccepted, StopRequest, TaskDetail, TaskList, TaskRequest, TaskTarget, TaskTargetCreated,
    TaskTargetRequest, TaskTargets, Usage, UsageQuery,
};

/// The document as it is committed.
pub const COMMITTED: &str = include_str!("../openapi.json");

/// Where the server gives it.
pub const PATH: &str = "/orchestrator/v1/openapi.json";

/// Generates the document.
#[must_use]
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut writer = Writer {
        schemas: settings.into_generator(),
        paths: Map::new(),
    };
    commands(&mut writer);
    reads(&mut writer);
    let error = writer.reference::<ApiError>();
    let paths = std::mem::take(&mut writer.paths);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestrator API v1",
            "version": "1",
            "description": "Paths, bodies and error kinds of Puppet Enterprise's orchestrator API v1, \
                            and what is marked as beyond it.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": crate::TOKEN_HEADER},
            },
            "responses": {
                "Error": {
                    "description": "Refused, or failed: the kind says why.",
                    "content": {"application/json": {"schema": error}},
                },
            },
            "schemas": writer.schemas.take_definitions(true),
        },
    })
}

struct Writer {
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

/// The one command that is done when it is answered.
const TASK_TARGET: &str = "command/task_target";

/// No query, or no body.
#[derive(JsonSchema)]
struct Nothing {}

fn commands(api: &mut Writer) {
    api.post::<TaskRequest, JobAccepted>("command/task", "Run a task.");
    api.post::<DeployRequest, JobAccepted>("command/deploy", "Run Puppet.");
    api.post::<StopRequest, StopAccepted>("command/stop", "Stop a job.");
    let beyond = "Run an ended job once more. Beyond the original's API.";
    api.post::<RerunRequest, JobAccepted>("command/rerun", beyond);
    api.post::<PlanStartRequest, PlanStarted>("command/plan_start", "A client begins a plan.");
    api.post::<TaskRequest, JobAccepted>("command/plan_task", "Run a task of a plan.");
    api.post::<PlanFinishRequest, PlanStarted>("command/plan_finish", "A client's plan has ended.");
    let target = "Let some tasks on some nodes be granted under one number.";
    api.post::<TaskTargetRequest, TaskTargetCreated>(TASK_TARGET, target);
}

fn reads(api: &mut Writer) {
    api.get::<Nothing, Index>("", "What there is.");
    api.get::<JobsQuery, Jobs>("jobs", "Jobs.");
    api.get::<Nothing, Job>("jobs/{job}", "One job.");
    api.get::<NodesQuery, Nodes>("jobs/{job}/nodes", "A job's nodes and their results.");
    let beyond = "What a task writes on a node, by offset. Beyond the original's API.";
    api.get::<OutputQuery, NodeOutput>("jobs/{job}/nodes/{node}/output", beyond);
    api.get::<Nothing, Report>("jobs/{job}/report", "A job's report.");
    let events = "A job's events; as a stream of server-sent events, beyond the original's API, when \
                  the request accepts text/event-stream.";
    api.get::<EventsQuery, Events>("jobs/{job}/events", events);
    api.get::<PlanJobsQuery, PlanJobs>("plan_jobs", "Plans that clients have run.");
    api.get::<PlanJobsQuery, PlanJob>("plan_jobs/{plan}", "One plan job.");
    api.get::<EventsQuery, PlanEvents>("plan_jobs/{plan}/events", "A plan job's events.");
    api.get::<Nothing, PlanEvent>("plan_jobs/{plan}/event/{event}", "One event of a plan job.");
    api.get::<EnvironmentQuery, TaskList>("tasks", "The tasks of an environment.");
    api.get::<EnvironmentQuery, TaskDetail>("tasks/{module}/{task}", "One task.");
    api.get::<Nothing, Inventory>("inventory", "Every node that has ever been connected.");
    api.post::<InventoryQuery, Inventory>("inventory", "Whether these nodes are connected.");
    api.get::<Nothing, InventoryItem>("inventory/{node}", "Whether one node is connected.");
    api.get::<Nothing, TaskTargets>("scopes/task_targets", "Task targets.");
    api.get::<Nothing, TaskTarget>("scopes/task_targets/{target}", "One task target.");
    let beyond = "Remove a task target. Beyond the original's API.";
    api.delete::<TaskTarget>("scopes/task_targets/{target}", beyond);
    api.get::<UsageQuery, Usage>("usage", "How much is done, by day.");
    api.at_root::<StatusQuery, Services>("/status/v1/services", "How the services are.");
}

impl Writer {
    fn get<Q: JsonSchema, A: JsonSchema>(&mut self, path: &str, summary: &str) {
        self.at_root::<Q, A>(&absolute(path), summary);
    }

    fn at_root<Q: JsonSchema, A: JsonSchema>(&mut self, path: &str, summary: &str) {
        let mut parameters = in_path(path);
        parameters.extend(self.in_query::<Q>());
        let answer = self.reference::<A>();
        let operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": responses("200", &answer),
        });
        self.add(path, "get", operation);
    }

    fn post<B: JsonSchema, A: JsonSchema>(&mut self, path: &str, summary: &str) {
        let path = absolute(path);
        let body = self.reference::<B>();
        let answer = self.reference::<A>();
        let is_later = path.contains("/command/") && !path.ends_with(TASK_TARGET);
        let status = if is_later { "202" } else { "200" };
        let operation = json!({
            "summary": summary,
            "requestBody": {
                "required": true,
                "content": {"application/json": {"schema": body}},
            },
            "responses": responses(status, &answer),
        });
        self.add(&path, "post", operation);
    }

    fn delete<A: JsonSchema>(&mut self, path: &str, summary: &str) {
        let path = absolute(path);
        let answer = self.reference::<A>();
        let operation = json!({
            "summary": summary,
            "parameters": in_path(&path),
            "responses": responses("200", &answer),
        });
        self.add(&path, "delete", operation);
    }

    fn add(&mut self, path: &str, method: &str, operation: Value) {
        let operations = self.paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(operations) = operations {
            operations.insert(method.to_owned(), operation);
        }
    }

    fn reference<T: JsonSchema>(&mut self) -> Value {
        self.schemas.subschema_for::<T>().to_value()
    }

    /// The properties of a query are parameters of their own.
    fn in_query<Q: JsonSchema>(&mut self) -> Vec<Value> {
        let schema = Q::json_schema(&mut self.schemas).to_value();
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let parameters = properties.into_iter().map(|(name, schema)| {
            let is_required = required.iter().any(|other| *other == name);
            json!({"name": name, "in": "query", "required": is_required, "schema": schema})
        });
        parameters.collect()
    }
}

fn absolute(path: &str) -> String {
    format!("{}/{path}", crate::path::BASE)
        .trim_end_matches('/')
        .to_owned()
}

fn in_path(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({"type": "string"});
    names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": text}))
        .collect()
}

fn responses(status: &str, answer: &Value) -> Value {
    json!({
        status: {
            "description": "It worked.",
            "content": {"application/json": {"schema": answer}},
        },
        "default": {"$ref": "#/components/responses/Error"},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_what_the_types_say() {
        let committed: Value = serde_json::from_str(COMMITTED).unwrap();
        let is_same = committed == document();
        assert!(
            is_same,
            "run: cargo run -p orchestrator-api --example openapi > orchestrator/api/openapi.json"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let mut references = 0;
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        assert!(references > 50, "{references}");
        let scope = document.pointer("/components/schemas/Scope").unwrap();
        assert!(scope.to_string().contains("node_group"), "{scope}");
        let deploy = document
            .pointer("/components/schemas/DeployRequest")
            .unwrap();
        assert!(deploy.to_string().contains("skip_tags"), "{deploy}");
    }
}
