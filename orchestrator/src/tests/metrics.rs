//! Metrics: what they tell of a job, and who may read them.

use std::collections::BTreeMap;

use identity::Files;
use pcp::uri::Certname;
use reqwest::Method;
use serde_json::json;

use super::fleet::Fleet;
use super::{Home, Server, answer, client};

/// Each sample by its name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            (sample.to_owned(), value.parse().unwrap())
        })
        .collect()
}

impl Server {
    /// Asks as the holder of this certificate.
    async fn metrics_as(&self, home: &Home, certname: &str) -> (u16, String) {
        let mut config = home.config();
        if certname != "orchestrator" {
            let ssl = home.ca.issue(certname, &[]).unwrap();
            let certname = Certname::parse(certname).unwrap();
            config.ssl = Files::from_ssldir(&ssl.dir, &certname);
        }
        let request = client(&config).get(format!("{}/metrics", self.base));
        let (status, text) = answer(request).await;
        (status.as_u16(), text.as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn metrics_tell_of_jobs_nodes_requests_and_the_database() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a", "b"])).await;
    let job = server.run("sample::hello", json!({}), &["a", "b"]).await;
    server.end(&job).await;
    let (status, _) = server
        .call_as(None, Method::GET, "/orchestrator/v1/jobs", None)
        .await;
    assert_eq!(status, 401);
    server.call(Method::GET, "/no/such/path", None).await;

    let (status, text) = server.metrics_as(&home, "orchestrator").await;
    assert_eq!(status, 200, "{text}");
    let seen = samples(&text);
    for (sample, least) in [
        ("node_runs_total{state=\"finished\"}", 2.0),
        ("jobs_total{state=\"finished\"}", 1.0),
        // Of each node that it was sent, accepted and has ended, and of the job what it entered.
        ("changes_written_total", 7.0),
        (
            "database_write_duration_seconds_count{outcome=\"written\"}",
            1.0,
        ),
        ("database_bytes", 1000.0),
        ("broker_connected", 1.0),
        ("connected_nodes", 2.0),
        ("certificate_expiry_timestamp_seconds", 1.0),
        (
            "http_request_duration_seconds_count{method=\"POST\",\
             path=\"/orchestrator/v1/command/task\",status=\"202\"}",
            1.0,
        ),
        (
            "http_request_duration_seconds_count{method=\"GET\",\
             path=\"/orchestrator/v1/jobs/{job}\",status=\"200\"}",
            1.0,
        ),
        (
            "http_request_duration_seconds_count{method=\"GET\",\
             path=\"/orchestrator/v1/jobs\",status=\"401\"}",
            1.0,
        ),
    ] {
        let value = seen.get(&format!("pxp_orchestrator_{sample}"));
        assert!(
            value.is_some_and(|value| *value >= least),
            "{sample}: {text}"
        );
    }
    assert!(seen.contains_key("pxp_orchestrator_active_jobs"), "{text}");
    assert_eq!(seen.get("pxp_orchestrator_database_failing"), Some(&0.0));
    assert!(
        !text.contains("/no/such/path"),
        "callers invent no labels: {text}"
    );
    assert!(text.contains("path=\"other\""), "{text}");
}

#[tokio::test]
async fn metrics_are_for_listed_certificates_and_for_this_host() {
    let mut home = Home::new();
    home.more = "orchestrator.metrics-allowlist: [prometheus]\n\
                 orchestrator.metrics-listen: \"127.0.0.1:0\""
        .to_owned();
    let server = home.start(&Fleet::echo(&["a"])).await;
    for (certname, status) in [("orchestrator", 200), ("prometheus", 200), ("node", 403)] {
        let (got, text) = server.metrics_as(&home, certname).await;
        assert_eq!(got, status, "{certname}: {text}");
    }
    let address = server.metrics.unwrap();
    let request = client(&home.config()).get(format!("http://{address}/metrics"));
    let (status, text) = answer(request).await;
    assert_eq!(status, 200);
    assert!(
        text.as_str()
            .unwrap()
            .contains("pxp_orchestrator_active_jobs 0"),
        "{text}"
    );
    let request = client(&home.config()).get(format!("http://{address}/orchestrator/v1/jobs"));
    assert_eq!(answer(request).await.0, 404, "nothing else is there");
}
