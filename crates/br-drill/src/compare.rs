//! Whether what was restored is what was to be restored.

use std::collections::HashMap;

use br_cluster::KeyPrefix;
use br_format::backupmeta::Content;
use br_format::kv_stats::KvStats;
use br_inspect::export::{self, Layer, LogLayer, SORT_MEMORY_BYTES_DEFAULT};
use br_inspect::verify::{self, Depth, VerifyOptions};
use br_log::read::LogStorage;
use br_rt::{Phase, Unit};
use br_snapshot::backup::{self, BackupContext, BackupOptions};
use br_snapshot::checksum::{self, ChecksumRange, PrefixRewrite};
use br_snapshot::restore::{PlannedTable, RestorePlan};
use br_storage::{Backend, Storage};
use br_tidb::filter::TableFilter;
use br_tidb::table_key::{record_prefix, record_range, table_prefix, table_range};
use br_types::{Cf, KeyRange, TimeStamp};

use crate::DrillError;
use crate::indexes;
use crate::rehearse::{Compared, What, Work};

/// Checksum requests of one table at a time: there is one machine.
const REQUESTS_MAX: usize = 4;

pub(crate) async fn compare(
    work: &Work<'_>,
    plan: &RestorePlan,
    at: Option<TimeStamp>,
) -> Result<Vec<Compared>, DrillError> {
    if work.head.content != Content::Tables {
        return Ok(vec![all_keys(work).await?]);
    }
    let is_backup_alone = at.is_none_or(|at| at <= work.head.backup_ts);
    match at {
        // What changed has no sums of its own.
        Some(at) if !is_backup_alone || work.head.is_incremental() => {
            at_point(work, plan, at).await
        }
        _ => of_backup(work, plan).await,
    }
}

/// All keys of each table, against the sums in the index of the backup.
async fn of_backup(work: &Work<'_>, plan: &RestorePlan) -> Result<Vec<Compared>, DrillError> {
    let mut compared = Vec::new();
    for table in plan.tables.iter().filter(|table| table.has_rows) {
        compared.push(Compared {
            name: plan.full_name(table),
            what: What::AllKeys,
            expected: table.sums,
            found: sums(work, plan, table, What::AllKeys).await?,
        });
    }
    Ok(compared)
}

/// The rows of each table, against those that backup and log have without a cluster.
async fn at_point(
    work: &Work<'_>,
    plan: &RestorePlan,
    at: TimeStamp,
) -> Result<Vec<Compared>, DrillError> {
    let options = work.options;
    let backups = work.sources.bases.iter().chain([&work.sources.backup]);
    let layers = backups.map(|place| Layer {
        storage: place.storage.clone(),
        crypter: options.crypter.clone(),
        compatibility: options.compatibility,
    });
    let layers: Vec<_> = layers.collect();
    let log = work.sources.log.as_ref();
    let log = match log.filter(|_| at > work.head.backup_ts) {
        None => None,
        Some(log) => Some(LogLayer {
            log: LogStorage::new(log.storage.clone()),
            crypter: options.log_crypter.clone(),
            temp_dir: work.scratch.folder("sort")?,
            memory_bytes: SORT_MEMORY_BYTES_DEFAULT,
        }),
    };
    let filter = names(plan)?;
    let expected = export::row_sums(
        work.rt,
        &layers,
        &filter,
        at,
        log,
        work.progress,
        work.cancel,
    );
    let expected = Box::pin(expected).await?;
    let mut expected: HashMap<String, KvStats> = expected
        .into_iter()
        .map(|table| (format!("{}.{}", table.db, table.table), table.sums))
        .collect();
    let mut compared = Vec::new();
    for table in plan.tables.iter().filter(|table| table.has_rows) {
        let name = plan.full_name(table);
        compared.push(Compared {
            expected: expected.remove(&name).unwrap_or_default(),
            found: sums(work, plan, table, What::Rows).await?,
            what: What::Rows,
            name,
        });
    }
    // Tables that should be there and were not restored.
    let mut missing: Vec<_> = expected.into_iter().collect();
    missing.sort_by(|a, b| a.0.cmp(&b.0));
    compared.extend(missing.into_iter().map(|(name, expected)| Compared {
        name,
        what: What::Rows,
        expected,
        found: KvStats::default(),
    }));
    compared.extend(indexes::compare(work, plan).await?);
    Ok(compared)
}

/// A filter that takes the databases of a plan that no system keeps for itself.
fn names(plan: &RestorePlan) -> Result<TableFilter, DrillError> {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let rules: Vec<_> = plan
        .tables
        .iter()
        .map(|table| {
            let db = plan.databases.get(table.database);
            let db = db.map_or("", |db| db.name.as_str());
            format!("{}.{}", quoted(db), quoted(&table.name))
        })
        .collect();
    let mut no_files = |path: &str| Err(format!("no file {path}"));
    Ok(TableFilter::parse(&rules, true, &mut no_files)?)
}

/// What the stores compute over a table, as if it had its original ids.
async fn sums(
    work: &Work<'_>,
    plan: &RestorePlan,
    table: &PlannedTable,
    what: What,
) -> Result<KvStats, DrillError> {
    let cluster = &work.site.cluster;
    let ranges: Vec<_> = table
        .old_physical_ids
        .iter()
        .filter_map(|old| {
            let new = plan.ids.get(*old)?;
            let (range, before, after) = match what {
                What::AllKeys => (table_range(new), table_prefix(*old), table_prefix(new)),
                What::Rows | What::IndexKeys => {
                    (record_range(new), record_prefix(*old), record_prefix(new))
                }
            };
            Some(ChecksumRange {
                range,
                rewrite: Some(PrefixRewrite {
                    old: before,
                    new: after,
                }),
            })
        })
        .collect();
    let now = cluster.pd().tso().await?;
    Ok(checksum::checksum(cluster, &ranges, now, REQUESTS_MAX).await?)
}

/// Keys without tables: they are backed up again, and that backup has to have the same sums.
async fn all_keys(work: &Work<'_>) -> Result<Compared, DrillError> {
    let phase = Phase::start(work.progress, "Read Back", Unit::Ranges, 1);
    let backend = Backend::Local {
        path: work.scratch.folder("again")?,
    };
    let context = BackupContext {
        cluster: work.site.cluster.clone(),
        key_prefix: KeyPrefix::default(),
        storage: Storage::create_base(work.rt, &backend).await?,
        backend,
        progress: work.progress.clone(),
    };
    let scope = match &work.head.content {
        Content::Raw(ranges) => backup::Scope::Raw {
            range: KeyRange::default(),
            cf: ranges.first().map_or(Cf::Default, |range| range.cf),
        },
        Content::Tables | Content::Txn => backup::Scope::Txn {
            range: KeyRange::default(),
        },
    };
    let options = BackupOptions::new(scope, "rehearsal");
    Box::pin(backup::run(&context, &options)).await?;
    let look = VerifyOptions::new(Depth::Objects);
    let looked = verify::verify(
        work.rt,
        &context.storage,
        None,
        &look,
        work.progress,
        work.cancel,
    );
    let looked = Box::pin(looked).await?;
    drop(phase);
    Ok(Compared {
        name: "(all keys)".to_owned(),
        what: What::AllKeys,
        expected: work.looked.sums,
        found: looked.backup.map(|backup| backup.sums).unwrap_or_default(),
    })
}
