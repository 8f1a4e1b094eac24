//! Keys under `m`, where TiDB keeps schemas, counters and jobs.
//!
//! ```text
//! 'm' memcomparable(name) BE8(kind) rest
//! kind 's' string         no rest
//!      'h' hash field     memcomparable(field)
//!      'H' hash head      no rest (old clusters)
//!      'l' list element   i64(index)
//!      'L' list head      no rest
//! ```
//! All raw keys. Names and fields are ASCII in practice and bytes here.

use br_codec::{
    DecodeError,
    bytes::{decode, encode_into},
    number::{read_i64, read_u64, write_i64, write_u64},
};
use br_types::{DbId, KeyRange, RawKey, TableId};

/// What every meta key begins with.
pub const META_PREFIX: u8 = b'm';
const WHAT: &str = "meta key";

/// Hash of the databases; fields [`db_field`], values DBInfo.
pub const DATABASES: &[u8] = b"DBs";
/// String: the last id given out for databases, tables and partitions, decimal.
pub const NEXT_GLOBAL_ID: &[u8] = b"NextGlobalID";
/// String: the schema version, decimal.
pub const SCHEMA_VERSION: &[u8] = b"SchemaVersionKey";
/// Hash of the placement policies; fields [`policy_field`], values [`POLICY_MAGIC`] and PolicyInfo.
pub const POLICIES: &[u8] = b"Policies";
/// String: the last id given out for placement policies, decimal.
pub const POLICY_GLOBAL_ID: &[u8] = b"PolicyGlobalID";
/// Hash of the finished DDL jobs; fields are 8 bytes, the job's id.
pub const DDL_JOB_HISTORY: &[u8] = b"DDLJobHistory";
/// What the value of a placement policy begins with.
pub const POLICY_MAGIC: u8 = 0;

/// A meta key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// A value of its own.
    String {
        /// Its name.
        name: Vec<u8>,
    },
    /// A field of a hash.
    HashField {
        /// The hash.
        name: Vec<u8>,
        /// The field.
        field: Vec<u8>,
    },
    /// The number of fields of a hash; written by old clusters.
    HashHead {
        /// The hash.
        name: Vec<u8>,
    },
    /// An element of a list.
    ListElement {
        /// The list.
        name: Vec<u8>,
        /// Its place; does not begin at 0.
        index: i64,
    },
    /// First and last place of a list.
    ListHead {
        /// The list.
        name: Vec<u8>,
    },
}

impl MetaKey {
    /// Takes a raw key apart.
    ///
    /// # Errors
    /// It is not a meta key.
    pub fn parse(raw: &[u8]) -> Result<Self, DecodeError> {
        let mut input = raw
            .strip_prefix(&[META_PREFIX])
            .ok_or(DecodeError::new(WHAT, "it does not begin with 'm'"))?;
        let name = decode(&mut input)?;
        let kind = read_u64(&mut input)?;
        let key = match u8::try_from(kind) {
            Ok(b's') => MetaKey::String { name },
            Ok(b'h') => MetaKey::HashField {
                name,
                field: decode(&mut input)?,
            },
            Ok(b'H') => MetaKey::HashHead { name },
            Ok(b'l') => MetaKey::ListElement {
                name,
                index: read_i64(&mut input)?,
            },
            Ok(b'L') => MetaKey::ListHead { name },
            _ => return Err(DecodeError::new(WHAT, "its kind is not known")),
        };
        if input.is_empty() {
            Ok(key)
        } else {
            Err(DecodeError::new(WHAT, "something follows it"))
        }
    }

    /// The raw key.
    pub fn to_raw(&self) -> RawKey {
        match self {
            MetaKey::String { name } => string_key(name),
            MetaKey::HashField { name, field } => hash_key(name, field),
            MetaKey::HashHead { name } => RawKey::from(head(name, b'H')),
            MetaKey::ListElement { name, index } => {
                let mut key = head(name, b'l');
                write_i64(&mut key, *index);
                RawKey::from(key)
            }
            MetaKey::ListHead { name } => RawKey::from(head(name, b'L')),
        }
    }
}

fn head(name: &[u8], kind: u8) -> Vec<u8> {
    let mut key = vec![META_PREFIX];
    encode_into(&mut key, name);
    write_u64(&mut key, u64::from(kind));
    key
}

/// The key of a string.
pub fn string_key(name: &[u8]) -> RawKey {
    RawKey::from(head(name, b's'))
}

/// The key of a field of a hash.
pub fn hash_key(name: &[u8], field: &[u8]) -> RawKey {
    let mut key = head(name, b'h');
    encode_into(&mut key, field);
    RawKey::from(key)
}

/// The keys of all fields of a hash.
pub fn hash_range(name: &[u8]) -> KeyRange<RawKey> {
    let start = RawKey::from(head(name, b'h'));
    KeyRange {
        end: start.prefix_end(),
        start,
    }
}

/// Every meta key.
pub fn meta_range() -> KeyRange<RawKey> {
    KeyRange::new(vec![META_PREFIX], vec![META_PREFIX + 1])
}

/// The field of a database in [`DATABASES`], and the hash of its tables.
pub fn db_field(db: DbId) -> Vec<u8> {
    format!("DB:{db}").into_bytes()
}

/// The key of a database's DBInfo.
pub fn db_key(db: DbId) -> RawKey {
    hash_key(DATABASES, &db_field(db))
}

/// The key of a table's TableInfo.
pub fn table_key(db: DbId, table: TableId) -> RawKey {
    hash_key(&db_field(db), format!("Table:{table}").as_bytes())
}

/// A counter of a table, sequence or view, decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counter {
    /// The last row id; for tables whose AUTO_INCREMENT is not apart, of that too.
    RowId,
    /// The last AUTO_INCREMENT, of tables where it is apart from the row id.
    AutoIncrement,
    /// The last AUTO_RANDOM, without its shard bits.
    AutoRandom,
    /// The last value of a sequence.
    Sequence,
    /// How many times a sequence began anew.
    SequenceCycle,
}

impl Counter {
    /// Every counter.
    pub const EVERY: [Counter; 5] = [
        Counter::RowId,
        Counter::AutoIncrement,
        Counter::AutoRandom,
        Counter::Sequence,
        Counter::SequenceCycle,
    ];

    const ALL: [(Counter, &'static str); 5] = [
        (Counter::RowId, "TID"),
        (Counter::AutoIncrement, "IID"),
        (Counter::AutoRandom, "TARID"),
        (Counter::Sequence, "SID"),
        (Counter::SequenceCycle, "SequenceCycle"),
    ];

    fn prefix(self) -> &'static str {
        match self {
            Counter::RowId => "TID",
            Counter::AutoIncrement => "IID",
            Counter::AutoRandom => "TARID",
            Counter::Sequence => "SID",
            Counter::SequenceCycle => "SequenceCycle",
        }
    }
}

/// The key of a counter.
pub fn counter_key(db: DbId, table: TableId, counter: Counter) -> RawKey {
    hash_key(
        &db_field(db),
        format!("{}:{table}", counter.prefix()).as_bytes(),
    )
}

/// The key of the SchemaDiff that led to a schema version.
pub fn schema_diff_key(version: i64) -> RawKey {
    string_key(format!("Diff:{version}").as_bytes())
}

/// The field of a placement policy in [`POLICIES`].
pub fn policy_field(policy: i64) -> Vec<u8> {
    format!("Policy:{policy}").into_bytes()
}

/// The field of a DDL job in [`DDL_JOB_HISTORY`].
pub fn job_field(job: i64) -> Vec<u8> {
    job.to_be_bytes().to_vec()
}

/// The job that a field of [`DDL_JOB_HISTORY`] names.
pub fn parse_job_field(field: &[u8]) -> Option<i64> {
    field.try_into().ok().map(i64::from_be_bytes)
}

/// The database that a hash or a field of [`DATABASES`] names.
pub fn parse_db_field(field: &[u8]) -> Option<DbId> {
    decimal_after(field, "DB").map(DbId)
}

/// What a field of a database's hash names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbField {
    /// The TableInfo of a table, view or sequence.
    Table(TableId),
    /// One of its counters.
    Counter(TableId, Counter),
}

/// What a field of a database's hash names; `None`: something else.
pub fn parse_table_field(field: &[u8]) -> Option<DbField> {
    if let Some(id) = decimal_after(field, "Table") {
        return Some(DbField::Table(TableId(id)));
    }
    Counter::ALL.iter().find_map(|(counter, prefix)| {
        decimal_after(field, prefix).map(|id| DbField::Counter(TableId(id), *counter))
    })
}

fn decimal_after(field: &[u8], prefix: &str) -> Option<i64> {
    let digits = field.strip_prefix(prefix.as_bytes())?.strip_prefix(b":")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_keys() {
        assert_eq!(
            string_key(b"NextGlobalID").as_bytes(),
            b"mNextGlob\xFFalID\0\0\0\0\xFB\0\0\0\0\0\0\0s"
        );
        assert_eq!(
            table_key(DbId(1), TableId(5)).as_bytes(),
            b"mDB:1\0\0\0\0\xFB\0\0\0\0\0\0\0hTable:5\0\xFE"
        );
    }

    #[test]
    fn fields_come_back() {
        assert_eq!(parse_db_field(&db_field(DbId(12))), Some(DbId(12)));
        assert_eq!(
            parse_table_field(b"Table:7"),
            Some(DbField::Table(TableId(7)))
        );
        for (counter, _) in Counter::ALL {
            let key = counter_key(DbId(1), TableId(9), counter);
            let Ok(MetaKey::HashField { name, field }) = MetaKey::parse(key.as_bytes()) else {
                panic!("not a field");
            };
            assert_eq!(parse_db_field(&name), Some(DbId(1)));
            assert_eq!(
                parse_table_field(&field),
                Some(DbField::Counter(TableId(9), counter))
            );
        }
        assert_eq!(parse_job_field(&job_field(300)), Some(300));
        assert_eq!(parse_table_field(b"Table:x"), None);
        assert_eq!(parse_table_field(b"TID7"), None);
    }

    proptest! {
        #[test]
        fn keys_come_back(name: Vec<u8>, field: Vec<u8>, index: i64) {
            for key in [
                MetaKey::String { name: name.clone() },
                MetaKey::HashField { name: name.clone(), field },
                MetaKey::HashHead { name: name.clone() },
                MetaKey::ListElement { name: name.clone(), index },
                MetaKey::ListHead { name },
            ] {
                let raw = key.to_raw();
                prop_assert!(meta_range().contains(&raw));
                prop_assert_eq!(MetaKey::parse(raw.as_bytes()), Ok(key));
            }
        }

        #[test]
        fn noise_never_panics(mut noise: Vec<u8>) {
            let _ = MetaKey::parse(&noise);
            noise.insert(0, META_PREFIX);
            let _ = MetaKey::parse(&noise);
        }
    }
}
