use br_proto::backup::StreamBackupError;
use br_types::StoreId;
use prost::Message;

use crate::log::LogFormatError;

/// Why a store gave up a task.
///
/// # Source
/// `backup.StreamBackupError`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskError {
    /// When, in Unix milliseconds.
    pub happened_at_unix_ms: u64,
    /// `KV:LogBackup:…`.
    pub code: String,
    /// For people; begins with `[store = N]`.
    pub message: String,
    /// Who.
    pub store: StoreId,
}

impl TaskError {
    /// Reads the value of [`super::TaskKey::LastError`].
    ///
    /// # Errors
    /// It is damaged.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<TaskError, LogFormatError> {
        let error = StreamBackupError::decode(bytes)
            .map_err(|error| LogFormatError::malformed(key, error.to_string()))?;
        Ok(TaskError {
            happened_at_unix_ms: error.happen_at,
            code: error.error_code,
            message: error.error_message,
            store: StoreId(error.store_id),
        })
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        StreamBackupError {
            happen_at: self.happened_at_unix_ms,
            error_code: self.code.clone(),
            error_message: self.message.clone(),
            store_id: self.store.0,
        }
        .encode_to_vec()
    }
}
