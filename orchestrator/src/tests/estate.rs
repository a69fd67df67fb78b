//! The services of the estate as they can misbehave, played. How the real ones behave is tested in
//! `tests/estate`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::post;
use lab_ca::{CertificateAuthority, SslDir};
use pcp::uri::Certname;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::played::{Played, source};
use crate::puppetdb::known::KnownNode;
use crate::puppetdb::{PuppetDb, PuppetDbError, Query};
use crate::service::ServiceError;

const QUERY: &str = "/pdb/query/v4";

struct Ca {
    _dir: tempfile::TempDir,
    server: SslDir,
    us: SslDir,
}

impl Ca {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(dir.path(), "Test").unwrap();
        let server = ca.issue("puppetdb", &["localhost".to_owned()]).unwrap();
        let us = ca.issue("orchestrator", &[]).unwrap();
        Self {
            _dir: dir,
            server,
            us,
        }
    }

    async fn puppetdb(
        &self,
        answer: impl Fn(&str) -> (StatusCode, String) + Clone + Send + Sync + 'static,
    ) -> (Played, PuppetDb) {
        let router = Router::new().route(
            QUERY,
            post(move |body: String| async move { answer(&body) }),
        );
        let played = Played::start(&self.server, router).await;
        let puppetdb = PuppetDb::new(vec![played.address.clone()], source(&self.us));
        (played, puppetdb)
    }
}

fn pql() -> Query {
    Query::Pql("nodes[certname] {}".to_owned())
}

async fn names(puppetdb: &PuppetDb) -> Result<Vec<String>, PuppetDbError> {
    let nodes = puppetdb.certnames(&pql()).await?;
    Ok(nodes.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn rows_become_distinct_certnames_or_say_why_not() {
    let ca = Ca::new();
    let good = |rows: Value| move |_: &str| (StatusCode::OK, rows.to_string());
    let (_played, puppetdb) = ca
        .puppetdb(good(json!([{"certname": "b", "x": {"certname": "c"}},
            {"certname": "a"}, {"certname": "b"}])))
        .await;
    assert_eq!(names(&puppetdb).await.unwrap(), ["b", "a"]);
    for (rows, expected) in [
        (json!([{"count": 5}]), "rows without a certname"),
        (json!([{"certname": null}]), "rows without a certname"),
        (
            json!([{"certname": "a/b"}]),
            "\"a/b\", which is no certname",
        ),
    ] {
        let (_played, puppetdb) = ca.puppetdb(good(rows)).await;
        let error = names(&puppetdb).await.unwrap_err();
        assert!(
            matches!(&error, PuppetDbError::Query(text) if text.contains(expected)),
            "{error}"
        );
    }
    for answer in [json!({"a": 1}), json!([5]), json!("[")] {
        let (_played, puppetdb) = ca.puppetdb(good(answer)).await;
        let error = names(&puppetdb).await.unwrap_err();
        assert!(
            matches!(error, PuppetDbError::Service(ServiceError::Answer { .. })),
            "{error}"
        );
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let ca = Ca::new();
    let fixed = |status, text: &'static str| move |_: &str| (status, text.to_owned());
    let (_played, puppetdb) = ca
        .puppetdb(fixed(
            StatusCode::BAD_REQUEST,
            "PQL parse error at line 1\n",
        ))
        .await;
    let error = names(&puppetdb).await.unwrap_err();
    assert_eq!(
        error,
        PuppetDbError::Query("PQL parse error at line 1".to_owned())
    );

    let (_played, puppetdb) = ca
        .puppetdb(fixed(StatusCode::FORBIDDEN, "not in the allowlist"))
        .await;
    let error = names(&puppetdb).await.unwrap_err().to_string();
    assert!(
        error.contains("refuses the certificate of orchestrator: not in"),
        "{error}"
    );

    let other = Ca::new();
    let (played, _) = ca.puppetdb(fixed(StatusCode::OK, "[]")).await;
    let stranger = PuppetDb::new(vec![played.address.clone()], source(&other.us));
    let error = names(&stranger).await.unwrap_err().to_string();
    assert!(
        error.contains("cannot be reached") && error.contains("certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn the_next_address_is_asked_and_a_service_that_starts_is_asked_again() {
    let ca = Ca::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let (played, _) = ca
        .puppetdb(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => (StatusCode::SERVICE_UNAVAILABLE, "starting".to_owned()),
            _ => (StatusCode::OK, r#"[{"certname": "a"}]"#.to_owned()),
        })
        .await;
    let nobody = "https://localhost:1".parse().unwrap();
    let puppetdb = PuppetDb::new(vec![nobody, played.address.clone()], source(&ca.us));
    assert_eq!(names(&puppetdb).await.unwrap(), ["a"]);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    drop(played);
    let error = names(&puppetdb).await.unwrap_err();
    assert!(
        matches!(
            error,
            PuppetDbError::Service(ServiceError::Unreachable { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let ca = Ca::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let answer = move || async move {
        let whole: &[u8] = br#"[{"certname": "a"}, {"certname": "b"}]"#;
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            return Body::from(whole);
        }
        // After the first row comes what cannot be read.
        let folder = tokio::fs::File::open("/").await.unwrap();
        Body::from_stream(ReaderStream::new(whole[..20].chain(folder)))
    };
    let router = Router::new().route(QUERY, post(answer));
    let played = Played::start(&ca.server, router).await;
    let puppetdb = PuppetDb::new(vec![played.address.clone()], source(&ca.us));
    assert_eq!(names(&puppetdb).await.unwrap(), ["a", "b"]);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_service_that_stays_silent_is_waited_for_once() {
    let ca = Ca::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let answer = move || async move {
        if count.fetch_add(1, Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
        "[]"
    };
    let router = Router::new().route(QUERY, post(answer));
    let played = Played::start(&ca.server, router).await;
    let puppetdb = PuppetDb::new(vec![played.address.clone()], source(&ca.us));
    assert_eq!(names(&puppetdb).await.unwrap(), Vec::<String>::new());
    // From here on, over a connection that stands, waiting takes no time.
    tokio::time::pause();
    let error = names(&puppetdb).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 60 seconds"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn agents_versions_and_environments_are_those_of_the_last_run() {
    let ca = Ca::new();
    let (_played, puppetdb) = ca
        .puppetdb(|body| {
            let rows = if body.contains("\"inventory\"") {
                json!([{"certname": "a", "facts.aio_agent_version": "8.10.0",
                        "facts.puppetversion": "8.10.0"},
                    {"certname": "b", "facts.aio_agent_version": null,
                        "facts.puppetversion": "7.23.0"},
                    {"certname": "gone", "facts.puppetversion": "6.0.0"}])
            } else {
                json!([{"certname": "a", "catalog_environment": "dev", "facts_environment": "x"},
                    {"certname": "b", "catalog_environment": null,
                        "facts_environment": "production"}])
            };
            (StatusCode::OK, rows.to_string())
        })
        .await;
    let nodes = ["a", "b", "new"].map(|name| Certname::parse(name).unwrap());
    let known = puppetdb.known(&nodes).await.unwrap();
    let node = |version: &str, environment: &str| KnownNode {
        agent_version: Some(version.to_owned()),
        environment: Some(environment.to_owned()),
    };
    assert_eq!(known.len(), 2);
    assert_eq!(known[&nodes[0]], node("8.10.0", "dev"));
    assert_eq!(known[&nodes[1]], node("7.23.0", "production"));
}

#[tokio::test]
async fn a_report_is_waited_for() {
    let ca = Ca::new();
    let asked = AtomicU32::new(0);
    let asked = Arc::new(asked);
    let (_played, puppetdb) = ca
        .puppetdb(move |body| {
            assert!(body.contains("some-run"));
            let rows = match asked.fetch_add(1, Ordering::Relaxed) {
                0 => json!([]),
                _ => json!([{"hash": "h", "status": "changed", "noop": false,
                    "noop_pending": false, "environment": "production",
                    "configuration_version": "1", "job_id": "5", "metrics": {"data": []}}]),
            };
            (StatusCode::OK, rows.to_string())
        })
        .await;
    let patience = std::time::Duration::from_secs(20);
    let report = puppetdb
        .wait_for_report("some-run", patience)
        .await
        .unwrap();
    assert_eq!(report.unwrap().job_id.as_deref(), Some("5"));
}
