//! What a schema becomes in a backup.

use super::{SchemaError, TableInfo, patch::TablePatch};

/// The counters of a table at the backup's timestamp; `None`: the key is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// See [`crate::meta_key::Counter::RowId`].
    pub row_id: Option<i64>,
    /// See [`crate::meta_key::Counter::AutoIncrement`].
    pub auto_increment: Option<i64>,
    /// See [`crate::meta_key::Counter::AutoRandom`].
    pub auto_random: Option<i64>,
    /// See [`crate::meta_key::Counter::Sequence`].
    pub sequence: Option<i64>,
}

/// The TableInfo as it goes into a backup: with the next ids of its counters, without indexes that
/// are not public, as an ordinary table if it is a cached one, and without placement policies
/// unless the whole cluster is backed up.
///
/// # Errors
/// The text is no TableInfo, or of a version that is not known.
///
/// # Source
/// TiDB br/pkg/backup/client.go.
pub fn for_backup(
    json: &str,
    counters: &Counters,
    is_full_backup: bool,
) -> Result<String, SchemaError> {
    let table = TableInfo::parse(json.as_bytes())?;
    let mut patch = TablePatch::new(json)?;
    patch.set_auto_inc_id(last_auto_id(&table, counters).saturating_add(1))?;
    let is_table = !table.is_view() && !table.is_sequence();
    if is_table
        && table.is_auto_increment_apart()
        && let Some(row_id) = counters.row_id
    {
        patch.set_auto_inc_id_extra(row_id.saturating_add(1))?;
    }
    if table.auto_random_bits > 0 {
        patch.set_auto_rand_id(counters.auto_random.unwrap_or(0).saturating_add(1))?;
    }
    if !is_full_backup {
        patch.clear_placement()?;
    }
    patch.disable_cache()?;
    patch.keep_public_indexes()?;
    Ok(patch.into_text())
}

fn last_auto_id(table: &TableInfo, counters: &Counters) -> i64 {
    let last = if table.is_sequence() {
        counters.sequence
    } else if table.is_view() || !table.needs_auto_id() {
        None
    } else if table.is_auto_increment_apart() {
        counters.auto_increment
    } else {
        counters.row_id
    };
    last.unwrap_or(0)
}
