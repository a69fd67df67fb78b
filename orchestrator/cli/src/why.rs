//! `puppet-task why`: one answer to why a node does or does not run tasks. It looks at each link of
//! the chain from here to the node, and says what to do about the first broken one.

use orchestrator_api::{
    InventoryItem, JobsQuery, Node, NodeState, ServiceState, ServiceStatus, path,
};
use serde_json::{Value, json};

use crate::access;
use crate::arguments::Format;
use crate::arguments::job::{OrderWord, WayWord};
use crate::arguments::task::WhyArguments;
use crate::client::{Client, Page};
use crate::config::{Config, Surroundings};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::follow::PAGE;
use crate::printable::printable;
use crate::render;
use crate::screen::{self, Mood, Screen};

/// How many of the latest jobs are searched for the node: what matters is what happened last.
const JOBS: u64 = 10;

/// Jobs with more nodes than this are not searched: each page is a request.
const MANY: u64 = 2000;

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    mood: Mood,
    subject: &'static str,
    found: String,
    /// What to do about it; empty when there is nothing to do.
    advice: String,
}

/// Carries the command out.
///
/// # Errors
/// When the orchestrator cannot be asked: that is why, then.
pub(crate) async fn why(arguments: &WhyArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let client = access::client(&config).await?;
    let findings = findings(&client, &config, &arguments.node).await?;
    let is_well = findings.iter().all(|finding| finding.mood != Mood::Bad);
    if arguments.common.format == Format::Json {
        let items: Vec<Value> = findings.iter().map(document).collect();
        screen::put(&json!({"node": arguments.node, "ok": is_well, "findings": items}));
    } else {
        let screen = Screen::new(config.color, false);
        let width = findings.iter().map(|it| it.subject.len()).max();
        let width = width.unwrap_or_default();
        for finding in &findings {
            let (headline, body) = lines(finding, width);
            screen.headline(finding.mood, &headline, &body);
        }
        let node = printable(&arguments.node);
        screen.lines(&if is_well {
            format!("\nNothing is found that keeps tasks from running on {node}.")
        } else {
            format!("\nTasks do not run on {node}: see above.")
        });
    }
    Ok(if is_well {
        Exit::Success
    } else {
        Exit::Failure
    })
}

async fn findings(client: &Client, config: &Config, node: &str) -> Result<Vec<Finding>, Failure> {
    let services = client.services().await?;
    let mut findings = Vec::new();
    if let Some(status) = services.get(path::SERVICE) {
        findings.extend(service(&config.service_url, status));
    }
    let user = client.current_user().await?;
    let may_run = user.is_superuser
        || user.permissions.is_empty()
        || user.permissions.iter().any(|it| {
            let runs = ["tasks:run", "task_target:run", "*"];
            runs.iter().any(|action| it.starts_with(action))
        });
    findings.push(if may_run {
        good("permission", format!("the token is that of {}", user.login))
    } else {
        bad(
            "permission",
            format!("{} may run no task", user.login),
            "pxp-orchestrator role grant ROLE tasks:run".to_owned(),
        )
    });
    match client.presence(node).await {
        Ok(item) => findings.push(presence(&item)),
        Err(Failure::Api(error)) => findings.push(bad(
            "connection",
            error.msg,
            "see the orchestrator's log and pxp-orchestrator doctor".to_owned(),
        )),
        Err(failure) => return Err(failure),
    }
    match last_run(client, node).await {
        Ok(finding) => findings.extend(finding),
        // Who may not see the jobs of others gets the answer without them.
        Err(Failure::Api(error)) => findings.push(odd("last run", error.msg)),
        Err(failure) => findings.push(odd("last run", chain(&failure))),
    }
    Ok(findings)
}

/// The orchestrator itself, and its way to the brokers.
fn service(url: &str, status: &ServiceStatus) -> Vec<Finding> {
    let alerts = status.active_alerts.iter().map(|alert| {
        let text = |key: &str| alert.get(key).and_then(Value::as_str).unwrap_or_default();
        let advice = "see the orchestrator's log and pxp-orchestrator doctor";
        if text("severity") == "critical" || text("message").contains("not connected") {
            bad(
                "orchestrator",
                text("message").to_owned(),
                advice.to_owned(),
            )
        } else {
            odd("orchestrator", text("message").to_owned())
        }
    });
    let mut findings: Vec<Finding> = alerts.collect();
    if findings.is_empty() && status.state == ServiceState::Running {
        let version = &status.service_version;
        findings.push(good(
            "orchestrator",
            format!("{url} runs, version {version}"),
        ));
        if let Some(broker) = status.status.get("broker").and_then(Value::as_str) {
            let connected = status.status.get("connected_nodes").and_then(Value::as_u64);
            let connected = connected.unwrap_or_default();
            let found = format!("the orchestrator uses {broker}, which knows {connected} nodes");
            findings.push(good("broker", found));
        }
    }
    findings
}

fn presence(item: &InventoryItem) -> Finding {
    let name = &item.name;
    match (item.connected, &item.timestamp) {
        (true, since) => {
            let by = item.broker.as_deref().unwrap_or("a broker");
            let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
            good("connection", format!("{name} is connected to {by}{since}"))
        }
        (false, Some(at)) => bad(
            "connection",
            format!("{name} is not connected; it went at {at}"),
            format!(
                "on {name}: systemctl status pxp-agent, its log, and pxp-agent doctor; is UDP or \
                 TCP 8142 to its brokers open, and has its certificate ended or been revoked?"
            ),
        ),
        (false, None) => bad(
            "connection",
            format!("{name} has never been connected"),
            format!(
                "is {name} the certname, and pxp-agent installed there? Its broker-uris must name a \
                 broker, and its controllers this orchestrator: pxp-agent doctor tells"
            ),
        ),
    }
}

/// How the latest job that the node was part of ended there.
async fn last_run(client: &Client, node: &str) -> Result<Option<Finding>, Failure> {
    let query = JobsQuery {
        limit: Some(JOBS),
        order_by: Some(OrderWord::Timestamp.into()),
        order: Some(WayWord::Desc.into()),
        ..JobsQuery::default()
    };
    for job in client.jobs(&query).await?.items {
        if job.node_count > MANY {
            continue;
        }
        let mut page = Page {
            offset: 0,
            limit: PAGE,
        };
        loop {
            let nodes = client.nodes(&job.name, page).await?.items;
            if let Some(found) = nodes.iter().find(|it| it.name == node) {
                return Ok(Some(ended(&job.name, found)));
            }
            page.offset += PAGE;
            if nodes.is_empty() || page.offset >= job.node_count {
                break;
            }
        }
    }
    let found = format!("none in the latest {JOBS} jobs");
    Ok(Some(good("last run", found)))
}

fn ended(job: &str, node: &Node) -> Finding {
    let outcome = render::outcome(node, render::Manner::default());
    let first = outcome.body.lines().next().unwrap_or_default().trim();
    let at = node.timestamp.map(|at| format!(" at {at}"));
    let at = at.unwrap_or_default();
    let state = node.state.text();
    let found = format!(
        "job {job}: {state}{at}{}",
        match first {
            "" => String::new(),
            text => format!(": {text}"),
        }
    );
    match node.state {
        NodeState::Errored => odd("last run", found),
        _ => good("last run", found),
    }
}

fn good(subject: &'static str, found: String) -> Finding {
    Finding {
        mood: Mood::Good,
        subject,
        found,
        advice: String::new(),
    }
}

fn odd(subject: &'static str, found: String) -> Finding {
    Finding {
        mood: Mood::Odd,
        ..good(subject, found)
    }
}

fn bad(subject: &'static str, found: String, advice: String) -> Finding {
    Finding {
        mood: Mood::Bad,
        advice,
        ..good(subject, found)
    }
}

fn word(mood: Mood) -> &'static str {
    match mood {
        Mood::Good => "ok",
        Mood::Odd => "warn",
        Mood::Bad => "FAIL",
    }
}

fn lines(finding: &Finding, width: usize) -> (String, String) {
    let headline = format!(
        "{:4}  {:width$}  {}",
        word(finding.mood),
        finding.subject,
        printable(&finding.found)
    );
    let body = match finding.advice.as_str() {
        "" => String::new(),
        advice => format!(
            "{:width$}  -> {}\n",
            "",
            printable(advice),
            width = width + 6
        ),
    };
    (headline, body)
}

fn document(finding: &Finding) -> Value {
    json!({
        "level": word(finding.mood).to_lowercase(),
        "subject": finding.subject,
        "found": finding.found,
        "advice": finding.advice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(connected: bool, timestamp: Option<&str>) -> InventoryItem {
        let broker = connected.then_some("pcp://compiler/server");
        let value = json!({"name": "web1", "connected": connected, "broker": broker,
            "timestamp": timestamp});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_that_is_gone_is_told_from_one_that_never_came() {
        let at = "2026-11-22T14:30:00Z";
        let finding = presence(&item(true, Some(at)));
        assert_eq!(finding.mood, Mood::Good);
        assert!(finding.found.contains("pcp://compiler/server since 2026"));
        let gone = presence(&item(false, Some(at)));
        assert!(gone.mood == Mood::Bad && gone.found.contains("it went at 2026-11-22"));
        let never = presence(&item(false, None));
        assert!(never.found.contains("never") && never.advice.contains("broker-uris"));
        let (headline, body) = lines(&never, 12);
        assert_eq!(
            headline,
            "FAIL  connection    web1 has never been connected"
        );
        assert!(
            body.starts_with("                    -> is web1 the certname"),
            "{body}"
        );
    }

    #[test]
    fn an_orchestrator_without_a_broker_is_why() {
        let status = |alerts: Value| {
            let value = json!({"service_version": "1", "service_status_version": 1,
                "detail_level": "debug", "state": "running",
                "status": {"broker": "primary", "connected_nodes": 5}, "active_alerts": alerts});
            service("https://o:8143", &serde_json::from_value(value).unwrap())
        };
        let well = status(json!([]));
        assert!(well.iter().all(|it| it.mood == Mood::Good) && well.len() == 2);
        assert!(well[1].found.contains("knows 5 nodes"));
        let alert = json!([{"severity": "warning",
            "message": "the orchestrator is not connected to any broker"}]);
        assert_eq!(status(alert)[0].mood, Mood::Bad);
    }
}
