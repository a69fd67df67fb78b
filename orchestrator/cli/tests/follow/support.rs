//! A played orchestrator: HTTP/1.1 on loopback, one request a connection, answers from a closure.

#![expect(
    clippy::unwrap_used,
    reason = "a broken test ends at once, and says where"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

/// Serves until the test ends.
pub(crate) struct Orchestrator {
    url: String,
    dir: tempfile::TempDir,
}

/// What was asked.
pub(crate) struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// What is answered.
pub(crate) struct Answer {
    status: u16,
    form: &'static str,
    body: String,
}

impl Orchestrator {
    pub(crate) fn start(mut play: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let Some(request) = Request::read(&connection) else {
                    continue;
                };
                let answer = play(&request);
                let head = format!(
                    "HTTP/1.1 {} X\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.status,
                    answer.form,
                    answer.body.len()
                );
                connection
                    .write_all((head + &answer.body).as_bytes())
                    .unwrap();
            }
        });
        let started = Self {
            url,
            dir: tempfile::tempdir().unwrap(),
        };
        started.file("token", "secret-token\n");
        started
    }

    /// Runs the binary against this orchestrator, with `stdin` as its standard input.
    pub(crate) fn puppet_task(&self, arguments: &[&str], stdin: &str) -> Output {
        Self::finish(self.spawn(arguments), stdin)
    }

    /// Runs `puppet-job` against this orchestrator.
    pub(crate) fn puppet_job(&self, arguments: &[&str]) -> Output {
        let child = self.spawn_tool(env!("CARGO_BIN_EXE_puppet-job"), arguments);
        Self::finish(child, "")
    }

    /// Runs `puppet-access` against this orchestrator, with `stdin` as its standard input.
    pub(crate) fn puppet_access(&self, arguments: &[&str], stdin: &str) -> Output {
        let child = self.spawn_tool(env!("CARGO_BIN_EXE_puppet-access"), arguments);
        Self::finish(child, stdin)
    }

    fn finish(mut child: Child, stdin: &str) -> Output {
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// Where the token is.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Starts `puppet-task` against this orchestrator.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.spawn_tool(env!("CARGO_BIN_EXE_puppet-task"), arguments)
    }

    fn spawn_tool(&self, binary: &str, arguments: &[&str]) -> Child {
        let token = self.token_file();
        let options = json!({"options": {"service-url": self.url, "token-file": token}});
        Command::new(binary)
            .args(arguments)
            .env(
                "PXP_CLIENT_CONFIG",
                self.file("client.conf", &options.to_string()),
            )
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Request {
    fn read(connection: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(connection);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Some(Self {
            method,
            path: path.to_owned(),
            query,
            headers,
            body,
        })
    }

    pub(crate) fn route(&self) -> (&str, &str) {
        (&self.method, &self.path)
    }

    pub(crate) fn query(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Answer {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "answers are written where they are given"
    )]
    pub(crate) fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            form: "application/json",
            body: body.to_string(),
        }
    }

    /// A list of events as a stream that ends after them.
    pub(crate) fn stream(events: &Value) -> Self {
        let events = events["items"].as_array().unwrap();
        Self {
            status: 200,
            form: "text/event-stream",
            body: events
                .iter()
                .map(|event| format!("id: 1\ndata: {event}\n\n"))
                .collect(),
        }
    }
}

/// What Ctrl-C sends.
pub(crate) fn interrupt(child: &Child) {
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// The lines of an output.
pub(crate) fn lines(output: &[u8]) -> Vec<String> {
    String::from_utf8(output.to_vec())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Job 7 in this state.
pub(crate) fn job(state: &str, states: &Value) -> Value {
    let total: u64 = states
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    json!({
        "id": "u", "name": "7", "state": state, "command": "task", "type": "task",
        "options": {"description": "", "plan_job": null, "noop": false, "task": "a",
            "sensitive": [], "scheduled-job-id": null, "params": {},
            "scope": {"nodes": ["n1"]}, "environment": "production", "timeout": null},
        "owner": {"id": "1", "login": "a", "email": "", "display_name": "", "is_revoked": false,
            "last_login": null, "is_remote": false, "is_superuser": true, "is_group": false,
            "role_ids": [], "inherited_role_ids": [], "group_ids": []},
        "description": "", "timestamp": "2026-11-22T14:30:00Z",
        "created_timestamp": "2026-11-22T14:30:00Z", "started_timestamp": null,
        "finished_timestamp": null, "duration": "1.5", "node_count": total,
        "node_states": states, "nodes": {"id": "u"}, "report": {"id": "u"},
        "events": {"id": "u"}, "environment": {"name": "production"}, "userdata": {},
    })
}

/// Events by type and node (empty for the job's own), and the number of the next.
pub(crate) fn events(next: u64, events: &[(&str, &str)]) -> Value {
    let items: Vec<Value> = events
        .iter()
        .map(|(kind, node)| {
            let details = if node.is_empty() {
                json!({})
            } else {
                json!({"node": node, "detail": {}})
            };
            json!({"id": "1", "type": kind, "timestamp": "2026-11-22T14:30:00Z",
                "details": details, "message": ""})
        })
        .collect();
    json!({"next-events": {"id": "u", "event": next.to_string()}, "items": items})
}

/// One node of a job.
pub(crate) fn node(name: &str, state: &str, result: &Value) -> Value {
    json!({"name": name, "state": state, "timestamp": null, "start_timestamp": null,
        "finish_timestamp": null, "duration": 1.0, "transaction_uuid": null, "details": {},
        "result": result})
}

/// A page of nodes.
pub(crate) fn nodes(items: &[Value]) -> Value {
    let next = (!items.is_empty()).then_some("1.1");
    json!({"next-events": {"id": "u", "event": "1"}, "next-nodes": next, "items": items})
}
