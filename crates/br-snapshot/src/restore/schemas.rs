//! Makes restored tables visible: writes their schemas as meta keys.
//!
//! Ordering: after all data is in and checked. Many tables go in several transactions, of which
//! each table's is whole; a crash in between leaves some tables complete and the others unseen.

use std::collections::{BTreeMap, HashMap};

use br_catalog::{DroppedTable, NewDatabase, NewTable, SchemaChange, SchemaWriter};
use br_rt::kill_point;
use br_tidb::{
    meta_key::Counter,
    schema::{
        self, DbInfo, PolicyRef, RestoreOptions as PatchOptions, TableInfo, patch::DbPatch,
        strip_temporary_prefix,
    },
};
use br_types::{DbId, TimeStamp};

use super::{
    RestoreTarget,
    changes::Changes,
    error::RestoreError,
    options::{RestoreOptions, Scope},
    plan::{PlannedTable, RestorePlan, parse_db, parse_table},
    source::Source,
};

/// Tables of one transaction, as the official tool creates at a time (`--ddl-batch-size`).
const TABLES_PER_TXN_MAX: usize = 128;
/// Bytes of JSON of one transaction: TiDB's own limit of a transaction is 100 MB.
const BYTES_PER_TXN_MAX: usize = 16 << 20;

/// Creates the databases and tables of the plan.
///
/// # Errors
/// One of them was created by somebody else in the meantime, or a schema makes no sense.
pub(super) async fn create<C: Changes>(
    target: &RestoreTarget,
    source: Option<&Source>,
    changes: &C,
    options: &RestoreOptions,
    plan: &RestorePlan,
) -> Result<(), C::Error> {
    let mut writer = SchemaWriter::new(&target.cluster);
    each(target, source, changes, options, plan, async |change| {
        writer.apply(&change).await?;
        kill_point("restore.schemas_part");
        Ok(())
    })
    .await
}

/// Hands `make` the changes that the plan comes to, each for one transaction, in their order.
///
/// # Errors
/// A schema makes no sense, or the first of `make`.
pub(super) async fn each<C: Changes>(
    target: &RestoreTarget,
    source: Option<&Source>,
    changes: &C,
    options: &RestoreOptions,
    plan: &RestorePlan,
    mut make: impl AsyncFnMut(SchemaChange) -> Result<(), RestoreError>,
) -> Result<(), C::Error> {
    let policies = create_policies(target, source, options).await?;
    let update_ts = target.cluster.pd().tso().await;
    let update_ts = update_ts.map_err(RestoreError::from)?;
    // With the first new tables, which may have the names of those that are gone.
    let mut batch = Batch {
        dropped: plan.dropped.clone(),
        dropped_databases: plan.dropped_databases.clone(),
        ..Batch::default()
    };
    let mut created = std::collections::HashSet::new();
    let existing = |table: &PlannedTable| {
        let existing = table.existing.as_ref()?;
        Some((
            table.old_id,
            (existing.db, *existing.ids.get(&table.old_id)?),
        ))
    };
    let replaced: HashMap<_, _> = plan.tables.iter().filter_map(existing).collect();
    changes
        .schemas(source, async |entry| {
            let db = parse_db(&entry.db_json)?;
            let name = strip_temporary_prefix(&db.name.original).to_owned();
            let Some(place) = plan
                .databases
                .iter()
                .position(|planned| planned.old_id == db.id())
            else {
                return Ok(());
            };
            let missing = plan
                .databases
                .get(place)
                .is_some_and(|db| db.existing.is_none());
            if missing && created.insert(db.id()) {
                batch
                    .databases
                    .push(new_database(&entry.db_json, &db, plan, place, &policies)?);
            }
            let Some(json) = entry.table_json else {
                return Ok(());
            };
            let table = parse_table(&json, &name)?;
            if !options.takes_table(&name, &table.name.original) {
                return Ok(());
            }
            if plan.created.contains(&table.id()) {
                return Ok(());
            }
            let json = String::from_utf8(json).map_err(|_| bad_text(&name, &table))?;
            let mut new = new_table(&json, &table, plan, place, update_ts, &policies)?;
            new.replaces = replaced.get(&table.id()).copied();
            batch.push(new);
            if batch.is_full() {
                make(batch.take()).await?;
            }
            Ok(())
        })
        .await?;
    let last = batch.take();
    if last != SchemaChange::default() {
        make(last).await?;
    }
    Ok(())
}

/// Ids of placement policies by name in lower case.
type Policies = BTreeMap<String, i64>;

/// Creates the placement policies of the backup that the cluster lacks. Gives those that tables may
/// refer to: none, if they are to be placed as the cluster's default says.
async fn create_policies(
    target: &RestoreTarget,
    source: Option<&Source>,
    options: &RestoreOptions,
) -> Result<Policies, RestoreError> {
    let wanted = source.map(|source| &source.meta.head.policies[..]);
    let wanted = wanted.unwrap_or_default();
    let is_full = matches!(options.scope, Scope::Full { .. }) && !options.to_point;
    if wanted.is_empty() || !options.keep_placement || !is_full {
        return Ok(Policies::new());
    }
    let policies = br_catalog::create_policies(&target.cluster, wanted).await?;
    kill_point("restore.policies");
    tracing::warn!(
        policies = wanted.len(),
        "PD places the restored tables by their policies once each of these was altered: ALTER \
         PLACEMENT POLICY with the settings that it has"
    );
    Ok(policies)
}

/// Whether every policy that is referred to is there; tells of it if one is not.
fn are_known<'a>(
    name: &str,
    references: impl IntoIterator<Item = &'a PolicyRef>,
    policies: &Policies,
) -> bool {
    let lost = references
        .into_iter()
        .find(|policy| !policies.contains_key(&policy.name.lower));
    if let Some(lost) = lost.filter(|_| !policies.is_empty()) {
        let policy = &lost.name.original;
        tracing::warn!(name, policy, "its placement policy is not in the backup");
    }
    lost.is_none()
}

fn bad_text(db: &str, table: &TableInfo) -> RestoreError {
    let problem = "its text is not UTF-8".to_owned();
    let name = format!("{db}.{}", table.name.original);
    let source = schema::SchemaError::Shape {
        table: table.name.original.clone(),
        problem,
    };
    RestoreError::Schema { name, source }
}

#[derive(Default)]
struct Batch {
    databases: Vec<NewDatabase>,
    tables: Vec<NewTable>,
    dropped: Vec<DroppedTable>,
    dropped_databases: Vec<DbId>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, table: NewTable) {
        self.bytes += table.json.len();
        self.tables.push(table);
    }

    fn is_full(&self) -> bool {
        self.tables.len() >= TABLES_PER_TXN_MAX || self.bytes >= BYTES_PER_TXN_MAX
    }

    fn take(&mut self) -> SchemaChange {
        let batch = std::mem::take(self);
        SchemaChange {
            databases: batch.databases,
            tables: batch.tables,
            dropped: batch.dropped,
            dropped_databases: batch.dropped_databases,
        }
    }
}

fn new_database(
    json: &[u8],
    db: &DbInfo,
    plan: &RestorePlan,
    place: usize,
    policies: &Policies,
) -> Result<NewDatabase, RestoreError> {
    let name = plan
        .databases
        .get(place)
        .map(|db| db.name.clone())
        .unwrap_or_default();
    let failed = |source| RestoreError::Schema {
        name: name.clone(),
        source,
    };
    let id = plan.new_db_id(place).unwrap_or_default();
    let text = String::from_utf8_lossy(json);
    let mut patch = DbPatch::new(&text).map_err(failed)?;
    patch.set_id(id).map_err(failed)?;
    patch.set_name(&name).map_err(failed)?;
    match are_known(&name, &db.policy, policies) {
        true => patch.set_policy_id(|name| policies.get(name).copied()),
        false => patch.clear_placement(),
    }
    .map_err(failed)?;
    Ok(NewDatabase {
        id,
        json: patch.finish(),
        name,
    })
}

fn new_table(
    json: &str,
    table: &TableInfo,
    plan: &RestorePlan,
    place: usize,
    update_ts: TimeStamp,
    policies: &Policies,
) -> Result<NewTable, RestoreError> {
    let db_name = plan.databases.get(place).map_or("", |db| db.name.as_str());
    let name = format!("{db_name}.{}", table.name.original);
    let failed = |source| RestoreError::Schema {
        name: name.clone(),
        source,
    };
    let parts = table.active_partition();
    let parts = parts.map(|partition| &partition.definitions[..]);
    let of_parts = parts.unwrap_or_default().iter();
    let references = of_parts.filter_map(|part| part.policy.as_ref());
    let patch_options = PatchOptions {
        name: None,
        keep_placement: are_known(&name, references.chain(&table.policy), policies),
        update_ts,
    };
    let mut patch = schema::for_restore(json, &plan.ids, &patch_options).map_err(failed)?;
    if patch_options.keep_placement {
        let renumbered = patch.set_policy_ids(|name| policies.get(name).copied());
        renumbered.map_err(failed)?;
    }
    Ok(NewTable {
        db: plan.new_db_id(place).unwrap_or_default(),
        id: plan.ids.get(table.id()).unwrap_or(table.id()),
        name: table.name.original.clone(),
        json: patch.finish().map_err(failed)?,
        counters: counters(table),
        replaces: None,
    })
}

/// What each counter gave out last: the backup notes the next one.
fn counters(table: &TableInfo) -> Vec<(Counter, i64)> {
    let last = |next: i64| next.saturating_sub(1).max(0);
    if table.is_view() {
        return Vec::new();
    }
    if table.is_sequence() {
        return vec![(Counter::Sequence, table.auto_inc_id.saturating_sub(1))];
    }
    let mut counters = Vec::new();
    if table.is_auto_increment_apart() {
        counters.push((Counter::AutoIncrement, last(table.auto_inc_id)));
        counters.push((Counter::RowId, last(table.auto_inc_id_extra)));
    } else {
        counters.push((Counter::RowId, last(table.auto_inc_id)));
    }
    if table.auto_random_bits > 0 {
        counters.push((Counter::AutoRandom, last(table.auto_rand_id)));
    }
    counters
}
