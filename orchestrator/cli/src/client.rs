//! The orchestrator's API, called: one method an endpoint, every failure with its cause.

pub(crate) mod fault;
mod stream;
mod tls;

use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator_api::rbac::{CurrentUser, TokenAnswer, TokenRequest};
use orchestrator_api::{
    ApiError, DeployRequest, Events, InventoryItem, Job, JobAccepted, Jobs, JobsQuery, NodeOutput,
    NodeState, Nodes, RerunRequest, Services, StopAccepted, StopRequest, TaskDetail, TaskList,
    TaskRequest, path,
};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::access::AccessConfig;
use crate::config::{self, Config};
use crate::error::{ConfigError, Failure};
use crate::screen;

pub(crate) use fault::ConnectError;
pub(crate) use stream::EventStream;

/// How long a connection may take to stand: longer than a lost packet or two, shorter than patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take. The orchestrator answers at once; a large page takes its transfer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest answer that is read, in bytes. Pages of nodes are asked for smaller when they exceed it.
const MAX_ANSWER: usize = 128 << 20;

/// How long events may be followed by one request: longer than any job.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is answered to whoever wants events as they come.
const EVENT_STREAM: &str = "text/event-stream";

/// A connection to one orchestrator. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    ca_file: String,
    debug: bool,
}

/// What a client is made from.
struct Connection<'a> {
    url: &'a str,
    ca_file: &'a Path,
    token_file: &'a Path,
    debug: bool,
}

/// The events of a job, as an orchestrator can give them.
#[derive(Debug)]
pub(crate) enum EventSource {
    /// They come by themselves.
    Stream(Box<EventStream>),
    /// Those there are; it has to be asked for others.
    List(Events),
}

/// Which nodes of a job to list, by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) offset: u64,
    pub(crate) limit: u64,
}

impl Client {
    /// A client with the saved token. Nothing is sent yet.
    ///
    /// # Errors
    /// When the URL, the CA certificates or the token are not as they should be.
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        let token = config::token(&config.token_file)?;
        Self::with_token(config, Some(&token))
    }

    /// A client with this token, or with none. Nothing is sent yet.
    ///
    /// # Errors
    /// When the URL or the CA certificates are not as they should be.
    pub(crate) fn with_token(config: &Config, token: Option<&str>) -> Result<Self, Failure> {
        let connection = Connection {
            url: &config.service_url,
            ca_file: &config.ca_file,
            token_file: &config.token_file,
            debug: config.debug,
        };
        Self::build(&connection, token)
    }

    /// A client of the service that gives tokens. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`Self::with_token`].
    pub(crate) fn of_rbac(config: &AccessConfig, token: Option<&str>) -> Result<Self, Failure> {
        let connection = Connection {
            url: &config.service_url,
            ca_file: &config.ca_file,
            token_file: &config.token_file,
            debug: config.debug,
        };
        Self::build(&connection, token)
    }

    fn build(connection: &Connection<'_>, token: Option<&str>) -> Result<Self, Failure> {
        let base = base_url(connection.url)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token).map_err(|_| ConfigError::TokenForm {
                path: connection.token_file.to_owned(),
            })?;
            token.set_sensitive(true);
            headers.insert(TOKEN_NAME, token);
        }
        // Without TLS there is nobody to trust; the client wants a configuration all the same.
        let is_tls = base.scheme() == "https";
        let tls = tls::configuration(is_tls.then_some(connection.ca_file))?;
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("pxp-client-tools/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // The token is for this server alone, and the orchestrator is reached directly.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|source| ConnectError::Broken {
                url: origin(&base),
                source: source.without_url(),
            })?;
        let ca_file = connection.ca_file.display().to_string();
        Ok(Self {
            http,
            base,
            ca_file,
            debug: connection.debug,
        })
    }

    /// A token for a login and its password.
    pub(crate) async fn login(&self, request: &TokenRequest) -> Result<String, Failure> {
        let path = self.rbac(path::AUTH_TOKEN);
        let answer: TokenAnswer = self.call(Method::POST, path, &[], Some(request)).await?;
        Ok(answer.token)
    }

    /// Makes the token of this client useless.
    pub(crate) async fn revoke(&self) -> Result<(), Failure> {
        let path = self.rbac(path::REVOKE_TOKEN);
        let empty = serde_json::Map::new();
        let _: serde_json::Value = self.call(Method::POST, path, &[], Some(&empty)).await?;
        Ok(())
    }

    /// Whom the token of this client stands for.
    pub(crate) async fn current_user(&self) -> Result<CurrentUser, Failure> {
        self.get(self.rbac(path::CURRENT_USER), &[]).await
    }

    /// The path of the RBAC service below the base, which may have its first part already.
    fn rbac<'a>(&self, path: &'a str) -> &'a str {
        if self.base.path().trim_end_matches('/').ends_with(path::RBAC) {
            path.strip_prefix(path::RBAC).unwrap_or(path)
        } else {
            path
        }
    }

    /// How the orchestrator is.
    pub(crate) async fn services(&self) -> Result<Services, Failure> {
        self.get(path::STATUS_SERVICES, &[("level", "debug".to_owned())])
            .await
    }

    /// Whether a node is connected.
    pub(crate) async fn presence(&self, node: &str) -> Result<InventoryItem, Failure> {
        self.get(&path::inventory_node(node), &[]).await
    }

    /// Jobs that were started.
    pub(crate) async fn jobs(&self, query: &JobsQuery) -> Result<Jobs, Failure> {
        let pairs = serde_json::to_value(query).unwrap_or_default();
        let pairs: Vec<(String, String)> = pairs
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| match value {
                serde_json::Value::String(text) => (key.clone(), text.clone()),
                other => (key.clone(), other.to_string()),
            })
            .collect();
        let pairs: Vec<(&str, String)> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        self.get(path::JOBS, &pairs).await
    }

    /// Starts a job that runs a task.
    pub(crate) async fn run_task(&self, request: &TaskRequest) -> Result<JobAccepted, Failure> {
        self.call(Method::POST, path::COMMAND_TASK, &[], Some(request))
            .await
    }

    /// Starts a job that runs Puppet.
    pub(crate) async fn deploy(&self, request: &DeployRequest) -> Result<JobAccepted, Failure> {
        self.call(Method::POST, path::COMMAND_DEPLOY, &[], Some(request))
            .await
    }

    /// Starts an ended job once more.
    pub(crate) async fn rerun(&self, request: &RerunRequest) -> Result<JobAccepted, Failure> {
        self.call(Method::POST, path::COMMAND_RERUN, &[], Some(request))
            .await
    }

    /// Asks a job to stop. Asking again does no harm.
    pub(crate) async fn stop(&self, job: &str, force: bool) -> Result<StopAccepted, Failure> {
        let request = StopRequest {
            job: job.to_owned(),
            force: force.then_some(true),
        };
        self.call(Method::POST, path::COMMAND_STOP, &[], Some(&request))
            .await
    }

    /// One job.
    pub(crate) async fn job(&self, job: &str) -> Result<Job, Failure> {
        self.get(&path::job(job), &[]).await
    }

    /// The events of a job, from `start` on.
    pub(crate) async fn events(&self, job: &str, start: Option<&str>) -> Result<Events, Failure> {
        self.get(&path::job_events(job), &from(start)).await
    }

    /// The events of a job, from `start` on, as they come: where the orchestrator does that.
    pub(crate) async fn follow_events(
        &self,
        job: &str,
        start: Option<&str>,
    ) -> Result<EventSource, Failure> {
        let url = self.url(&path::job_events(job), &from(start));
        let request = self.http.get(url.clone()).timeout(FOLLOW_TIMEOUT);
        let request = request.header(
            header::ACCEPT,
            format!("{EVENT_STREAM}, application/json;q=0.5"),
        );
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, request.send()).await {
            Ok(answer) => answer.map_err(|error| self.fault(error))?,
            Err(_) => {
                let url = origin(&self.base);
                return Err(ConnectError::TimedOut { url }.into());
            }
        };
        let form = answer.headers().get(header::CONTENT_TYPE);
        let is_stream =
            form.is_some_and(|form| form.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
        if self.debug {
            let form = if is_stream { "stream" } else { "list" };
            screen::complain(&format!("GET {url}: {}, a {form}", answer.status()));
        }
        if is_stream && answer.status() == 200 {
            let stream = EventStream::new(answer, self.clone());
            return Ok(EventSource::Stream(Box::new(stream)));
        }
        let (status, body) = self.read(answer).await?;
        Ok(EventSource::List(self.decode(status, &body)?))
    }

    /// What a task has written on one node, from these offsets on. It is waited for, if there is
    /// nothing new: at most `wait` seconds.
    pub(crate) async fn output(
        &self,
        job: &str,
        node: &str,
        offsets: (u64, u64),
        wait: u64,
    ) -> Result<NodeOutput, Failure> {
        let query = [
            ("stdout", offsets.0.to_string()),
            ("stderr", offsets.1.to_string()),
            ("wait", wait.to_string()),
        ];
        self.get(&path::job_output(job, node), &query).await
    }

    /// A page of a job's nodes.
    pub(crate) async fn nodes(&self, job: &str, page: Page) -> Result<Nodes, Failure> {
        let query = [
            ("limit", page.limit.to_string()),
            ("offset", page.offset.to_string()),
        ];
        self.get(&path::job_nodes(job), &query).await
    }

    /// At most `limit` nodes that have ended in this state, the first to end first, behind those of
    /// an earlier answer.
    pub(crate) async fn ended(
        &self,
        job: &str,
        state: NodeState,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Nodes, Failure> {
        let query = [
            ("state", state.text().to_owned()),
            ("order_by", "finish_timestamp".to_owned()),
            ("limit", limit.to_string()),
            match after {
                Some(mark) => ("after", mark.to_owned()),
                None => ("offset", "0".to_owned()),
            },
        ];
        self.get(&path::job_nodes(job), &query).await
    }

    /// The tasks of an environment.
    pub(crate) async fn tasks(&self, environment: Option<&str>) -> Result<TaskList, Failure> {
        self.get(path::TASKS, &in_environment(environment)).await
    }

    /// One task of an environment.
    pub(crate) async fn task(
        &self,
        name: &str,
        environment: Option<&str>,
    ) -> Result<TaskDetail, Failure> {
        self.get(&path::task(name), &in_environment(environment))
            .await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.call(Method::GET, path, query, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let url = self.url(path, query);
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        let began = Instant::now();
        let answer = self.exchange(request).await;
        if self.debug {
            let outcome = match &answer {
                Ok((status, body)) => format!("{status}, {} bytes", body.len()),
                Err(failure) => failure.to_string(),
            };
            screen::complain(&format!("{method} {url}: {outcome}, {:?}", began.elapsed()));
        }
        let (status, body) = answer?;
        self.decode(status, &body)
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn decode<T: DeserializeOwned>(&self, status: u16, body: &[u8]) -> Result<T, Failure> {
        if status == 200 || status == 202 {
            return serde_json::from_slice(body).map_err(|_| self.strange(status));
        }
        match serde_json::from_slice::<ApiError>(body) {
            Ok(error) => Err(Failure::Api(error)),
            Err(_) => Err(self.strange(status)),
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), Failure> {
        let answer = request.send().await.map_err(|error| self.fault(error))?;
        self.read(answer).await
    }

    /// Reads an answer, up to the limit.
    async fn read(&self, mut answer: reqwest::Response) -> Result<(u16, Vec<u8>), Failure> {
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.fault(error))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Failure::AnswerTooLarge {
                    url: origin(&self.base),
                    limit: MAX_ANSWER,
                });
            }
            body.extend_from_slice(&piece);
        }
        Ok((answer.status().as_u16(), body))
    }

    fn fault(&self, error: reqwest::Error) -> Failure {
        let host = self.base.host_str().unwrap_or_default();
        fault::classify(error, &origin(&self.base), host, &self.ca_file).into()
    }

    fn strange(&self, status: u16) -> Failure {
        Failure::NotAnOrchestrator {
            url: origin(&self.base),
            status,
        }
    }
}

/// The header's name, in the lower case that HTTP/2 has.
const TOKEN_NAME: header::HeaderName = header::HeaderName::from_static("x-authentication");

fn from(start: Option<&str>) -> Vec<(&'static str, String)> {
    start
        .map(|start| ("start", start.to_owned()))
        .into_iter()
        .collect()
}

fn in_environment(environment: Option<&str>) -> Vec<(&'static str, String)> {
    environment
        .map(|name| ("environment", name.to_owned()))
        .into_iter()
        .collect()
}

/// Scheme, host and port, for messages.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn base_url(text: &str) -> Result<Url, ConfigError> {
    let refused = |problem| ConfigError::ServiceUrl {
        url: text.to_owned(),
        problem,
    };
    let url = Url::parse(text.trim()).map_err(|_| refused("it is not a URL"))?;
    let host = url.host_str().unwrap_or_default();
    let is_loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match url.scheme() {
        "https" if !host.is_empty() => Ok(url),
        // Without TLS the token would be there for anyone to read, but for this machine itself.
        "http" if is_loopback => Ok(url),
        "http" => Err(refused("it must begin with https://")),
        _ => Err(refused("it must be https://HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::TOKEN_HEADER;

    use super::*;

    #[test]
    fn the_token_header_is_the_apis() {
        assert!(TOKEN_HEADER.eq_ignore_ascii_case(TOKEN_NAME.as_str()));
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear() {
        assert!(base_url("https://puppet.example.com:8143").is_ok());
        assert!(base_url("http://127.0.0.1:80").is_ok());
        for text in [
            "http://puppet.example.com",
            "ftp://x",
            "puppet.example.com:8143",
            "",
            "https://",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
