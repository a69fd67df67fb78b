//! Every node that has ever been connected.

use pcp::uri::Certname;

use super::{Store, StoreError, row};

/// A node, and when it last came or went (milliseconds since 1970).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenNode {
    pub(crate) certname: Certname,
    pub(crate) changed: i64,
}

impl Store {
    /// All of them.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn seen_nodes(&self) -> Result<Vec<SeenNode>, StoreError> {
        self.read(|connection| {
            let error = || StoreError::of("read the nodes");
            let mut select = connection
                .prepare_cached("SELECT certname, changed FROM nodes")
                .map_err(error())?;
            let mut rows = select.query(()).map_err(error())?;
            let mut nodes = vec![];
            while let Some(row) = rows.next().map_err(error())? {
                let certname: String = row.get(0).map_err(error())?;
                nodes.push(SeenNode {
                    certname: row::certname(&certname)?,
                    changed: row.get(1).map_err(error())?,
                });
            }
            Ok(nodes)
        })
        .await
    }
}
