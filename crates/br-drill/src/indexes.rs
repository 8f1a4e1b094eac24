//! Whether indexes have the entries that their rows ask for, no more and no fewer.

use std::collections::BTreeMap;

use br_cluster::Snapshot;
use br_format::kv_stats::KvStats;
use br_snapshot::restore::RestorePlan;
use br_tidb::row::IndexEncoder;
use br_tidb::schema::{SchemaState, TableInfo};
use br_tidb::table_key::{RECORD_PREFIX_LEN, index_range, record_range};
use br_types::IndexId;

use crate::DrillError;
use crate::rehearse::{Compared, What, Work};

/// Compares keys: values differ between versions of TiDB, and those of unique indexes name the row.
pub(crate) async fn compare(
    work: &Work<'_>,
    plan: &RestorePlan,
) -> Result<Vec<Compared>, DrillError> {
    let cluster = &work.site.cluster;
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    let new_collations = br_catalog::new_collations_enabled(&snapshot).await?;
    let new_collations = new_collations
        .or(work.head.new_collations_enabled)
        .unwrap_or(true);
    let mut tables = BTreeMap::new();
    for db in br_catalog::databases(&snapshot).await? {
        let name = db.info.name.original.clone();
        br_catalog::tables(&snapshot, db.info.id(), |table| {
            tables.insert(format!("{name}.{}", table.info.name.original), table.info);
            Ok(())
        })
        .await?;
    }
    let mut compared = Vec::new();
    for planned in plan.tables.iter().filter(|table| table.has_rows) {
        let name = plan.full_name(planned);
        if let Some(info) = tables.get(&name) {
            compared.extend(of_table(&snapshot, &name, info, new_collations).await?);
        }
    }
    Ok(compared)
}

async fn of_table(
    snapshot: &Snapshot,
    name: &str,
    info: &TableInfo,
    new_collations: bool,
) -> Result<Vec<Compared>, DrillError> {
    let has_entries =
        |is_primary: bool| !(is_primary && (info.is_common_handle || info.pk_is_handle));
    let indexes = info
        .indexes
        .iter()
        .filter(|index| index.state == SchemaState::PUBLIC && has_entries(index.is_primary));
    // Of others what is expected cannot be told.
    let mut made: Vec<_> = indexes
        .filter_map(|index| {
            let encoder = IndexEncoder::new(info, index, new_collations).ok()?;
            Some((index, encoder, KvStats::default(), KvStats::default()))
        })
        .collect();
    for id in info.physical_ids() {
        let mut rows = snapshot.scan(&record_range(id));
        while let Some((key, row)) = rows.next().await? {
            let handle = key.as_bytes().get(RECORD_PREFIX_LEN..).unwrap_or_default();
            for (_, encoder, expected, _) in &mut made {
                let (key, _) = encoder.entry(id, handle, &row)?;
                expected.add_pair(&key, &[]);
            }
        }
        for (index, _, _, found) in &mut made {
            let mut entries = snapshot.scan(&index_range(id, IndexId(index.id)));
            while let Some((key, _)) = entries.next().await? {
                found.add_pair(key.as_bytes(), &[]);
            }
        }
    }
    let compared = made
        .into_iter()
        .map(|(index, _, expected, found)| Compared {
            name: format!("{name}, index {}", index.name.original),
            what: What::IndexKeys,
            expected,
            found,
        });
    Ok(compared.collect())
}
