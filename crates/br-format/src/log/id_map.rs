//! Which ids a restore gave to what it restored, kept for the next restore that goes on from it.
//!
//! It lies in segments in a system table of the target, or in one object; see
//! [`crate::log::names::id_map`].

use br_proto::backup::{BackupMeta, IdMap, PitrDbMap, PitrTableMap};
use prost::Message;

use super::LogFormatError;

/// The size of a segment in `mysql.tidb_pitr_id_map`.
pub const SEGMENT_SIZE_BYTES: usize = 512 << 10;

/// An id in the source and in the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IdPair {
    /// In the cluster that was backed up.
    pub upstream: i64,
    /// In the cluster that was restored.
    pub downstream: i64,
}

/// A table and its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableIds {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: IdPair,
    /// The ids of its partitions.
    pub partitions: Vec<IdPair>,
    /// It was not restored.
    pub filtered_out: bool,
}

/// A database and its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbIds {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: IdPair,
    /// Its tables.
    pub tables: Vec<TableIds>,
    /// It was not restored.
    pub filtered_out: bool,
    /// It was there already: its own definition is not restored. Other tools lose this.
    pub reused: bool,
}

/// The ids that a restore gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoredIds {
    /// All databases.
    pub dbs: Vec<DbIds>,
}

impl RestoredIds {
    /// Reads them: the whole object, or all segments one after the other.
    ///
    /// # Errors
    /// They are damaged.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<RestoredIds, LogFormatError> {
        let meta = BackupMeta::decode(bytes)
            .map_err(|error| LogFormatError::malformed(object, error.to_string()))?;
        let dbs = meta.db_maps.into_iter().map(|db| DbIds {
            name: db.name,
            id: read_pair(db.id_map.as_ref()),
            tables: db.tables.into_iter().map(read_table).collect(),
            filtered_out: db.filtered_out,
            reused: db.reused,
        });
        Ok(RestoredIds { dbs: dbs.collect() })
    }

    /// The bytes of the object; cut into [`SEGMENT_SIZE_BYTES`] for the system table.
    pub fn encode(&self) -> Vec<u8> {
        let dbs = self.dbs.iter().map(|db| PitrDbMap {
            name: db.name.clone(),
            id_map: Some(write_pair(db.id)),
            tables: db.tables.iter().map(write_table).collect(),
            filtered_out: db.filtered_out,
            reused: db.reused,
        });
        BackupMeta {
            db_maps: dbs.collect(),
            ..BackupMeta::default()
        }
        .encode_to_vec()
    }
}

fn read_pair(pair: Option<&IdMap>) -> IdPair {
    pair.map_or(IdPair::default(), |pair| IdPair {
        upstream: pair.upstream_id,
        downstream: pair.downstream_id,
    })
}

fn write_pair(pair: IdPair) -> IdMap {
    IdMap {
        upstream_id: pair.upstream,
        downstream_id: pair.downstream,
    }
}

fn read_table(table: PitrTableMap) -> TableIds {
    TableIds {
        name: table.name,
        id: read_pair(table.id_map.as_ref()),
        partitions: table
            .partitions
            .iter()
            .map(|pair| read_pair(Some(pair)))
            .collect(),
        filtered_out: table.filtered_out,
    }
}

fn write_table(table: &TableIds) -> PitrTableMap {
    PitrTableMap {
        name: table.name.clone(),
        id_map: Some(write_pair(table.id)),
        partitions: table.partitions.iter().copied().map(write_pair).collect(),
        filtered_out: table.filtered_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        let pair = |upstream, downstream| IdPair {
            upstream,
            downstream,
        };
        let ids = RestoredIds {
            dbs: vec![DbIds {
                name: "shop".into(),
                id: pair(2, 102),
                tables: vec![TableIds {
                    name: "orders".into(),
                    id: pair(3, 103),
                    partitions: vec![pair(4, 104), pair(5, 105)],
                    filtered_out: true,
                }],
                filtered_out: false,
                reused: true,
            }],
        };
        assert_eq!(RestoredIds::decode("x", &ids.encode()), Ok(ids));
        assert!(RestoredIds::decode("x", b"\x80").is_err());
    }
}
