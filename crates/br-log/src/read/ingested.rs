use std::collections::BTreeMap;

use br_format::backupmeta::DataFile;
use br_format::log::LogFormatError;
use br_format::log::ingested::IngestedSsts;
use br_storage::read_again;
use br_types::{TableId, TimeStamp};

use super::{LogReadError, LogStorage};

/// The SSTs that one restore took in while the log was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestedGroup {
    /// Which restore.
    pub restore: Vec<u8>,
    /// When they were there.
    pub as_if_ts: TimeStamp,
    /// The files; their keys have ids of before.
    pub files: Vec<DataFile>,
    /// Ids in the files, and the ids that the log has.
    pub tables: Vec<(TableId, TableId)>,
}

impl LogStorage {
    /// The SSTs of restores that were done in `(start_ts, restored_ts]`. Restores that were not
    /// done left nothing.
    ///
    /// # Errors
    /// The storage did not help, or an object is damaged.
    pub async fn ingested(
        &self,
        paths: &[String],
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<Vec<IngestedGroup>, LogReadError> {
        let mut groups: BTreeMap<Vec<u8>, (IngestedGroup, bool)> = BTreeMap::new();
        for path in paths {
            let ssts = read_again(async || {
                let bytes = self.storage().read(path).await?;
                Ok::<_, LogReadError>(IngestedSsts::decode(path, &bytes)?)
            })
            .await?;
            if ssts.restore.is_empty() {
                let reason = "it does not say which restore it is of".to_owned();
                return Err(LogReadError::Format(LogFormatError::Malformed {
                    object: path.clone(),
                    reason,
                }));
            }
            let (group, finished) = groups.entry(ssts.restore.clone()).or_default();
            group.restore = ssts.restore;
            group.files.extend(ssts.files);
            group.tables.extend(ssts.tables);
            group.as_if_ts = group.as_if_ts.max(ssts.as_if_ts);
            *finished |= ssts.finished;
        }
        let groups = groups.into_values().filter(|(group, finished)| {
            *finished && group.as_if_ts >= start_ts && group.as_if_ts <= restored_ts
        });
        Ok(groups.map(|(group, _)| group).collect())
    }
}
