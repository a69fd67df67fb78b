//! `inventory`: which nodes are connected.

use axum::extract::State;
use orchestrator_api::{ApiError, ErrorKind, Inventory, InventoryItem, InventoryQuery, Time};
use pcp::uri::{Certname, ClientType, Uri};

use super::Api;
use super::answer::{Answer, Failure, Fallible};
use super::request::{Body, Parts};
use crate::dispatch::NodePresence;

/// `GET inventory`: every node that has ever been connected.
pub(super) async fn list(State(api): State<Api>) -> Fallible<Inventory> {
    items(&api, None).await
}

/// `POST inventory`: these nodes.
pub(super) async fn some(
    State(api): State<Api>,
    Body(query): Body<InventoryQuery>,
) -> Fallible<Inventory> {
    let nodes = query.nodes.iter().map(|name| certname(name));
    let nodes = nodes.collect::<Result<_, _>>()?;
    items(&api, Some(nodes)).await
}

/// `GET inventory/:node`. A node that nobody has ever seen is not connected.
pub(super) async fn one(
    State(api): State<Api>,
    Parts(name): Parts<String>,
) -> Fallible<InventoryItem> {
    let certname = certname(&name)?;
    let (broker, nodes) = answer(&api, Some(vec![certname.clone()])).await?;
    let node = nodes.into_iter().next().unwrap_or((certname, None));
    Ok(Answer::ok(item(&broker, node)))
}

async fn items(api: &Api, nodes: Option<Vec<Certname>>) -> Fallible<Inventory> {
    let (broker, nodes) = answer(api, nodes).await?;
    let items = nodes.into_iter().map(|node| item(&broker, node)).collect();
    Ok(Answer::ok(Inventory { items }))
}

async fn answer(
    api: &Api,
    nodes: Option<Vec<Certname>>,
) -> Result<(Certname, Vec<NodePresence>), Failure> {
    let answer = api.dispatch.inventory(nodes).await?;
    match answer.broker {
        Some(broker) => Ok((broker, answer.nodes)),
        None => {
            let msg = "the orchestrator is not connected to any broker";
            Err(ApiError::new(ErrorKind::UnknownError, msg).into())
        }
    }
}

fn certname(name: &str) -> Result<Certname, ApiError> {
    Certname::parse(name).map_err(|_| {
        let msg = format!("{name:?} is not a certname");
        ApiError::new(ErrorKind::ValidationError, msg).with("node", name)
    })
}

fn item(broker: &Certname, (certname, presence): NodePresence) -> InventoryItem {
    let connected = presence.as_ref().is_some_and(|node| node.connected);
    let broker = connected.then(|| {
        // A broker that does not say where its nodes are has told of them itself.
        let at = presence.as_ref().and_then(|node| node.broker.as_ref());
        Uri::new(at.unwrap_or(broker).clone(), ClientType::server()).to_string()
    });
    InventoryItem {
        name: certname.to_string(),
        connected,
        broker,
        timestamp: presence.map(|presence| Time::from_millis(presence.changed)),
    }
}
