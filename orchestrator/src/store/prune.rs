//! Removal of what ended long ago.

use rusqlite::params;

use super::{Store, StoreError};

impl Store {
    /// Removes at most so many jobs, with all that belongs to them, and plan jobs that ended before a
    /// time. Gives how many are gone.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been removed.
    pub(crate) async fn prune(&self, before: i64, most: u32) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let mut removed = 0;
            for table in ["jobs", "plan_jobs"] {
                removed += connection
                    .prepare_cached(&format!(
                        "DELETE FROM {table} WHERE id IN \
                         (SELECT id FROM {table} WHERE finished < ?1 ORDER BY finished LIMIT ?2)"
                    ))
                    .and_then(|mut delete| delete.execute(params![before, most]))
                    .map_err(StoreError::of("remove old jobs"))?;
            }
            Ok(removed)
        })
        .await
    }
}
