//! What PuppetDB knows about nodes before a Puppet run is asked of them.

use std::collections::HashMap;

use pcp::uri::Certname;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PuppetDb, PuppetDbError, Query};

/// How many nodes are named in one query: their names then have about 100 KiB.
const NAMED: usize = 2000;

/// What PuppetDB knows about a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KnownNode {
    /// The version of its agent: of the package `puppet-agent` where there is one, else of Puppet.
    pub(crate) agent_version: Option<String>,
    /// The environment of its last catalog, or of its facts.
    pub(crate) environment: Option<String>,
}

impl PuppetDb {
    /// What is known about these nodes. A node that PuppetDB has not seen, or that is deactivated,
    /// is not in the answer.
    ///
    /// # Errors
    /// [`PuppetDbError`].
    pub(crate) async fn known(
        &self,
        nodes: &[Certname],
    ) -> Result<HashMap<Certname, KnownNode>, PuppetDbError> {
        #[derive(Deserialize)]
        struct Environments {
            certname: String,
            catalog_environment: Option<String>,
            facts_environment: Option<String>,
        }
        #[derive(Deserialize)]
        struct Versions {
            certname: String,
            #[serde(rename = "facts.aio_agent_version")]
            package: Option<Value>,
            #[serde(rename = "facts.puppetversion")]
            puppet: Option<Value>,
        }
        let mut known: HashMap<Certname, KnownNode> = HashMap::new();
        for names in nodes.chunks(NAMED) {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let named = json!(["in", "certname", ["array", names]]);
            let fields = ["certname", "catalog_environment", "facts_environment"];
            let query = json!(["from", "nodes", ["extract", fields, named]]);
            self.rows(&Query::Ast(query), |row: Environments| {
                if let Ok(certname) = Certname::parse(&row.certname) {
                    known.entry(certname).or_default().environment =
                        row.catalog_environment.or(row.facts_environment);
                }
                Ok(())
            })
            .await?;
            let fields = ["certname", "facts.aio_agent_version", "facts.puppetversion"];
            let query = json!(["from", "inventory", ["extract", fields, named]]);
            self.rows(&Query::Ast(query), |row: Versions| {
                let text = |value: Option<Value>| value?.as_str().map(str::to_owned);
                if let Ok(certname) = Certname::parse(&row.certname)
                    && let Some(node) = known.get_mut(&certname)
                {
                    node.agent_version = text(row.package).or_else(|| text(row.puppet));
                }
                Ok(())
            })
            .await?;
        }
        Ok(known)
    }
}
