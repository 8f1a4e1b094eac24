use std::sync::Arc;

use br_store::engine::{Cursor, EngineError, Snapshot};
use br_types::{Cf, DataKey, KeyRange};
use rust_rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use crate::{error::engine_error, rocks::family};

type RawSnapshot<'db> = SnapshotWithThreadMode<'db, DB>;

self_cell!(
    /// A snapshot that keeps its database open.
    pub(crate) struct RocksSnapshot {
        owner: Arc<DB>,
        #[covariant]
        dependent: RawSnapshot,
    }
);

impl RocksSnapshot {
    pub(crate) fn take(db: Arc<DB>) -> Self {
        Self::new(db, |db| db.snapshot())
    }
}

impl Snapshot for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let family = family(self.borrow_owner(), cf);
        self.borrow_dependent()
            .get_cf(family, key)
            .map_err(engine_error)
    }

    fn iter(&self, cf: Cf, range: KeyRange<DataKey>) -> Box<dyn Cursor + '_> {
        let mut options = ReadOptions::default();
        // An upper bound below the lower one is a mistake to RocksDB; here it is an empty range.
        let end = if range.is_empty() {
            range.start.clone()
        } else {
            range.end
        };
        options.set_iterate_lower_bound(range.start.into_bytes());
        if !end.is_empty() {
            options.set_iterate_upper_bound(end.into_bytes());
        }
        let family = family(self.borrow_owner(), cf);
        Box::new(RocksCursor {
            inner: self.borrow_dependent().raw_iterator_cf_opt(family, options),
            is_valid: false,
        })
    }
}

struct RocksCursor<'s> {
    inner: DBRawIteratorWithThreadMode<'s, DB>,
    /// Whether it stands on a key; asking costs a call into RocksDB.
    is_valid: bool,
}

impl RocksCursor<'_> {
    /// Whether it stands on a key; the end of the data and an error look the same at first.
    fn state(&mut self) -> Result<bool, EngineError> {
        self.is_valid = self.inner.valid();
        if !self.is_valid {
            self.inner.status().map_err(engine_error)?;
        }
        Ok(self.is_valid)
    }
}

impl Cursor for RocksCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.inner.seek(key);
        self.state()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.inner.seek_for_prev(key);
        self.state()
    }

    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        self.inner.seek_to_first();
        self.state()
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        self.inner.seek_to_last();
        self.state()
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        if self.is_valid {
            self.inner.next();
        }
        self.state()
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        if self.is_valid {
            self.inner.prev();
        }
        self.state()
    }

    fn key(&self) -> &[u8] {
        self.inner.key().unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.inner.value().unwrap_or_default()
    }
}
