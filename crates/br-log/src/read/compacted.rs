//! The SSTs of compactions.

use br_codec::WriteRef;
use br_codec::key::split_data_key;
use br_format::backupmeta::DataFile;
use br_format::log::compaction::{self, Subcompaction};
use br_format::log::metadata::META_SIZE_BYTES_MAX;
use br_format::log::migration::Compaction;
use br_format::log::names;
use br_sst::{SstError, Table};
use br_storage::read_again;
use br_types::{Cf, TimeStamp};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{LogReadError, LogStorage};

/// SSTs of which records are sought at once: each is in memory as a whole.
const SST_READS_MAX: usize = 4;

impl LogStorage {
    /// What a compaction made.
    ///
    /// # Errors
    /// The storage did not help, or an index is damaged.
    pub async fn subcompactions(
        &self,
        compaction: &Compaction,
    ) -> Result<Vec<Subcompaction>, LogReadError> {
        let names = self.names_in(&compaction.artifacts).await?;
        let indices = names
            .into_iter()
            .filter(|name| name.ends_with(names::COMPACTION_META_SUFFIX));
        let read: Vec<Vec<Subcompaction>> = stream::iter(indices)
            .map(|name| async move {
                let decode =
                    |bytes: Bytes| Ok::<_, LogReadError>(compaction::decode(&name, &bytes)?);
                let read = self
                    .storage()
                    .read_checked(&name, META_SIZE_BYTES_MAX, decode);
                read.await
            })
            .buffered(self.reads())
            .try_collect()
            .await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// The bytes of an SST, its sum checked.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub async fn read_sst(&self, file: &DataFile) -> Result<Bytes, LogReadError> {
        read_again(async || self.read_sst_once(file).await).await
    }

    async fn read_sst_once(&self, file: &DataFile) -> Result<Bytes, LogReadError> {
        let stored = self.storage().read(&file.name).await;
        let stored = stored.map_err(|error| match error.is_not_found() {
            true => LogReadError::Missing {
                object: file.name.clone(),
                named_by: "a compaction".to_owned(),
            },
            false => error.into(),
        })?;
        let found: [u8; 32] = Sha256::digest(&stored).into();
        if found != file.sha256 {
            return Err(LogReadError::Checksum {
                file: file.name.clone(),
                expected: hex::encode(file.sha256),
                found: hex::encode(found),
            });
        }
        Ok(stored)
    }

    /// The least `start_ts` of the records in `(start_ts, restored_ts]` that lie in these SSTs of
    /// the write column family; none without such records.
    pub(super) async fn least_start_ts(
        &self,
        files: Vec<DataFile>,
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<Option<TimeStamp>, LogReadError> {
        let files = files.into_iter().filter(|file| {
            file.cf == Cf::Write && file.start_ts <= restored_ts && file.end_ts >= start_ts
        });
        stream::iter(files)
            .map(|file| async move {
                let stored = self.read_sst(&file).await?;
                let least = least_start_ts(stored, start_ts, restored_ts);
                least.map_err(|source| LogReadError::Compacted {
                    file: file.name,
                    source,
                })
            })
            .buffer_unordered(SST_READS_MAX)
            .try_fold(None, async |least: Option<TimeStamp>, one| {
                Ok(least.into_iter().chain(one).min())
            })
            .await
    }
}

fn least_start_ts(
    stored: Bytes,
    start_ts: TimeStamp,
    restored_ts: TimeStamp,
) -> Result<Option<TimeStamp>, SstError> {
    let table = Table::open(stored)?;
    let mut records = table.iter();
    records.seek(&[])?;
    let mut least: Option<TimeStamp> = None;
    let corrupt = |_| SstError::Corrupt {
        offset: 0,
        reason: "a key or record makes no sense",
    };
    while let Some(entry) = records.next()? {
        let (_, ts) = split_data_key(entry.user_key).map_err(corrupt)?;
        if ts <= start_ts || ts > restored_ts {
            continue;
        }
        let begun = WriteRef::parse(entry.value).map_err(corrupt)?.start_ts;
        least = Some(least.map_or(begun, |known| known.min(begun)));
    }
    Ok(least)
}
