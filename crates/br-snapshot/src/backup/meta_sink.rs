//! # What it does
//! Takes finished pieces, DDL jobs and schemas, and writes the meta files.
//!
//! # Ordering and invariants
//! Everything else is written before `backupmeta`, which [`MetaSink::finish`] writes last. A piece
//! given here is final: its files are in the backup, and their sums count for its table.
//!
//! # After a crash
//! Meta files without `backupmeta` mean nothing.

use std::collections::HashMap;

use br_format::{
    Object,
    backupmeta::{BackupHead, MetaWriter},
    kv_stats::KvStats,
    names,
    schema::SchemaEntry,
};
use br_rt::kill_point;
use br_storage::{Storage, StorageError};
use br_tidb::table_key::table_id;
use br_types::{Cf, TableId};

use super::push::Piece;
use crate::stored_meta;

/// Sums over everything that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Files with short values and commit records.
    pub(crate) write_files: u64,
    /// Files with long values, and all files of raw backups.
    pub(crate) default_files: u64,
    /// Key-value pairs.
    pub(crate) kvs: u64,
    /// Bytes of their keys and values.
    pub(crate) kv_bytes: u64,
    /// Bytes of the files.
    pub(crate) data_size_bytes: u64,
    /// Bytes of the meta files, `backupmeta` included.
    pub(crate) meta_size_bytes: u64,
}

/// Where the contents of a backup end up.
pub(crate) struct MetaSink {
    storage: Storage,
    writer: MetaWriter,
    /// Length of what stands before `t` in the keys of tables; `None`: there are no tables.
    table_prefix_len: Option<usize>,
    by_table: HashMap<TableId, KvStats>,
    totals: Totals,
}

impl MetaSink {
    /// A sink for raw or transactional keys.
    pub(crate) fn new(storage: Storage, writer: MetaWriter) -> MetaSink {
        MetaSink {
            storage,
            writer,
            table_prefix_len: None,
            by_table: HashMap::new(),
            totals: Totals::default(),
        }
    }

    /// A sink for tables, whose keys have so many bytes of a keyspace before them.
    pub(crate) fn for_tables(
        storage: Storage,
        writer: MetaWriter,
        keyspace_prefix_len: usize,
    ) -> MetaSink {
        MetaSink {
            table_prefix_len: Some(keyspace_prefix_len),
            ..MetaSink::new(storage, writer)
        }
    }

    /// Takes the files of finished pieces.
    pub(crate) async fn accept(&mut self, pieces: Vec<Piece>) -> Result<(), StorageError> {
        for piece in pieces {
            for file in &piece.files {
                let count = match file.cf {
                    Cf::Write => &mut self.totals.write_files,
                    Cf::Default | Cf::Lock => &mut self.totals.default_files,
                };
                *count += 1;
                self.totals.kvs += file.stats.total_kvs;
                self.totals.kv_bytes += file.stats.total_bytes;
                self.totals.data_size_bytes += file.size_bytes;
                let table = self
                    .table_prefix_len
                    .and_then(|len| file.range.start.as_bytes().get(len..))
                    .and_then(table_id);
                if let Some(table) = table {
                    *self.by_table.entry(table).or_default() += file.stats;
                }
            }
            if !piece.files.is_empty() {
                let objects = self.writer.push_data_files(piece.files);
                self.write(objects).await?;
            }
        }
        Ok(())
    }

    /// Takes a finished DDL job, as TiDB's JSON.
    pub(crate) async fn accept_ddl_job(&mut self, job_json: Vec<u8>) -> Result<(), StorageError> {
        let objects = self.writer.push_ddl_job(job_json);
        self.write(objects).await
    }

    /// Takes a database or table.
    pub(crate) async fn accept_schema(&mut self, schema: SchemaEntry) -> Result<(), StorageError> {
        let objects = self.writer.push_schema(schema);
        self.write(objects).await
    }

    /// Sums of the files of a table or partition so far.
    pub(crate) fn table_sum(&self, physical: TableId) -> KvStats {
        self.by_table.get(&physical).copied().unwrap_or_default()
    }

    /// Writes the rest, `backupmeta` last: from then on the backup exists.
    pub(crate) async fn finish(self, head: BackupHead) -> Result<Totals, StorageError> {
        let MetaSink {
            storage,
            writer,
            mut totals,
            ..
        } = self;
        for Object { name, bytes } in writer.finish(head) {
            totals.meta_size_bytes += bytes.len() as u64;
            if name == names::BACKUPMETA {
                stored_meta::write(&storage, bytes).await?;
                kill_point("backup.backupmeta");
            } else {
                storage.write(&name, bytes).await?;
                kill_point("backup.meta_object");
            }
        }
        Ok(totals)
    }

    async fn write(&mut self, objects: Vec<Object>) -> Result<(), StorageError> {
        for Object { name, bytes } in objects {
            self.totals.meta_size_bytes += bytes.len() as u64;
            self.storage.write(&name, bytes).await?;
            kill_point("backup.meta_object");
        }
        Ok(())
    }
}
