use std::time::Duration;

use br_types::TableId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ResumeError, json};
use crate::kv_stats::KvStats;

/// `checksum/*.cpt`: checksums of tables that the cluster has computed. Never encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResumeChecksums {
    /// The tables.
    pub tables: Vec<TableChecksum>,
    /// For how long the backup has been running, over all its runs.
    pub elapsed: Duration,
}

/// The checksum of a table with all its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableChecksum {
    /// The table.
    pub table: TableId,
    /// Its checksum.
    pub stats: KvStats,
}

#[derive(Deserialize, Serialize)]
struct FileJson {
    #[serde(with = "json::base64")]
    content: Vec<u8>,
    #[serde(with = "json::base64")]
    checksum: Vec<u8>,
    #[serde(rename = "dure-time")]
    elapsed_ns: u64,
}

#[derive(Deserialize, Serialize)]
struct ItemsJson {
    #[serde(rename = "checksum-items")]
    items: Vec<ItemJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ItemJson {
    table_id: i64,
    crc64_xor: u64,
    total_kvs: u64,
    total_bytes: u64,
}

impl ResumeChecksums {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ResumeError`]; the file may be left out then.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<ResumeChecksums, ResumeError> {
        let malformed = |error| ResumeError::malformed(object, error);
        let file: FileJson = serde_json::from_slice(bytes).map_err(malformed)?;
        if Sha256::digest(&file.content).as_slice() != file.checksum {
            return Err(ResumeError::Checksum {
                object: object.to_owned(),
            });
        }
        let items: ItemsJson = serde_json::from_slice(&file.content).map_err(malformed)?;
        let table = |item: ItemJson| TableChecksum {
            table: TableId(item.table_id),
            stats: KvStats {
                crc64_xor: item.crc64_xor,
                total_kvs: item.total_kvs,
                total_bytes: item.total_bytes,
            },
        };
        Ok(ResumeChecksums {
            tables: items.items.into_iter().map(table).collect(),
            elapsed: Duration::from_nanos(file.elapsed_ns),
        })
    }

    /// The bytes of a file.
    pub fn encode(&self) -> Bytes {
        let item = |checksum: &TableChecksum| ItemJson {
            table_id: checksum.table.0,
            crc64_xor: checksum.stats.crc64_xor,
            total_kvs: checksum.stats.total_kvs,
            total_bytes: checksum.stats.total_bytes,
        };
        let content = json::encode(&ItemsJson {
            items: self.tables.iter().map(item).collect(),
        });
        json::encode(&FileJson {
            checksum: Sha256::digest(&content).to_vec(),
            content: content.into(),
            elapsed_ns: super::ranges::nanos(self.elapsed),
        })
    }
}
