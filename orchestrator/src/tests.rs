//! The whole orchestrator but the mesh: real TLS, real HTTP, a real database, and agents played by
//! the test. How the parts behave by themselves is tested beside them.

mod access;
mod api;
mod commands;
mod doctor;
mod estate;
mod fleet;
mod metrics;
mod played;
mod recovery;
mod task_targets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use identity::Identity;
use lab_ca::{CertificateAuthority, SslDir};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{Bound, Config};
use fleet::Fleet;

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// What survives an orchestrator: its files.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    ssl: SslDir,
    ca: CertificateAuthority,
    pcp_timeout: u32,
    /// Lines of the configuration besides the usual ones.
    more: String,
}

/// A running orchestrator, and a client with a token.
pub(crate) struct Server {
    tasks: daemon::Tasks,
    client: Client,
    token: String,
    base: String,
    /// Where metrics are read without TLS.
    metrics: Option<std::net::SocketAddr>,
    store: crate::store::Store,
    identity: Arc<identity::Current>,
    submissions: Arc<tokio::sync::RwLock<()>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with_pcp_timeout(30)
    }

    /// A home where nodes have so many seconds to come.
    pub(crate) fn with_pcp_timeout(pcp_timeout: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(dir.path(), "Test").unwrap();
        let names = ["localhost", "127.0.0.1", "orchestrator"].map(str::to_owned);
        let ssl = ca.issue("orchestrator", &names).unwrap();
        let home = Self {
            dir,
            ssl,
            ca,
            pcp_timeout,
            more: String::new(),
        };
        home.task(
            "hello",
            "#!/bin/sh\necho hello\n",
            &json!({"description": "Says hello"}),
        );
        let parameters = json!({
            "name": {"type": "String[1]"},
            "count": {"type": "Integer[1,10]", "default": 3},
            "password": {"type": "Optional[String]", "sensitive": true},
        });
        let metadata = json!({"parameters": parameters, "supports_noop": true, "private": true});
        home.task("typed", "#!/bin/sh\ncat\n", &metadata);
        home.task(
            "broken",
            "#!/bin/sh\n",
            &json!({"implementations": [{"name": "nothere.sh"}]}),
        );
        home
    }

    fn task(&self, name: &str, script: &str, metadata: &Value) {
        let dir = self.path("modules/sample/tasks");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.sh")), script).unwrap();
        std::fs::write(dir.join(format!("{name}.json")), metadata.to_string()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> Config {
        let path = self.path("orchestrator.conf");
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let text = format!(
            "orchestrator {{ listen: \"127.0.0.1:0\", brokers: [\"127.0.0.1:1\"]\n\
             ssl-cert: {}, ssl-key: {}, ssl-ca-cert: {}, ssl-crl-path: {}\n\
             database: {}, pcp-timeout: {}s\n\
             environments {{ production {{ modulepath: [{}] }}, empty {{}} }} }}\n{}",
            quoted(&self.ssl.cert()),
            quoted(&self.ssl.key()),
            quoted(&self.ssl.ca()),
            quoted(&self.ssl.crl()),
            quoted(&self.path("orchestrator.db")),
            self.pcp_timeout,
            quoted(&self.path("modules")),
            self.more,
        );
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    /// Starts an orchestrator whose mesh is this fleet.
    pub(crate) async fn start(&self, fleet: &Fleet) -> Server {
        self.start_with(fleet, None).await
    }

    /// The same, with a place where reports of Puppet runs are found.
    pub(crate) async fn start_with(
        &self,
        fleet: &Fleet,
        reports: Option<Arc<dyn crate::reports::ReportSource>>,
    ) -> Server {
        let config = self.config();
        let token = crate::create_token(&config, "ada", Duration::from_secs(600))
            .await
            .unwrap();
        let mut bound = Bound::new(config.clone()).await.unwrap();
        bound.reports = reports;
        let submissions = Arc::clone(&bound.submissions);
        let base = format!("https://localhost:{}", bound.address().port());
        let metrics = bound.metrics_address();
        let store = bound.store.clone();
        let certificates = bound.identity();
        let tasks = daemon::Tasks::new();
        let library = crate::library::Library::new();
        let prepared = bound.prepare(library.clone()).await.unwrap();
        let mesh = fleet.connect(library, &tasks);
        bound.run(prepared, mesh, &tasks).unwrap();
        let client = client(&config);
        Server {
            tasks,
            client,
            token,
            base,
            metrics,
            store,
            identity: certificates,
            submissions,
        }
    }
}

impl Server {
    /// Ends without any of the care that a shutdown takes: what is not on the disk is lost.
    pub(crate) async fn stop(self) {
        assert!(self.tasks.shutdown(DEADLINE).await);
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        self.call_as(Some(&self.token), method, path, body).await
    }

    /// A call with this token, or with none.
    pub(crate) async fn call_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            request = request.header("X-Authentication", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Runs a task and gives the job's number.
    pub(crate) async fn run(&self, task: &str, params: Value, nodes: &[&str]) -> String {
        let body = json!({"task": task, "params": params, "scope": {"nodes": nodes}});
        let (status, body) = self.post("/orchestrator/v1/command/task", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        body["job"]["name"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is in one of these states.
    pub(crate) async fn wait(&self, job: &str, states: &[&str]) -> Value {
        let mut polls = tokio::time::interval(Duration::from_millis(10));
        let wait = async {
            loop {
                polls.tick().await;
                let job = self.get(&format!("/orchestrator/v1/jobs/{job}")).await;
                if states.contains(&job["state"].as_str().unwrap()) {
                    return job;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(job) => job,
            Err(_) => {
                let last = self
                    .get(&format!("/orchestrator/v1/jobs/{job}/nodes"))
                    .await;
                panic!("job {job} is not in {states:?}: {last}");
            }
        }
    }

    /// Waits until a job has ended.
    pub(crate) async fn end(&self, job: &str) -> Value {
        self.wait(job, &["finished", "failed", "stopped"]).await
    }

    /// The nodes of a job by name.
    pub(crate) async fn nodes(&self, job: &str) -> Vec<Value> {
        let nodes = self
            .get(&format!("/orchestrator/v1/jobs/{job}/nodes"))
            .await;
        nodes["items"].as_array().unwrap().clone()
    }
}

/// An HTTP client with the certificate of the orchestrator itself.
pub(crate) fn client(config: &Config) -> Client {
    let identity = Identity::load(&config.ssl).unwrap();
    let tls = identity.client_config(&[b"h2", b"http/1.1"]).unwrap();
    Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
        .tls_info(true)
        .build()
        .unwrap()
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, body)
}
