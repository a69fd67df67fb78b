//! PuppetDB: which nodes a query means, what is known about them, and what became of Puppet runs.
//!
//! Rows are read as they arrive, so that an estate of any size needs the memory of its certnames.

mod events;
pub(crate) mod known;
pub(crate) mod report;
mod rows;

use std::collections::HashSet;

use pcp::uri::Certname;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use rows::{Rows, RowsError};

use crate::service::{PUPPETDB, Service, ServiceError, Source, is_worth_a_retry};

/// Where queries go.
const QUERY: &str = "/pdb/query/v4";

/// More nodes than any estate has; beyond them somebody has asked for something else.
const MAX_NODES: usize = 1_000_000;

/// A connection that breaks in the middle of an answer is worth one more try.
const TRIES: u32 = 2;

/// Asks PuppetDB.
#[derive(Debug)]
pub(crate) struct PuppetDb {
    service: Service,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Query {
    /// In PuppetDB's own language, as people write it.
    Pql(String),
    /// As a syntax tree, as programs do.
    Ast(Value),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PuppetDbError {
    /// PuppetDB does not understand the query, or the query does not ask for nodes.
    #[error("{0}")]
    Query(String),
    /// PuppetDB gives no answer, or none that can be used.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// A row of a query for nodes; what else it holds is passed over.
#[derive(Deserialize)]
struct NodeRow {
    certname: Option<String>,
}

impl PuppetDb {
    /// A PuppetDB at these addresses, the preferred one first.
    pub(crate) fn new(addresses: Vec<Url>, identity: Source) -> Self {
        Self {
            service: Service::new(PUPPETDB, addresses, identity),
        }
    }

    /// How many seconds the clock of PuppetDB is ahead of ours, when it has said so.
    pub(crate) fn ahead(&self) -> Option<i64> {
        self.service.ahead()
    }

    /// How many nodes there are, but for those that are deactivated or expired.
    ///
    /// # Errors
    /// [`PuppetDbError`].
    pub(crate) async fn count_nodes(&self) -> Result<u64, PuppetDbError> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
        }
        let tree = json!(["from", "nodes", ["extract", [["function", "count"]]]]);
        let mut counted = 0;
        self.rows(&Query::Ast(tree), |row: Count| {
            counted = row.count;
            Ok(())
        })
        .await?;
        Ok(counted)
    }

    /// The certnames in the rows of a query, each once, in the order in which they come.
    ///
    /// # Errors
    /// [`PuppetDbError`]; also when rows have no certname.
    pub(crate) async fn certnames(&self, query: &Query) -> Result<Vec<Certname>, PuppetDbError> {
        let begun = Instant::now();
        let mut tries = TRIES;
        loop {
            let mut seen = HashSet::new();
            let mut nodes = Vec::new();
            let outcome = self
                .rows(query, |row: NodeRow| {
                    let certname = certname(row)?;
                    if seen.insert(certname.clone()) {
                        nodes.push(certname);
                    }
                    if nodes.len() > MAX_NODES {
                        let msg = format!("the query means more than {MAX_NODES} nodes");
                        return Err(PuppetDbError::Query(msg));
                    }
                    Ok(())
                })
                .await;
            tries -= 1;
            match outcome {
                Ok(()) => return Ok(nodes),
                Err(PuppetDbError::Service(ServiceError::Unreachable { .. }))
                    if tries > 0 && is_worth_a_retry(begun) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands over each row of an answer.
    async fn rows<T: DeserializeOwned>(
        &self,
        query: &Query,
        mut each: impl FnMut(T) -> Result<(), PuppetDbError>,
    ) -> Result<(), PuppetDbError> {
        let body = match query {
            Query::Pql(text) => json!({ "query": text }),
            Query::Ast(tree) => json!({ "query": tree }),
        };
        let body = body.to_string();
        let asked = self.service.ask(&Method::POST, QUERY, |request| {
            request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body.clone())
        });
        let mut answer = asked.await.map_err(|error| match error {
            // The reason is a text for who has written the query.
            ServiceError::Status {
                status: 400,
                reason,
                ..
            } => PuppetDbError::Query(reason),
            error => error.into(),
        })?;
        let mut rows = Rows::default();
        while let Some(chunk) = answer.chunk().await? {
            rows.push(chunk.as_ref(), |row| {
                let row = serde_json::from_slice(row)
                    .map_err(|error| RowFault::Bad(format!("a row is not as expected: {error}")))?;
                each(row).map_err(RowFault::Caller)
            })
            .map_err(|fault| match fault {
                RowFault::Bad(reason) => answer.unusable(reason).into(),
                RowFault::Caller(error) => error,
            })?;
        }
        rows.end()
            .map_err(|error| answer.unusable(error.to_string()))?;
        Ok(())
    }
}

/// What can be wrong while rows are taken.
enum RowFault {
    Bad(String),
    Caller(PuppetDbError),
}

impl From<RowsError> for RowFault {
    fn from(error: RowsError) -> Self {
        Self::Bad(error.to_string())
    }
}

fn certname(row: NodeRow) -> Result<Certname, PuppetDbError> {
    let Some(name) = row.certname else {
        let msg = "the query gives rows without a certname: let it ask for nodes, such as \
                   inventory[certname] { … }";
        return Err(PuppetDbError::Query(msg.to_owned()));
    };
    Certname::parse(&name).map_err(|_| {
        PuppetDbError::Query(format!("the query gives {name:?}, which is no certname"))
    })
}
