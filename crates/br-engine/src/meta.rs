use std::sync::Arc;

use br_store::engine::EngineError;
use rust_rocksdb::{ColumnFamily, DB, ReadOptions, WriteBatch, WriteOptions};

use crate::{error::engine_error, options::META_FAMILY, rocks::family_named};

/// A small ordered key-value store for what PD, etcd and the region table have to keep. Cheap to
/// clone; it keeps the database open.
#[derive(Clone)]
pub struct MetaStore {
    db: Arc<DB>,
    syncs_writes: bool,
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaChange {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(Vec<u8>),
}

impl MetaStore {
    pub(crate) fn new(db: Arc<DB>, syncs_writes: bool) -> Self {
        Self { db, syncs_writes }
    }

    /// The same store, whose writes wait until the disk has them.
    #[must_use]
    pub fn syncing(mut self) -> Self {
        self.syncs_writes = true;
        self
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.db.get_cf(self.family(), key).map_err(engine_error)
    }

    /// Sets a key; durable when it returns.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.write(&[MetaChange::Put(key.to_vec(), value.to_vec())])
    }

    /// Removes a key; durable when it returns.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn delete(&self, key: &[u8]) -> Result<(), EngineError> {
        self.write(&[MetaChange::Delete(key.to_vec())])
    }

    /// Applies changes together, in order; durable when it returns.
    ///
    /// # Errors
    /// [`EngineError`]; nothing of them is visible then.
    pub fn write(&self, changes: &[MetaChange]) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            match change {
                MetaChange::Put(key, value) => batch.put_cf(self.family(), key, value),
                MetaChange::Delete(key) => batch.delete_cf(self.family(), key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(self.syncs_writes);
        self.db.write_opt(&batch, &options).map_err(engine_error)
    }

    /// The pairs from `start` on, up to `end` without it (empty: no bound), in key order, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, EngineError> {
        let mut pairs = Vec::new();
        if !end.is_empty() && start >= end {
            return Ok(pairs);
        }
        let mut options = ReadOptions::default();
        if !end.is_empty() {
            options.set_iterate_upper_bound(end);
        }
        let mut cursor = self.db.raw_iterator_cf_opt(self.family(), options);
        cursor.seek(start);
        while let (Some(key), Some(value)) = (cursor.key(), cursor.value()) {
            if pairs.len() >= limit {
                break;
            }
            pairs.push((key.to_vec(), value.to_vec()));
            cursor.next();
        }
        cursor.status().map_err(engine_error)?;
        Ok(pairs)
    }

    fn family(&self) -> &ColumnFamily {
        family_named(&self.db, META_FAMILY)
    }
}
