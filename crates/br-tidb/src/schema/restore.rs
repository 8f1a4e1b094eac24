//! What the schema of a backup becomes in the cluster that it is restored to.

use br_types::{TableId, TimeStamp};

use super::{SchemaError, SchemaState, patch::TablePatch};

/// The ids that the tables and partitions of a backup have in the cluster.
pub trait TableIds {
    /// The new id of a table or partition; `None`: it has none.
    fn new_id(&self, old: TableId) -> Option<TableId>;
}

impl<F: Fn(TableId) -> Option<TableId>> TableIds for F {
    fn new_id(&self, old: TableId) -> Option<TableId> {
        self(old)
    }
}

/// How a table is restored.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions<'a> {
    /// Its name in the cluster; `None`: as in the backup.
    pub name: Option<&'a str>,
    /// Whether references to placement policies stay. They are matched by name with
    /// [`TablePatch::set_policy_ids`] later, for the ids differ between clusters.
    pub keep_placement: bool,
    /// When it is made: `start_ts` of the transaction that writes it.
    pub update_ts: TimeStamp,
}

/// The TableInfo as it goes into a meta key: with new ids, public, its TTL job off, without
/// TiFlash replicas (they are added again when the data is there), without locks and without a
/// reference to another database's counters.
///
/// # Errors
/// The text is no TableInfo, an id has no new one, or TiDB would not load the result.
///
/// # Source
/// TiDB br/pkg/restore/internal/prealloc_db, pkg/ddl/create_table.go.
pub fn for_restore(
    json: &str,
    ids: &impl TableIds,
    options: &RestoreOptions<'_>,
) -> Result<TablePatch, SchemaError> {
    let mut patch = TablePatch::new(json)?;
    patch.set_ids(|old| ids.new_id(old))?;
    if let Some(name) = options.name {
        patch.set_name(name)?;
    }
    if !options.keep_placement {
        patch.clear_placement()?;
    }
    patch.set_state(SchemaState::PUBLIC)?;
    patch.set_update_ts(options.update_ts)?;
    patch.disable_ttl()?;
    patch.clear_tiflash()?;
    patch.clear_lock()?;
    patch.disable_cache()?;
    patch.clear_counter_db();
    Ok(patch)
}
