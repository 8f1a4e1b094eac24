//! Databases, tables, statistics; and whether the sums of data files are those of the tables.

use std::collections::BTreeSet;

use br_format::backupmeta::{Content, MetaNode};
use br_format::kv_stats::KvStats;
use br_format::names::{BACKUPMETA, MetaKind};
use br_format::schema::SchemaEntry;
use br_format::stats::StatsRef;
use br_tidb::schema::{DbInfo, TableInfo};
use br_types::TableId;

use super::super::error::{Trouble, VerifyError};
use super::super::report::{Cost, Part};
use super::files::Files;
use super::{Broken, Examined, damage};

/// What schemas came to.
#[derive(Default)]
struct Tables {
    /// Ids of all tables and partitions.
    ids: BTreeSet<TableId>,
    /// Tables whose files are not all that was backed up, the object of the schema, and a sentence.
    short: Vec<(BTreeSet<TableId>, String, String)>,
    /// Tables without a sum, so that nobody can tell.
    unsummed: BTreeSet<TableId>,
}

impl Examined<'_> {
    pub(super) async fn schemas(&mut self, files: Files) -> Result<(), VerifyError> {
        let mut tables = Tables::default();
        let broken = self
            .each_node(MetaKind::Schema, async |this, node| {
                for entry in node.schemas() {
                    match entry {
                        Ok(entry) => this.schema(node, &entry, &files, &mut tables).await?,
                        Err(error) => {
                            let problem = damage(error)?;
                            this.found(node.object(), None, &problem, Cost::All);
                        }
                    }
                }
                Ok(())
            })
            .await?;
        self.judge_files(&files.broken, &mut tables);
        self.judge_schemas(&broken, &files, &tables);
        for (ids, object, problem) in tables.short {
            self.found(&object, None, &problem, Cost::Tables(ids));
        }
        Ok(())
    }

    async fn schema(
        &mut self,
        node: &MetaNode,
        entry: &SchemaEntry,
        files: &Files,
        tables: &mut Tables,
    ) -> Result<(), VerifyError> {
        let object = node.object();
        let db = match DbInfo::parse(&entry.db_json) {
            Ok(db) => db,
            Err(error) => {
                let problem = format!("the schema of a database makes no sense: {error}");
                self.found(object, None, &problem, Cost::All);
                return Ok(());
            }
        };
        let Some(json) = &entry.table_json else {
            return Ok(());
        };
        let info = match TableInfo::parse(json) {
            Ok(info) => info,
            Err(error) => {
                let db = &db.name.original;
                let problem = format!("the schema of a table of {db} makes no sense: {error}");
                self.found(object, None, &problem, Cost::All);
                return Ok(());
            }
        };
        self.looked.tables += 1;
        let ts = self.meta.head.backup_ts;
        self.report.names.add(&db, &info, ts);
        let ids: BTreeSet<_> = info.all_ids().into_iter().collect();
        let sums: KvStats = ids
            .iter()
            .filter_map(|id| files.sums.get(id))
            .copied()
            .sum();
        if entry.checksum.is_zero() {
            tables.unsummed.extend(&ids);
        } else if sums != entry.checksum {
            let problem = format!(
                "the files of {} have {} pairs of {} bytes with CRC-64 {:016x}, and {} of {} with \
                 {:016x} were backed up",
                self.report.names.table(info.id()),
                sums.total_kvs,
                sums.total_bytes,
                sums.crc64_xor,
                entry.checksum.total_kvs,
                entry.checksum.total_bytes,
                entry.checksum.crc64_xor
            );
            let short = (ids.clone(), object.to_owned(), problem);
            tables.short.push(short);
        }
        tables.ids.extend(ids);
        for stats in &entry.stats {
            self.stats(object, stats, info.id()).await?;
        }
        Ok(())
    }

    /// Statistics of the optimizer: without them rows are as they were.
    async fn stats(
        &mut self,
        named_by: &str,
        stats: &StatsRef,
        table: TableId,
    ) -> Result<(), VerifyError> {
        let mut problem = None;
        let object = stats.object_name().unwrap_or(named_by).to_owned();
        if stats.object_name().is_some() {
            self.looked.objects += 1;
            problem = self
                .listing
                .problem(&object, Some(stats.stored_size_bytes()));
        }
        if problem.is_none() && (self.reads_contents() || stats.object_name().is_none()) {
            let stored = match stats.object_name() {
                Some(name) => self.storage.read(name).await.map_err(Trouble::from),
                None => Ok(bytes::Bytes::new()),
            };
            let crypter = &self.look.options.crypter;
            let opened = stored.and_then(|stored| Ok(stats.open(stored, crypter)?));
            problem = match opened {
                Ok(_) => None,
                Err(Trouble::Damage(problem)) => Some(problem),
                Err(Trouble::End(error)) => return Err(error),
            };
        }
        if let Some(problem) = problem {
            let table = self.report.names.table(table);
            let problem = super::about(&problem, &object);
            let problem = format!("{problem}; it has statistics of {table}, no rows");
            self.found(&object, Some(named_by), &problem, Cost::Nothing);
        }
        Ok(())
    }

    /// Index objects of data files that are lost: what they named shows in the sums of tables.
    fn judge_files(&mut self, broken: &[Broken], tables: &mut Tables) {
        if broken.is_empty() {
            return;
        }
        let short = std::mem::take(&mut tables.short);
        let ids: BTreeSet<_> = short.into_iter().flat_map(|(ids, ..)| ids).collect();
        let is_known = tables.unsummed.is_empty() && self.meta.head.content == Content::Tables;
        let cost = match is_known {
            true => Cost::Tables(ids),
            false => Cost::All,
        };
        for object in broken {
            let named_by = Some(BACKUPMETA);
            self.found(&object.name, named_by, &object.problem, cost.clone());
        }
    }

    /// Index objects of schemas that are lost: files of tables without a name are left.
    fn judge_schemas(&mut self, broken: &[Broken], files: &Files, tables: &Tables) {
        let nameless: BTreeSet<_> = files
            .sums
            .keys()
            .filter(|id| !tables.ids.contains(id))
            .copied()
            .collect();
        for object in broken {
            let cost = match nameless.is_empty() {
                true => Cost::All,
                false => Cost::Tables(nameless.clone()),
            };
            self.found(&object.name, Some(BACKUPMETA), &object.problem, cost);
        }
        if broken.is_empty() && !nameless.is_empty() && self.meta.head.content == Content::Tables {
            let ids: Vec<_> = nameless.iter().map(ToString::to_string).collect();
            let text = format!(
                "there are data files of tables that the backup has no schema of, with the ids {}",
                ids.join(", ")
            );
            self.report.note(Part::Backup, text, Vec::new());
        }
    }
}
