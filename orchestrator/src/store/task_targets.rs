//! Task targets: which tasks on which nodes, by number.

use rusqlite::{Connection, Row, params};

use super::{Store, StoreError, row};
use crate::task_target::{TargetId, TaskTarget};

/// The most task targets: each request of a caller who has one looks at all of them.
pub(crate) const MAX_TASK_TARGETS: i64 = 1000;

const COLUMNS: &str = "id, display_name, tasks, all_tasks, nodes, node_groups, query";

/// The columns of a row, as they are stored.
type Columns = (i64, String, String, bool, String, String, Option<String>);

impl Store {
    /// Keeps a task target. Gives its number; nothing when there are [`MAX_TASK_TARGETS`].
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been stored.
    pub(crate) async fn add_task_target(
        &self,
        target: TaskTarget,
        owner: String,
        at: i64,
    ) -> Result<Option<TargetId>, StoreError> {
        self.write(move |connection| {
            let what = "a task target";
            let nodes: Vec<String> = target.nodes.iter().map(ToString::to_string).collect();
            let tasks = row::to_json(&target.tasks, what)?;
            let nodes = row::to_json(&nodes, what)?;
            let node_groups = row::to_json(&target.node_groups, what)?;
            let added = connection
                .prepare_cached(
                    "INSERT INTO task_targets (display_name, tasks, all_tasks, nodes, \
                     node_groups, query, owner, created) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
                     WHERE (SELECT count(*) FROM task_targets) < ?9",
                )
                .and_then(|mut insert| {
                    insert.execute(params![
                        target.display_name,
                        tasks,
                        target.all_tasks,
                        nodes,
                        node_groups,
                        target.query,
                        owner,
                        at,
                        MAX_TASK_TARGETS
                    ])
                })
                .map_err(StoreError::of("store a task target"))?;
            Ok((added > 0).then(|| TargetId(connection.last_insert_rowid())))
        })
        .await
    }

    /// Removes a task target. Gives whether it was there.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub(crate) async fn remove_task_target(&self, id: TargetId) -> Result<bool, StoreError> {
        self.write(move |connection| {
            connection
                .execute("DELETE FROM task_targets WHERE id = ?1", [id.0])
                .map(|rows| rows > 0)
                .map_err(StoreError::of("remove a task target"))
        })
        .await
    }

    /// All task targets, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn task_targets(&self) -> Result<Vec<(TargetId, TaskTarget)>, StoreError> {
        self.read(|connection| select(connection, "ORDER BY id", ()))
            .await
    }

    /// One task target; nothing when there is none of that number.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn task_target(&self, id: TargetId) -> Result<Option<TaskTarget>, StoreError> {
        self.read(move |connection| {
            let found = select(connection, "WHERE id = ?1", [id.0])?;
            Ok(found.into_iter().next().map(|(_, target)| target))
        })
        .await
    }
}

fn select(
    connection: &Connection,
    which: &str,
    key: impl rusqlite::Params,
) -> Result<Vec<(TargetId, TaskTarget)>, StoreError> {
    let rows: Vec<Columns> = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM task_targets {which}"))
        .and_then(|mut select| select.query_map(key, columns)?.collect())
        .map_err(StoreError::of("read task targets"))?;
    rows.into_iter().map(target).collect()
}

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
    ))
}

fn target(
    (id, display_name, tasks, all_tasks, nodes, node_groups, query): Columns,
) -> Result<(TargetId, TaskTarget), StoreError> {
    let what = "a task target";
    let nodes: Vec<String> = row::json(&nodes, what)?;
    let target = TaskTarget {
        display_name,
        tasks: row::json(&tasks, what)?,
        all_tasks,
        nodes: nodes
            .iter()
            .map(|name| row::certname(name))
            .collect::<Result<_, _>>()?,
        node_groups: row::json(&node_groups, what)?,
        query,
    };
    Ok((TargetId(id), target))
}
