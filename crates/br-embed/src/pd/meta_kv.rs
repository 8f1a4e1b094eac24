//! Where PD keeps what must survive: a trait of a small ordered store, and one in memory.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use br_types::{Classify, Kind};

/// A failure of the store behind PD.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// It could not be read or written.
    #[error("the metadata store of PD failed: {0}")]
    Io(String),
    /// What it holds cannot be read as what it should be.
    #[error("the metadata store of PD holds damaged data under {key:?}: {message}")]
    Damaged {
        /// The key, readable as far as it is text.
        key: String,
        /// What is wrong with the value.
        message: String,
    },
}

impl MetaError {
    /// A value that does not decode.
    pub fn damaged(key: &[u8], error: &impl ToString) -> MetaError {
        MetaError::Damaged {
            key: String::from_utf8_lossy(key).into_owned(),
            message: error.to_string(),
        }
    }
}

impl Classify for MetaError {
    fn kind(&self) -> Kind {
        match self {
            MetaError::Io(_) => Kind::Internal,
            MetaError::Damaged { .. } => Kind::Data,
        }
    }
}

/// Changes that become durable together.
#[derive(Clone, Debug, Default)]
pub struct MetaBatch {
    /// Keys with their new values; `None` removes the key.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl MetaBatch {
    /// Adds a write.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Adds a removal.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }
}

/// Where PD keeps what must survive: a small ordered map from keys to values.
pub trait MetaKv: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// [`MetaError::Io`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError>;

    /// Every key with this prefix, ascending, with its value.
    ///
    /// # Errors
    /// [`MetaError::Io`].
    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, MetaError>;

    /// Applies a batch, all or nothing. It survives the death of the process once this returns.
    ///
    /// # Errors
    /// [`MetaError::Io`]; nothing of the batch is there then.
    fn write(&self, batch: MetaBatch) -> Result<(), MetaError>;
}

/// A store in memory, for tests and simulation: what lives in it outlives the PD that uses it.
#[derive(Debug, Default)]
pub struct MemoryKv(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl MemoryKv {
    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetaKv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        Ok(self.map().get(key).cloned())
    }

    fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, MetaError> {
        Ok(self
            .map()
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, batch: MetaBatch) -> Result<(), MetaError> {
        let mut map = self.map();
        for (key, value) in batch.changes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }
}

/// Reads a number of eight big-endian bytes; 0 if the key is absent.
pub(crate) fn get_u64(kv: &dyn MetaKv, key: &[u8]) -> Result<u64, MetaError> {
    match kv.get(key)? {
        None => Ok(0),
        Some(bytes) => {
            let bytes = <[u8; 8]>::try_from(bytes.as_slice())
                .map_err(|_| MetaError::damaged(key, &"it is not a number of eight bytes"))?;
            Ok(u64::from_be_bytes(bytes))
        }
    }
}

/// Reads a value that is JSON.
pub(crate) fn get_json<T: serde::de::DeserializeOwned>(
    kv: &dyn MetaKv,
    key: &[u8],
) -> Result<Option<T>, MetaError> {
    kv.get(key)?
        .map(|value| {
            serde_json::from_slice(&value).map_err(|error| MetaError::damaged(key, &error))
        })
        .transpose()
}

/// The JSON of a value whose keys are all strings.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, MetaError> {
    serde_json::to_vec(value).map_err(|error| MetaError::Io(error.to_string()))
}
