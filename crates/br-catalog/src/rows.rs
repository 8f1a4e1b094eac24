//! # What it does
//! Writes rows into a table that exists, as `REPLACE INTO` does: rows with an equal key go, with
//! their index entries.
//!
//! # Objects it reads and writes
//! Rows and index entries of the table, and its counter of row ids.
//!
//! # Ordering and invariants
//! A row and its entries come in one transaction, of which many rows are part. TiDB servers see them
//! like rows of a statement. Rows of a table without a unique key are written if there is none with
//! the same content, so that doing it again changes nothing.
//!
//! # Retries
//! A transaction that lost against another is done again with fresh reads, a few times.
//!
//! # After a crash
//! Some of the rows are there; the same again completes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use br_cluster::{Cluster, Snapshot, Transaction};
use br_tidb::{
    meta_key::{self, Counter},
    row::{RowCopier, RowEncoder, RowError, StoredRow},
    schema::TableInfo,
    table_key,
};
use br_types::{DbId, RawKey, TableId};
use sha2::{Digest, Sha256};

use crate::{CatalogError, create::commit_with_retry, read};

/// Rows of one transaction: so many are read and written in a second or two.
const ROWS_PER_TXN_MAX: usize = 512;
/// Bytes of their values: one transaction takes 100 MB.
const BYTES_PER_TXN_MAX: usize = 8 << 20;

/// Bytes of a content's digest that are kept.
const CONTENT_LEN: usize = 16;

/// Writes rows into one table.
pub struct RowWriter<'a> {
    cluster: &'a Cluster,
    db: DbId,
    table: TableId,
    name: String,
    encoder: RowEncoder,
    /// Of a table that admits copies: digests of the contents of all its rows.
    contents: Option<HashSet<[u8; CONTENT_LEN]>>,
}

/// What became of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplacedRows {
    /// Rows that are there now and were not.
    pub written: u64,
    /// Rows that were there already, as they are.
    pub unchanged: u64,
}

/// Which rows of a table without a unique key are compared with new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopiesOf {
    /// All of them: none comes twice.
    AnyRow,
    /// None: the new rows are known to be new.
    NoRow,
}

/// A row and what it needs to know of the table.
struct Prepared {
    handle: Option<Vec<u8>>,
    value: Vec<u8>,
    /// Keys that no other row may have.
    keys: Vec<RawKey>,
}

impl<'a> RowWriter<'a> {
    /// Prepares to write into a table of that database.
    ///
    /// # Errors
    /// Rows of the table cannot be made here, or it could not be read.
    pub async fn open(
        cluster: &'a Cluster,
        db: DbId,
        table: &TableInfo,
        new_collations: bool,
        copies: CopiesOf,
    ) -> Result<RowWriter<'a>, CatalogError> {
        let name = table.name.original.clone();
        let encoder = RowEncoder::new(table, new_collations);
        let encoder = encoder.map_err(|source| CatalogError::Unwritable {
            table: name.clone(),
            source,
        })?;
        let mut writer = RowWriter {
            cluster,
            db: table.counter_db(db),
            table: table.id(),
            name,
            contents: None,
            encoder,
        };
        if writer.encoder.admits_copies() && copies == CopiesOf::AnyRow {
            let snapshot = cluster.snapshot(cluster.pd().tso().await?);
            writer.contents = Some(writer.all_contents(&snapshot, table).await?);
        }
        Ok(writer)
    }

    /// Writes rows, in as many transactions as they need.
    ///
    /// # Errors
    /// [`CatalogError`]; some of the rows may be there.
    pub async fn replace(&mut self, rows: &[StoredRow]) -> Result<ReplacedRows, CatalogError> {
        let mut all = ReplacedRows::default();
        let mut batch: Vec<Prepared> = Vec::new();
        let (mut bytes, mut taken) = (0, HashSet::new());
        for row in rows {
            let prepared = self.prepare(row).map_err(|source| self.bad_row(source))?;
            if let Some(contents) = &mut self.contents
                && !contents.insert(digest(&prepared.value))
            {
                all.unchanged += 1;
                continue;
            }
            // Of rows with an equal key the last one stays, as it comes in a later transaction.
            let clashes = prepared.keys.iter().any(|key| taken.contains(key));
            let is_full = batch.len() >= ROWS_PER_TXN_MAX || bytes >= BYTES_PER_TXN_MAX;
            if clashes || is_full {
                all += self.write(&batch).await?;
                batch.clear();
                taken.clear();
                bytes = 0;
            }
            bytes += prepared.value.len();
            taken.extend(prepared.keys.iter().cloned());
            batch.push(prepared);
        }
        all += self.write(&batch).await?;
        Ok(all)
    }

    fn prepare(&self, row: &StoredRow) -> Result<Prepared, RowError> {
        let value = self.encoder.value(row);
        let handle = self.encoder.handle(row)?;
        // Keys that are alone do not have the handle in them: any will do.
        let any = table_key::int_handle_bytes(0);
        let entries = self
            .encoder
            .entries(handle.as_deref().unwrap_or(&any), &value)?;
        let alone = entries.into_iter().filter(|entry| entry.is_distinct);
        let mut keys: Vec<_> = alone.map(|entry| entry.key).collect();
        keys.extend(
            handle
                .as_deref()
                .map(|handle| self.encoder.record_key(handle)),
        );
        Ok(Prepared {
            handle,
            value,
            keys,
        })
    }

    async fn write(&self, batch: &[Prepared]) -> Result<ReplacedRows, CatalogError> {
        if batch.is_empty() {
            return Ok(ReplacedRows::default());
        }
        commit_with_retry(self.cluster, async |txn| self.fill(txn, batch).await).await
    }

    async fn fill(
        &self,
        txn: &mut Transaction,
        batch: &[Prepared],
    ) -> Result<ReplacedRows, CatalogError> {
        let owners = self.owners(txn.snapshot(), batch).await?;
        let wanted = owners.iter().flatten();
        let wanted = wanted.map(|handle| self.encoder.record_key(handle));
        let old: HashMap<RawKey, Vec<u8>> = txn
            .snapshot()
            .batch_get(wanted)
            .await?
            .into_iter()
            .collect();
        let mut done = ReplacedRows::default();
        let (mut deleted, mut written) = (BTreeSet::new(), BTreeMap::new());
        let mut used = HashSet::new();
        let mut next_id = None;
        for (row, owners) in batch.iter().zip(&owners) {
            let reused = owners.iter().find(|handle| !used.contains(*handle));
            let handle = match (&row.handle, reused) {
                (Some(handle), _) | (None, Some(handle)) => handle.clone(),
                (None, None) => {
                    let last = match next_id {
                        Some(last) => last,
                        None => self.last_row_id(txn.snapshot()).await?,
                    };
                    let next = last.checked_add(1).ok_or_else(|| self.no_row_id())?;
                    next_id = Some(next);
                    table_key::int_handle_bytes(next).to_vec()
                }
            };
            used.insert(handle.clone());
            let key = self.encoder.record_key(&handle);
            if owners.len() == 1 && old.get(&key) == Some(&row.value) {
                done.unchanged += 1;
                continue;
            }
            for owner in owners {
                let key = self.encoder.record_key(owner);
                if let Some(value) = old.get(&key) {
                    deleted.extend(self.entries(owner, value)?.map(|(key, _)| key));
                }
                deleted.insert(key);
            }
            written.extend(self.entries(&handle, &row.value)?);
            written.insert(key, row.value.clone());
            done.written += 1;
        }
        for key in deleted.into_iter().filter(|key| !written.contains_key(key)) {
            txn.delete(key)?;
        }
        for (key, value) in written {
            txn.put(key, value)?;
        }
        if let Some(last) = next_id {
            let key = meta_key::counter_key(self.db, self.table, Counter::RowId);
            txn.put(key, last.to_string().into_bytes())?;
        }
        Ok(done)
    }

    fn entries(
        &self,
        handle: &[u8],
        value: &[u8],
    ) -> Result<impl Iterator<Item = (RawKey, Vec<u8>)> + use<>, CatalogError> {
        let entries = self.encoder.entries(handle, value);
        let entries = entries.map_err(|source| self.bad_row(source))?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)))
    }

    /// The handles of the rows whose place each row takes.
    async fn owners(
        &self,
        snapshot: &Snapshot,
        batch: &[Prepared],
    ) -> Result<Vec<BTreeSet<Vec<u8>>>, CatalogError> {
        let keys = batch.iter().flat_map(|row| row.keys.iter().cloned());
        let found: HashMap<RawKey, Vec<u8>> = snapshot.batch_get(keys).await?.into_iter().collect();
        let mut all = Vec::with_capacity(batch.len());
        for row in batch {
            let mut owners = BTreeSet::new();
            let own = row.handle.as_ref();
            let own_key = own.map(|handle| self.encoder.record_key(handle));
            for key in &row.keys {
                let Some(value) = found.get(key) else {
                    continue;
                };
                owners.insert(match (own, Some(key) == own_key.as_ref()) {
                    (Some(own), true) => own.clone(),
                    _ => {
                        let handle = self.encoder.handle_of(value);
                        handle.map_err(|source| self.bad_row(source))?
                    }
                });
            }
            all.push(owners);
        }
        Ok(all)
    }

    /// The last row id that is taken. The counter of a table that was moved here from a database is
    /// under that database, and lost with it: the official tool moves system tables so, and drops
    /// where they came from.
    async fn last_row_id(&self, snapshot: &Snapshot) -> Result<i64, CatalogError> {
        let counted = read::counter(snapshot, self.db, self.table, Counter::RowId).await?;
        let counted = counted.unwrap_or_default();
        let mut rows = snapshot.scan_reverse(&table_key::record_range(self.table));
        let Some((key, _)) = rows.next().await? else {
            return Ok(counted);
        };
        let prefix = table_key::record_prefix(self.table);
        let handle = key.as_bytes().strip_prefix(prefix.as_bytes());
        let greatest = table_key::int_handle(handle.unwrap_or_default())
            .map_err(|error| CatalogError::damaged(&key, error.to_string()))?;
        Ok(counted.max(greatest))
    }

    async fn all_contents(
        &self,
        snapshot: &Snapshot,
        table: &TableInfo,
    ) -> Result<HashSet<[u8; CONTENT_LEN]>, CatalogError> {
        let copier = RowCopier::new(table, table, 0);
        let copier =
            copier.map_err(|error| CatalogError::damaged(&self.name, error.to_string()))?;
        let prefix = table_key::record_prefix(self.table);
        let mut rows = snapshot.scan(&table_key::record_range(self.table));
        let mut contents = HashSet::new();
        while let Some((key, value)) = rows.next().await? {
            let handle = key.as_bytes().strip_prefix(prefix.as_bytes());
            let row = copier.copy(handle.unwrap_or_default(), &value);
            let row = row.map_err(|source| self.bad_row(source))?;
            contents.insert(digest(&self.encoder.value(&row)));
        }
        Ok(contents)
    }

    fn no_row_id(&self) -> CatalogError {
        CatalogError::damaged(&self.name, "no row id is left")
    }

    fn bad_row(&self, source: RowError) -> CatalogError {
        CatalogError::Row {
            table: self.name.clone(),
            source,
        }
    }
}

impl std::ops::AddAssign for ReplacedRows {
    fn add_assign(&mut self, more: ReplacedRows) {
        self.written += more.written;
        self.unchanged += more.unchanged;
    }
}

fn digest(value: &[u8]) -> [u8; CONTENT_LEN] {
    let digest = Sha256::digest(value);
    digest.first_chunk().copied().unwrap_or_default()
}
