//! What an operator sees of a running broker: metrics, connections and the inventory, and who may not.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use pcp::Certname;
use pcp_broker::config::{Config, Metrics};
use pcp_broker::operator::{self, AskError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::field::{Client, Field, Running, SOON, broker_address, message};
use crate::foreign::{Foreign, tls};
use crate::valve::Valve;

/// Each sample by its name and labels, of a text that keeps to the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut described = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and its help");
            assert!(!help.is_empty(), "{line}");
            described = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and its type");
            assert_eq!(name, described);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
            let name = sample.split('{').next().expect("a name");
            assert!(
                name.starts_with(described),
                "{line} without its description"
            );
            assert!(
                name.starts_with("pcp_broker_") || name.starts_with("process_"),
                "{line}"
            );
            let value = value.parse().expect("a number");
            let before = samples.insert(sample.to_owned(), value);
            assert_eq!(before, None, "{sample} stands there twice");
        }
    }
    samples
}

/// Asks over TLS, and gives status line and body.
pub(crate) async fn get(
    field: &Field,
    certname: Option<&str>,
    broker: &Running,
    path: &str,
) -> (String, String) {
    let mut stream = tls(field, certname, broker).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = Vec::new();
    // Some end without the last word of TLS.
    drop(
        timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("in time"),
    );
    parts(answer)
}

fn parts(answer: Vec<u8>) -> (String, String) {
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.lines().next().expect("a status line").to_owned();
    (status, body.to_owned())
}

pub(crate) async fn metrics(
    field: &Field,
    certname: &str,
    broker: &Running,
) -> BTreeMap<String, f64> {
    let (status, body) = get(field, Some(certname), broker, "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    samples(&body)
}

/// A broker, whose configuration names the port that it has got.
fn watched(field: &Field, mut config: Config) -> (Running, Config) {
    config.metrics.allowlist = vec![Certname::parse("prometheus").expect("a certname")];
    let broker = Running::start(config.clone());
    config.listen = broker.address;
    fs::write(field.path().join("broker.conf"), config.to_string()).expect("written");
    (broker, config)
}

/// An orchestrator, an agent over QUIC and one over WebSocket, all at one broker.
async fn fleet(field: &Field, broker: &Running) -> (Client, Client, Foreign) {
    let mut orchestrator = field.connected("orch", "orchestrator", broker).await;
    let agent = field.connected("web1", "agent", broker).await;
    let old = Foreign::two(field, "old1", "agent", broker).await;
    for uri in ["pcp://web1/agent", "pcp://old1/agent"] {
        orchestrator.wait_present(uri, true).await;
    }
    (orchestrator, agent, old)
}

#[tokio::test]
async fn metrics_tell_who_is_connected_and_what_became_of_messages() {
    let field = Field::new();
    let (broker, _) = watched(&field, field.config("primary", &[]));
    let (orchestrator, mut agent, _old) = fleet(&field, &broker).await;
    let request = message(
        &orchestrator.handle,
        "rpc_blocking_request",
        "pcp://web1/agent",
        10,
    );
    orchestrator.send(&request).await;
    assert_eq!(agent.message().await.envelope.id, request.envelope.id);
    let nowhere = message(
        &orchestrator.handle,
        "rpc_blocking_request",
        "pcp://x/agent",
        1,
    );
    orchestrator.send(&nowhere).await;
    let command = message(&agent.handle, "rpc_blocking_request", "pcp://old1/agent", 1);
    agent.refused(&command, "Message not authorized.").await;
    // A node that wants to be an orchestrator.
    let rogue = field.client("rogue", "orchestrator", &broker);

    let mut seen = BTreeMap::new();
    let told = async {
        loop {
            seen = metrics(&field, "primary", &broker).await;
            let refused = seen.get("pcp_broker_refused_total{cause=\"not_a_controller\"}");
            if refused.is_some_and(|count| *count >= 1.0) {
                return;
            }
        }
    };
    timeout(SOON, told)
        .await
        .expect("the rogue is counted in time");
    drop(rogue);
    for (sample, value) in [
        (
            "pcp_broker_connections{client_type=\"agent\",transport=\"quic\",pcp_version=\"quic/1\"}",
            1.0,
        ),
        (
            "pcp_broker_connections{client_type=\"agent\",transport=\"websocket\",pcp_version=\"2\"}",
            1.0,
        ),
        ("pcp_broker_clients", 3.0),
        ("pcp_broker_known_clients", 3.0),
        ("pcp_broker_links", 0.0),
        (
            "pcp_broker_messages_received_total{type=\"rpc_blocking_request\",outcome=\"passed\"}",
            1.0,
        ),
        (
            "pcp_broker_messages_received_total{type=\"rpc_blocking_request\",\
             outcome=\"not_connected\"}",
            1.0,
        ),
        (
            "pcp_broker_messages_received_total{type=\"rpc_blocking_request\",\
             outcome=\"not_authorized\"}",
            1.0,
        ),
        (
            "pcp_broker_messages_refused_total{reason=\"not_authorized\"}",
            1.0,
        ),
        ("pcp_broker_refused_total{cause=\"message_forbidden\"}", 1.0),
        ("pcp_broker_refused_total{cause=\"revoked\"}", 0.0),
        ("pcp_broker_open", 1.0),
    ] {
        assert_eq!(seen.get(sample), Some(&value), "{sample} of {seen:#?}");
    }
    for sample in [
        "pcp_broker_handshake_duration_seconds_count{transport=\"quic\",outcome=\"completed\"}",
        "pcp_broker_handshake_duration_seconds_count{transport=\"tls\",outcome=\"completed\"}",
        "pcp_broker_messages_total{outcome=\"delivered\"}",
        "pcp_broker_certificate_expiry_timestamp_seconds",
        "pcp_broker_crl_next_update_timestamp_seconds",
        "process_resident_memory_bytes",
    ] {
        let value = seen.get(sample);
        assert!(
            value.is_some_and(|value| *value >= 1.0),
            "{sample} of {seen:#?}"
        );
    }
}

#[tokio::test]
async fn metrics_are_for_those_on_the_list_and_for_this_host() {
    let field = Field::new();
    let mut config = field.config("primary", &[]);
    let loopback: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    config.metrics = Metrics {
        allowlist: Vec::new(),
        listen: Some(loopback),
    };
    let (broker, _) = watched(&field, config);
    for (certname, status) in [
        (Some("prometheus"), "HTTP/1.1 200 OK"),
        (Some("primary"), "HTTP/1.1 200 OK"),
        (Some("node"), "HTTP/1.1 403 Forbidden"),
        // Not even an orchestrator, which the rules let command agents.
        (Some("orch"), "HTTP/1.1 403 Forbidden"),
        (None, "HTTP/1.1 403 Forbidden"),
    ] {
        let (got, body) = get(&field, certname, &broker, "/metrics").await;
        assert_eq!(got, status, "{certname:?}: {body}");
    }
    let address = broker.metrics.expect("an address");
    for (path, status) in [
        ("/metrics", "HTTP/1.1 200 OK"),
        ("/operator/v1/connections", "HTTP/1.1 404 Not Found"),
        ("/status/v1/services", "HTTP/1.1 404 Not Found"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.expect("in time").expect("an answer");
        let (got, body) = parts(answer);
        assert_eq!(got, status, "{path}: {body}");
        if path == "/metrics" {
            assert!(samples(&body).contains_key("pcp_broker_clients"));
        }
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_counted_as_such_over_both_transports() {
    let field = Field::new();
    field.files("stolen");
    field.ca.revoke("stolen").expect("revoked");
    let broker = field.primary();
    let _over_quic = field.client("stolen", "agent", &broker);
    let told = async {
        loop {
            drop(tls(&field, Some("stolen"), &broker).await);
            let seen = metrics(&field, "primary", &broker).await;
            let failed = |transport: &str| {
                let name = "pcp_broker_handshake_duration_seconds_count";
                let sample = format!("{name}{{transport=\"{transport}\",outcome=\"failed\"}}");
                seen.get(&sample).copied().unwrap_or_default()
            };
            let revoked = seen.get("pcp_broker_refused_total{cause=\"revoked\"}");
            let both = failed("quic").min(1.0) + failed("tls").min(1.0);
            if both >= 2.0 && revoked.is_some_and(|count| *count >= failed("quic") + 1.0) {
                return;
            }
        }
    };
    timeout(SOON, told).await.expect("counted in time");
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_message_and_what_became_of_it() {
    let field = Field::new();
    let path = field.path().join("pcp-access.log");
    let mut config = field.config("primary", &[]);
    config.access_log = Some(path.clone());
    let (broker, _) = watched(&field, config);
    let (orchestrator, mut agent, mut old) = fleet(&field, &broker).await;
    let request = message(
        &orchestrator.handle,
        "rpc_blocking_request",
        "pcp://web1/agent",
        10,
    );
    orchestrator.send(&request).await;
    agent.message().await;
    let command = message(&agent.handle, "rpc_blocking_request", "pcp://old1/agent", 1);
    agent.refused(&command, "Message not authorized.").await;
    old.text("this is no message").await;
    old.message().await;
    broker.stop().await;

    let text = fs::read_to_string(&path).expect("a log");
    for (outcome, parts) in [
        (
            "AUTHORIZATION_SUCCESS",
            format!(
                " orch pcp://orch/orchestrator rpc_blocking_request {} \
                 pcp://web1/agent",
                request.envelope.id
            ),
        ),
        (
            "AUTHORIZATION_FAILURE",
            format!(
                " web1 pcp://web1/agent rpc_blocking_request {} \
                 pcp://old1/agent",
                command.envelope.id
            ),
        ),
        ("DESERIALIZATION_ERROR", " old1 - - - -".to_owned()),
    ] {
        let found = text
            .lines()
            .any(|line| line.starts_with("[2") && line.contains(outcome) && line.ends_with(&parts));
        assert!(found, "{outcome}{parts}: {text}");
    }
}

#[tokio::test]
async fn the_access_log_has_the_address_that_a_client_has_now() {
    let field = Field::new();
    let path = field.path().join("pcp-access.log");
    let mut config = field.config("primary", &[]);
    config.access_log = Some(path.clone());
    let broker = Running::start(config);
    let valve = Valve::new(broker.address, true).await;
    let mut orchestrator = field.connected("orch", "orchestrator", &broker).await;
    let brokers = vec![broker_address(valve.address)];
    let mut agent = field.client_of("web1", "agent", brokers, &[]);
    agent.wait_connected().await;
    for _ in 0..2 {
        let answer = message(
            &agent.handle,
            "rpc_blocking_response",
            "pcp://orch/orchestrator",
            1,
        );
        agent.send(&answer).await;
        assert_eq!(orchestrator.message().await.envelope.id, answer.envelope.id);
        valve.move_clients();
    }
    broker.stop().await;
    let text = fs::read_to_string(&path).expect("a log");
    let lines = text.lines().filter(|line| line.contains(" web1 "));
    let addresses: Vec<_> = lines.map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(addresses.len(), 2, "{text}");
    assert_ne!(addresses[0], addresses[1], "{text}");
}

#[tokio::test]
async fn an_operator_sees_who_is_connected_where() {
    let field = Field::new();
    let (primary, config) = watched(&field, field.config("primary", &[]));
    let compiler_config = field.config("compiler-1", &[primary.address]);
    let compiler = Running::start(compiler_config.clone());
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let mut near = field.connected("near", "agent", &primary).await;
    let _far = field.connected("far", "agent", &compiler).await;
    orchestrator.wait_present("pcp://far/agent", true).await;
    let request = message(
        &orchestrator.handle,
        "rpc_blocking_request",
        "pcp://near/agent",
        100,
    );
    orchestrator.send(&request).await;
    near.message().await;

    let rows = operator::connections(&config).await.expect("an answer");
    let names: Vec<_> = rows.iter().map(|row| row.uri.as_str()).collect();
    assert_eq!(
        names,
        [
            "pcp://compiler-1/server",
            "pcp://near/agent",
            "pcp://orch/orchestrator"
        ]
    );
    let row = &rows[1];
    assert_eq!(
        (row.transport.as_str(), row.pcp_version.as_str()),
        ("quic", "quic/1")
    );
    assert_eq!(row.software.as_deref(), Some("test/1"));
    assert_eq!((row.sent_messages, row.received_messages), (1, 0));
    assert!(row.sent_bytes >= 100, "{row:?}");
    assert!(
        row.since.is_some() && row.round_trip_ms.is_some(),
        "{row:?}"
    );
    let address = row.address.as_deref().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");

    let mut compiler_config = compiler_config;
    compiler_config.listen = compiler.address;
    let rows = operator::connections(&compiler_config)
        .await
        .expect("an answer");
    let dialled = rows.iter().find(|row| row.uri == "pcp://primary/server");
    assert_eq!(dialled.expect("the uplink").address, None, "{rows:?}");

    let clients = operator::inventory(&config).await.expect("an answer");
    let places: Vec<_> = clients
        .iter()
        .map(|client| (client.uri.as_str(), client.broker.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            ("pcp://far/agent", "compiler-1"),
            ("pcp://near/agent", "primary"),
            ("pcp://orch/orchestrator", "primary"),
        ]
    );
}

#[tokio::test]
async fn only_the_broker_s_own_certificate_opens_the_operator_s_view() {
    let field = Field::new();
    let (broker, config) = watched(&field, field.config("primary", &[]));
    for path in ["/operator/v1/connections", "/operator/v1/inventory"] {
        for certname in [Some("node"), Some("orch"), Some("prometheus"), None] {
            let (status, _) = get(&field, certname, &broker, path).await;
            assert_eq!(status, "HTTP/1.1 403 Forbidden", "{path} {certname:?}");
        }
        let (status, _) = get(&field, Some("primary"), &broker, path).await;
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}");
    }
    // Another broker at the address is not taken for the one that was meant.
    let mut other = config.clone();
    other.files = field.files("node");
    let error = operator::connections(&other)
        .await
        .expect_err("another broker");
    assert!(matches!(error, AskError::Tls { .. }), "{error:?}");

    let mut without = config.clone();
    without.transports.websocket = false;
    let error = operator::connections(&without).await.expect_err("no port");
    assert!(
        error.to_string().contains("`transports` has no websocket"),
        "{error}"
    );

    broker.stop().await;
    let error = operator::connections(&config).await.expect_err("stopped");
    assert!(
        error.to_string().contains("is pcp-broker running"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_print_tables_and_json() {
    let field = Field::new();
    let (broker, _) = watched(&field, field.config("primary", &[]));
    let (_orchestrator, _agent, _old) = fleet(&field, &broker).await;
    let conf = field.path().join("broker.conf");
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pcp-broker"));
        command.arg("--config").arg(&conf).args(arguments);
        let output = command.output().await.expect("the binary runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
        String::from_utf8(output.stdout).expect("text")
    };
    let table = run(&["connections", "--certname", "*1", "--type", "agent"]).await;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("CLIENT"), "{table}");
    assert!(
        lines[1].starts_with("old1/agent") && lines[1].contains("websocket"),
        "{table}"
    );
    assert!(
        lines[2].starts_with("web1/agent") && lines[2].contains("quic/1"),
        "{table}"
    );
    assert!(lines[3].starts_with("2 connections: "), "{table}");

    let json = run(&["inventory", "--json", "--certname", "web1"]).await;
    let rows: Vec<operator::Client> = serde_json::from_str(&json).expect("JSON");
    assert_eq!(rows.len(), 1, "{json}");
    assert_eq!(
        (rows[0].uri.as_str(), rows[0].broker.as_str()),
        ("pcp://web1/agent", "primary")
    );
}
