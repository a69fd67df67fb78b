//! `doctor` against services that are as they should be, and others.

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::routing::{get, post};
use daemon::doctor::{Finding, Level};
use serde_json::json;

use super::Home;
use super::fleet::Fleet;
use super::played::Played;
use crate::doctor::examine;

const MANY_YEARS_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A Puppet Server whose clock stands still, and which lets everybody read what everybody may.
fn puppet_server() -> Router {
    let date = || [(HeaderName::from_static("date"), MANY_YEARS_AGO)];
    let environments = json!({"environments": {"production": {}}}).to_string();
    let refusal = "Forbidden request: orchestrator (method :get). Please see the server logs.";
    Router::new()
        .route(
            "/puppet/v3/environments",
            get(move || async move { (date(), environments) }),
        )
        .route(
            "/puppet/v3/tasks",
            get(move || async move { (StatusCode::FORBIDDEN, date(), refusal) }),
        )
}

/// The finding about a subject of this level, whose text has a part.
fn found<'a>(findings: &'a [Finding], level: Level, subject: &str, part: &str) -> &'a Finding {
    let fits = |it: &&Finding| {
        it.level == level && it.subject.starts_with(subject) && it.found.contains(part)
    };
    findings
        .iter()
        .find(fits)
        .unwrap_or_else(|| panic!("no {level} about {subject} with {part:?} in {findings:#?}"))
}

#[tokio::test]
async fn what_is_wrong_is_named_with_the_line_to_add() {
    let mut home = Home::new();
    let server = home.ca.issue("server", &["localhost".to_owned()]).unwrap();
    let puppetdb = Router::new().route(
        "/pdb/query/v4",
        post(|| async { (StatusCode::FORBIDDEN, "Permission denied") }),
    );
    let puppetdb = Played::start(&server, puppetdb).await;
    let puppet_server = Played::start(&server, puppet_server()).await;
    home.more = format!(
        "orchestrator {{ puppetdb-url: {:?}, master-url: {:?}\n\
         certificate-allowlist {{ monitoring: nobody }}\n\
         environments {{ production {{ modulepath: [/nonexistent/modules] }} }} }}",
        puppetdb.address.as_str(),
        puppet_server.address.as_str(),
    );
    let config = home.config();
    let before = examine(&config).await;
    found(before.all(), Level::Warn, "database", "is not there yet");
    assert!(!config.database.exists(), "it only looks");

    crate::create_token(&config, "ada", super::DEADLINE)
        .await
        .unwrap();
    let findings = examine(&config).await;
    let all = findings.all();
    found(all, Level::Ok, "certificate", "orchestrator");
    found(all, Level::Ok, "database", "sound, 0 jobs");
    found(all, Level::Ok, "users", "0, with 1 valid tokens");
    found(all, Level::Warn, "API", "no orchestrator is running");
    for (subject, part, advice) in [
        (
            "allow-list",
            "acts as \"nobody\", which is no user",
            "user add nobody",
        ),
        ("modules", "/nonexistent/modules", "modulepath"),
        (
            "PuppetDB",
            "refuses the certificate of orchestrator",
            "add the line orchestrator to the file that certificate-allowlist names",
        ),
        (
            "Puppet Server",
            "refuses the certificate of orchestrator",
            "path: \"/puppet/v3/tasks\"",
        ),
        ("clock", "that of Puppet Server is -", "chronyc"),
        ("broker 127.0.0.1:1", "", "UDP 8142"),
    ] {
        let finding = found(all, Level::Fail, subject, part);
        assert!(finding.advice.contains(advice), "{finding:?}");
    }
    assert_eq!(findings.exit_code(), daemon::ExitCode::Failure);
}

#[tokio::test]
async fn a_running_orchestrator_is_asked_how_it_is_and_is_not_disturbed() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a"]);
    let server = home.start(&fleet).await;
    let mut config = home.config();
    let port = server.base.rsplit(':').next().unwrap().parse().unwrap();
    config.listen.set_port(port);
    let findings = examine(&config).await;
    let part = format!("answers on {}", config.listen);
    found(findings.all(), Level::Ok, "API", &part);
    found(findings.all(), Level::Ok, "database", "sound");
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&job).await;
    server.stop().await;

    // One whose database is damaged, and is something else that listens.
    let listener = std::net::TcpListener::bind(config.listen).unwrap();
    std::fs::write(&config.database, vec![b'x'; 8192]).unwrap();
    // It leaves whoever connects at once, until the test ends.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let findings = examine(&config).await;
    found(
        findings.all(),
        Level::Fail,
        "API",
        "no orchestrator answers",
    );
    let damaged = found(findings.all(), Level::Fail, "database", "damaged");
    assert!(damaged.advice.contains("backup"), "{damaged:?}");
}
