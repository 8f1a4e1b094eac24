//! # What it does
//! Makes the entries of indexes that the log does not have, from the restored rows, before the
//! tables are seen.
//!
//! # Ordering and invariants
//! Entries are committed at the restored point, so that whatever a later restore of the log brings
//! lies above them. An entry that the log has as well gets the same value once more.

use std::sync::Arc;

use br_codec::{SHORT_VALUE_LEN_MAX, Write, WriteKind, key};
use br_rt::Phase;
use br_tidb::{
    row::IndexEncoder,
    table_key::{RECORD_PREFIX_LEN, record_range},
};
use br_types::{Cf, TableId, TimeStamp};

use super::{
    error::PointError,
    options::PointTarget,
    sort::{Buffer, Sorter, Version},
};

/// Rows whose entries are made before they are handed to the sorter.
const ROWS_OF_BATCH: usize = 4096;

/// Indexes of one table.
#[derive(Clone)]
pub(super) struct RebuiltIndexes {
    /// Its name, with the database.
    pub(super) table: String,
    /// Its ids in the log under which rows lie.
    pub(super) physical_ids: Vec<TableId>,
    pub(super) encoders: Vec<IndexEncoder>,
}

/// Puts the entries of all rows into a sorter.
pub(super) struct Rebuild<'a> {
    pub(super) target: &'a PointTarget,
    pub(super) sorter: Arc<Sorter>,
    pub(super) buffer_bytes: usize,
    /// When the entries are committed.
    pub(super) commit_ts: TimeStamp,
}

impl Rebuild<'_> {
    /// Reads the rows of one table in the cluster; gives the number of entries.
    ///
    /// # Errors
    /// A row cannot be read, or the local disk is full.
    pub(super) async fn table(
        &self,
        indexes: &RebuiltIndexes,
        new_id: impl Fn(TableId) -> Option<TableId>,
        phase: &Phase,
    ) -> Result<u64, PointError> {
        let cluster = &self.target.cluster;
        let snapshot = cluster.snapshot(cluster.pd().tso().await?);
        let mut entries = 0;
        let mut buffer = Buffer::default();
        for old in &indexes.physical_ids {
            let Some(id) = new_id(*old) else { continue };
            let mut rows = snapshot.scan(&record_range(id));
            loop {
                let mut batch = Vec::with_capacity(ROWS_OF_BATCH);
                while batch.len() < ROWS_OF_BATCH {
                    match rows.next().await? {
                        Some(row) => batch.push(row),
                        None => break,
                    }
                }
                if batch.is_empty() {
                    break;
                }
                let is_last = batch.len() < ROWS_OF_BATCH;
                let bytes: usize = batch
                    .iter()
                    .map(|(key, value)| key.len() + value.len())
                    .sum();
                phase.advance(batch.len() as u64, bytes as u64);
                for (raw, row) in &batch {
                    let handle = raw.as_bytes().get(RECORD_PREFIX_LEN..).unwrap_or_default();
                    for encoder in &indexes.encoders {
                        let entry = encoder.entry(id, handle, row);
                        let (key, value) = entry.map_err(|error| PointError::Schema {
                            name: indexes.table.clone(),
                            problem: format!("the row at {raw}: {error}"),
                        })?;
                        self.push(&mut buffer, &key, &value).await?;
                        entries += 1;
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        self.give(buffer).await?;
        Ok(entries)
    }

    async fn push(&self, buffer: &mut Buffer, raw: &[u8], value: &[u8]) -> Result<(), PointError> {
        let key = key::encode(raw).into_bytes();
        let start_ts = self.commit_ts.prev();
        let is_short = value.len() <= SHORT_VALUE_LEN_MAX;
        let record = Write::new(WriteKind::Put, start_ts, is_short.then(|| value.to_vec()));
        let record = record.to_bytes();
        let mut versions = vec![Version {
            key: &key,
            cf: Cf::Write,
            ts: self.commit_ts,
            value: &record,
        }];
        if !is_short {
            versions.push(Version {
                key: &key,
                cf: Cf::Default,
                ts: start_ts,
                value,
            });
        }
        for version in versions {
            if buffer.is_full(&version, self.buffer_bytes) {
                self.give(std::mem::take(buffer)).await?;
            }
            buffer.push(&version);
        }
        Ok(())
    }

    async fn give(&self, buffer: Buffer) -> Result<(), PointError> {
        let sorter = self.sorter.clone();
        let rt = self.target.cluster.rt();
        Ok(rt.blocking(move || sorter.add(buffer)).await?)
    }
}
