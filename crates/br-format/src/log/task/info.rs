use br_proto::backup::stream_backup_task_security_config::Encryption;
use br_proto::backup::{
    MasterKeyConfig, StorageBackend, StreamBackupTaskInfo, StreamBackupTaskSecurityConfig,
};
use br_types::TimeStamp;
use prost::Message;

use super::TaskName;
use crate::crypter::Crypter;
use crate::log::LogFormatError;
use crate::log::file::LogCompression;

/// How the events of a task are encrypted.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TaskEncryption {
    /// Not at all.
    #[default]
    None,
    /// With this key. Everybody who reads etcd has it.
    DataKey(Crypter),
    /// With keys that the stores draw and encrypt under these.
    MasterKeys(MasterKeyConfig),
}

/// A task: what `br log start` was asked for.
///
/// # Source
/// `backup.StreamBackupTaskInfo`.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskInfo {
    /// Its name.
    pub name: TaskName,
    /// Where the log goes; holds credentials.
    pub storage: StorageBackend,
    /// Everything after this is in the log.
    pub start_ts: TimeStamp,
    /// Nobody heeds it; see [`super::END_TS_NONE`].
    pub end_ts: TimeStamp,
    /// For people; the ranges say what is in the log.
    pub table_filter: Vec<String>,
    /// How events are compressed.
    pub compression: LogCompression,
    /// How events are encrypted.
    pub encryption: TaskEncryption,
}

impl TaskInfo {
    /// Reads the value of [`super::TaskKey::Info`].
    ///
    /// # Errors
    /// It is damaged, has no storage or no valid name, or asks for what is not supported.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<TaskInfo, LogFormatError> {
        let info = StreamBackupTaskInfo::decode(bytes)
            .map_err(|error| LogFormatError::malformed(key, error.to_string()))?;
        let security = info.security_config.and_then(|config| config.encryption);
        let encryption = match security {
            None => TaskEncryption::None,
            Some(Encryption::PlaintextDataKey(cipher)) => {
                let crypter = Crypter::from_proto(Some(&cipher))
                    .map_err(|error| LogFormatError::malformed(key, error.to_string()))?;
                if crypter.is_plaintext() {
                    TaskEncryption::None
                } else {
                    TaskEncryption::DataKey(crypter)
                }
            }
            Some(Encryption::MasterKeyConfig(keys)) => TaskEncryption::MasterKeys(keys),
        };
        Ok(TaskInfo {
            name: TaskName::new(info.name)?,
            storage: info
                .storage
                .ok_or_else(|| LogFormatError::malformed(key, "it has no storage"))?,
            start_ts: TimeStamp(info.start_ts),
            end_ts: TimeStamp(info.end_ts),
            table_filter: info.table_filter,
            compression: LogCompression::from_number(key, info.compression_type)?,
            encryption,
        })
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let encryption = match &self.encryption {
            TaskEncryption::None => None,
            TaskEncryption::DataKey(crypter) => {
                Some(Encryption::PlaintextDataKey(crypter.to_proto()))
            }
            TaskEncryption::MasterKeys(keys) => Some(Encryption::MasterKeyConfig(keys.clone())),
        };
        StreamBackupTaskInfo {
            storage: Some(self.storage.clone()),
            start_ts: self.start_ts.0,
            end_ts: self.end_ts.0,
            name: self.name.as_str().to_owned(),
            table_filter: self.table_filter.clone(),
            compression_type: self.compression.number(),
            // There even if it says nothing, as the official tool has it.
            security_config: Some(StreamBackupTaskSecurityConfig { encryption }),
        }
        .encode_to_vec()
    }
}
