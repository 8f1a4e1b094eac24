//! The parts of a cluster on disk: RocksDB for the stores' data and for PD.

use std::{path::Path, sync::Arc};

use br_engine::{MetaChange, MetaStore, RocksEngine, RocksOptions};
use br_store::engine::EngineError;

use super::{ClusterError, Parts, lock_file::LockFile};
use crate::pd::meta_kv::{MetaBatch, MetaError, MetaKv};

/// Opens a data folder, which is made if it is missing; it stays locked while the lock lives.
pub(super) fn open(path: &Path) -> Result<(Parts, LockFile), ClusterError> {
    std::fs::create_dir_all(path).map_err(|source| ClusterError::Io {
        path: path.to_owned(),
        source,
    })?;
    let lock = LockFile::take(path)?;
    let engine = RocksEngine::open(path, RocksOptions::default())?;
    Ok((Parts::on_rocksdb(engine), lock))
}

/// Parts in a temporary folder that goes with them.
pub(super) fn open_temporary() -> Result<Parts, ClusterError> {
    Ok(Parts::on_rocksdb(RocksEngine::temporary()?))
}

impl Parts {
    /// Both parts in one database, which the caller has opened.
    pub fn on_rocksdb(engine: RocksEngine) -> Parts {
        let meta = Arc::new(RocksMeta(engine.meta()));
        Parts {
            engine: Arc::new(engine),
            meta,
        }
    }
}

/// PD's store in the engine's database.
struct RocksMeta(MetaStore);

fn failed(error: EngineError) -> MetaError {
    MetaError::Io(error.to_string())
}

impl MetaKv for RocksMeta {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        self.0.get(key).map_err(failed)
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, MetaError> {
        let end = br_types::RawKey::from(prefix).prefix_end();
        self.0
            .scan(prefix, end.as_bytes(), usize::MAX)
            .map_err(failed)
    }

    fn write(&self, batch: MetaBatch) -> Result<(), MetaError> {
        let changes: Vec<_> = batch
            .changes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => MetaChange::Put(key, value),
                None => MetaChange::Delete(key),
            })
            .collect();
        self.0.write(&changes).map_err(failed)
    }
}
