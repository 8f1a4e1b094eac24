//! Blocklists: what a restore into a cluster that has a log backup itself leaves behind.
//!
//! Such a restore writes through raft, with timestamps of the past, so that the log of the target
//! has its rows only in part. A later restore from that log, of the named tables, to a point after
//! the first restore began and from before it ended, must be refused.

use br_types::{DbId, TableId, TimeStamp};
use prost::Message;
use sha2::{Digest, Sha256};

use super::LogFormatError;
use super::names::BLOCKLIST_FOLDER;

/// What a restore left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocklist {
    /// When the restore was done: a full backup from then on has everything.
    pub restore_commit_ts: TimeStamp,
    /// When it began.
    pub restore_start_ts: TimeStamp,
    /// The timestamp of the schemas that it wrote.
    pub rewrite_ts: TimeStamp,
    /// Tables and partitions that it made, ids of the target.
    pub tables: Vec<TableId>,
    /// Databases that it made, ids of the target.
    pub dbs: Vec<DbId>,
}

/// No part of the published protocol; numbers as all tools have them.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint64, tag = "1")]
    restore_commit_ts: u64,
    #[prost(int64, repeated, tag = "3")]
    table_ids: Vec<i64>,
    #[prost(bytes = "vec", tag = "4")]
    checksum: Vec<u8>,
    #[prost(int64, repeated, tag = "5")]
    db_ids: Vec<i64>,
    #[prost(uint64, tag = "6")]
    rewrite_ts: u64,
    #[prost(uint64, tag = "7")]
    restore_start_ts: u64,
}

impl Blocklist {
    /// Its name, which says when it matters.
    pub fn name(&self) -> String {
        format!(
            "{BLOCKLIST_FOLDER}/R{:016X}_S{:016X}.meta",
            self.restore_commit_ts.0, self.restore_start_ts.0
        )
    }

    /// [`Blocklist::restore_commit_ts`] and [`Blocklist::restore_start_ts`] of a name; none if it
    /// is no such name.
    pub fn parse_name(name: &str) -> Option<(TimeStamp, TimeStamp)> {
        let stem = name
            .strip_prefix(BLOCKLIST_FOLDER)?
            .strip_prefix("/R")?
            .strip_suffix(".meta")?;
        let (commit, start) = stem.split_once("_S")?;
        let hex = |digits: &str| {
            let is_hex = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
                .map(TimeStamp)
        };
        Some((hex(commit)?, hex(start)?))
    }

    /// Whether a restore from a full backup at `start_ts` up to `restored_ts` would take its tables
    /// in part.
    pub fn matters(&self, start_ts: TimeStamp, restored_ts: TimeStamp) -> bool {
        start_ts < self.restore_commit_ts && restored_ts >= self.restore_start_ts
    }

    fn checksum(&self) -> Vec<u8> {
        let mut sum = Sha256::new();
        for ts in [
            self.restore_commit_ts,
            self.restore_start_ts,
            self.rewrite_ts,
        ] {
            sum.update(ts.0.to_le_bytes());
        }
        for table in &self.tables {
            sum.update(table.0.to_le_bytes());
        }
        for db in &self.dbs {
            sum.update(db.0.to_le_bytes());
        }
        sum.finalize().to_vec()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`LogFormatError::Malformed`], [`LogFormatError::Checksum`].
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Blocklist, LogFormatError> {
        let wire = Wire::decode(bytes)
            .map_err(|error| LogFormatError::malformed(object, error.to_string()))?;
        let list = Blocklist {
            restore_commit_ts: TimeStamp(wire.restore_commit_ts),
            restore_start_ts: TimeStamp(wire.restore_start_ts),
            rewrite_ts: TimeStamp(wire.rewrite_ts),
            tables: wire.table_ids.into_iter().map(TableId).collect(),
            dbs: wire.db_ids.into_iter().map(DbId).collect(),
        };
        let found = list.checksum();
        if found != wire.checksum {
            return Err(LogFormatError::Checksum {
                object: object.to_owned(),
                sum: "SHA-256",
                expected: hex::encode(wire.checksum),
                found: hex::encode(found),
            });
        }
        Ok(list)
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        Wire {
            restore_commit_ts: self.restore_commit_ts.0,
            table_ids: self.tables.iter().map(|table| table.0).collect(),
            checksum: self.checksum(),
            db_ids: self.dbs.iter().map(|db| db.0).collect(),
            rewrite_ts: self.rewrite_ts.0,
            restore_start_ts: self.restore_start_ts.0,
        }
        .encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_is_checked() {
        let list = Blocklist {
            restore_commit_ts: TimeStamp(0xAB),
            restore_start_ts: TimeStamp(7),
            rewrite_ts: TimeStamp(9),
            tables: vec![TableId(1), TableId(-2)],
            dbs: vec![DbId(3)],
        };
        let name = list.name();
        assert_eq!(
            name,
            "v1/log_restore_tables_blocklists/R00000000000000AB_S0000000000000007.meta"
        );
        let parsed = Blocklist::parse_name(&name);
        assert_eq!(parsed, Some((TimeStamp(0xAB), TimeStamp(7))));
        assert_eq!(Blocklist::parse_name("v1/x/R_S.meta"), None);
        let mut bytes = list.encode();
        assert_eq!(Blocklist::decode(&name, &bytes), Ok(list));
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        assert!(matches!(
            Blocklist::decode(&name, &bytes),
            Err(LogFormatError::Checksum { .. })
        ));
    }

    #[test]
    fn it_matters_to_restores_across_it() {
        let list = Blocklist {
            restore_commit_ts: TimeStamp(20),
            restore_start_ts: TimeStamp(10),
            ..Blocklist::default()
        };
        let cases = [
            ((5, 9), false),
            ((5, 10), true),
            ((19, 30), true),
            ((20, 30), false),
        ];
        for ((start, restored), expected) in cases {
            let matters = list.matters(TimeStamp(start), TimeStamp(restored));
            assert_eq!(matters, expected, "{start} {restored}");
        }
    }
}
