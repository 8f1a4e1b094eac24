//! SSTs that a restore took into a cluster while its log was written: events do not show them.

use br_proto::backup::{IngestedSsTs, RewrittenTableId};
use br_types::{TableId, TimeStamp};
use prost::Message;

use super::LogFormatError;
use crate::backupmeta::DataFile;

/// SSTs of one restore; those with equal [`IngestedSsts::restore`] belong together.
///
/// # Source
/// `backup.IngestedSSTs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestedSsts {
    /// Ids in the files, and the ids that the log has.
    pub tables: Vec<(TableId, TableId)>,
    /// The files.
    pub files: Vec<DataFile>,
    /// When they were there; zero until the restore was done.
    pub as_if_ts: TimeStamp,
    /// What names of the files begin with; a hint.
    pub files_prefix_hint: String,
    /// Whether the restore was done. If not, none of its files count.
    pub finished: bool,
    /// Which restore: 16 bytes.
    pub restore: Vec<u8>,
}

impl IngestedSsts {
    /// Reads it.
    ///
    /// # Errors
    /// [`LogFormatError::Malformed`].
    pub fn decode(object: &str, bytes: &[u8]) -> Result<IngestedSsts, LogFormatError> {
        let wrong = |error: String| LogFormatError::malformed(object, error);
        let ssts = IngestedSsTs::decode(bytes).map_err(|error| wrong(error.to_string()))?;
        let tables = ssts.rewritten_tables.iter();
        let files = ssts.files.into_iter().map(|file| {
            DataFile::from_proto(object, file).map_err(|error| wrong(error.to_string()))
        });
        Ok(IngestedSsts {
            tables: tables
                .map(|table| (TableId(table.ancestor_upstream), TableId(table.upstream)))
                .collect(),
            files: files.collect::<Result<_, _>>()?,
            as_if_ts: TimeStamp(ssts.as_if_ts),
            files_prefix_hint: ssts.files_prefix_hint,
            finished: ssts.finished,
            restore: ssts.backup_uuid,
        })
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let tables = self
            .tables
            .iter()
            .map(|(ancestor, table)| RewrittenTableId {
                ancestor_upstream: ancestor.0,
                upstream: table.0,
            });
        IngestedSsTs {
            rewritten_tables: tables.collect(),
            files: self
                .files
                .iter()
                .cloned()
                .map(DataFile::into_proto)
                .collect(),
            as_if_ts: self.as_if_ts.0,
            files_prefix_hint: self.files_prefix_hint.clone(),
            finished: self.finished,
            backup_uuid: self.restore.clone(),
        }
        .encode_to_vec()
    }
}
