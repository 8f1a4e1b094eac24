//! Locks on external storage: `truncating.lock`, and those of migrations.
//!
//! # Ordering and invariants
//! To take a lock object `T`: see that nothing stands in the way, write an *intent*
//! (`T.INTENT.…`, whose content is nobody's concern but that of this tool), see again that there is no other intent, write `T`, remove the intent. Of
//! two that do this at once at most one wins, if listing shows what has been written.
//! - readers write `{place}.READ.{16 hex digits}`; a `{place}.WRIT` stands in their way;
//! - a writer writes `{place}.WRIT`; every other object `{place}.…` stands in its way.
//!
//! # After a crash
//! Locks do not expire. Their content says who left them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::LogFormatError;
use super::time::rfc3339;

/// Draws the line between one lock and another of the same kind: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockId(pub [u8; 16]);

/// What a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPurpose {
    /// The log is cut off.
    Truncate,
    /// Migrations are read, and must stay.
    MigrationRead,
    /// Migrations are merged.
    MigrationWrite,
    /// A migration is appended.
    MigrationAppend,
    /// A compaction is made.
    Compaction,
}

impl LockPurpose {
    /// As it stands in the lock.
    pub const fn name(self) -> &'static str {
        match self {
            LockPurpose::Truncate => "log-truncate-exclusive",
            LockPurpose::MigrationRead => "migration-read",
            LockPurpose::MigrationWrite => "migration-write",
            LockPurpose::MigrationAppend => "migration-append",
            LockPurpose::Compaction => "compaction",
        }
    }
}

/// Who holds a lock, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LockContent {
    /// When it was taken, as text.
    pub locked_at: String,
    /// The host of its holder.
    pub locker_host: String,
    /// The process of its holder.
    pub locker_pid: i64,
    /// Which lock it is.
    #[serde(
        rename = "txn_id",
        serialize_with = "write_id",
        deserialize_with = "read_id"
    )]
    pub id: LockId,
    /// Who holds it, beyond one lock.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner_id: String,
    /// What it is for; see [`LockPurpose::name`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock_type: String,
    /// For people.
    #[serde(default)]
    pub hint: String,
    /// When the process started, in clock ticks since its machine did; 0: not known. Other tools
    /// neither write nor read it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_ticks: u64,
    /// In which space of process numbers it runs, for other processes there; empty: not known. Other
    /// tools neither write nor read it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pid_space: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// As the official tool writes it; stores write a UUID, and take no lock but their own.
fn write_id<S: Serializer>(id: &LockId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(id.0))
}

fn read_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LockId, D::Error> {
    let text = String::deserialize(deserializer)?;
    let uuid: String = text.chars().filter(|char| *char != '-').collect();
    STANDARD
        .decode(&text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .or_else(|| hex::decode(uuid).ok()?.try_into().ok())
        .map(LockId)
        .ok_or_else(|| D::Error::custom("the id of the lock has not 16 bytes"))
}

impl LockContent {
    /// A lock taken now.
    pub fn new(
        purpose: LockPurpose,
        id: LockId,
        now_unix_ms: u64,
        (host, pid): (String, u32),
        hint: String,
    ) -> LockContent {
        LockContent {
            locked_at: rfc3339(now_unix_ms),
            locker_host: host,
            locker_pid: i64::from(pid),
            id,
            owner_id: String::new(),
            lock_type: purpose.name().to_owned(),
            hint,
            start_ticks: 0,
            pid_space: String::new(),
        }
    }

    /// Reads a lock, of any tool.
    ///
    /// # Errors
    /// It is not JSON of the right form.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<LockContent, LogFormatError> {
        serde_json::from_slice(bytes)
            .map_err(|error| LogFormatError::malformed(object, error.to_string()))
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers have a JSON form")
    }
}

/// The lock of a writer at a place.
pub fn write_lock(place: &str) -> String {
    format!("{place}.WRIT")
}

/// The lock of one of the readers at a place.
pub fn read_lock(place: &str, random: u64) -> String {
    format!("{place}.READ.{random:016x}")
}

/// The intent to write a lock object.
pub fn intent(lock: &str, id: LockId) -> String {
    format!("{lock}.INTENT.{}", hex::encode(id.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_both_tools_are_read() {
        let of_a_tool = br#"{"locked_at":"2026-08-21T10:00:00.5+08:00","locker_host":"h",
            "locker_pid":7,"txn_id":"AAECAwQFBgcICQoLDA0ODw==","hint":"x"}"#;
        let of_a_store = br#"{"locked_at":"2026-08-21T02:00:00Z","locker_host":"h","locker_pid":7,
            "txn_id":"00010203-0405-0607-0809-0a0b0c0d0e0f","hint":"x"}"#;
        for bytes in [&of_a_tool[..], of_a_store] {
            let lock = LockContent::decode("v1/LOCK.WRIT", bytes).unwrap();
            assert_eq!(lock.id.0, std::array::from_fn(|i| u8::try_from(i).unwrap()));
            assert_eq!(LockContent::decode("x", &lock.encode()).unwrap(), lock);
        }
        assert!(LockContent::decode("x", br#"{"txn_id":"00"}"#).is_err());
    }

    #[test]
    fn content_and_names() {
        let id = LockId([0xAB; 16]);
        let from = ("host".to_owned(), 12);
        let lock = LockContent::new(LockPurpose::Truncate, id, 0, from, "why".into());
        let json = r#"{"locked_at":"1970-01-01T00:00:00Z","locker_host":"host","locker_pid":12,"txn_id":"q6urq6urq6urq6urq6urqw==","lock_type":"log-truncate-exclusive","hint":"why"}"#;
        assert_eq!(String::from_utf8(lock.encode()).unwrap(), json);
        assert_eq!(write_lock("v1/LOCK"), "v1/LOCK.WRIT");
        assert_eq!(read_lock("v1/LOCK", 10), "v1/LOCK.READ.000000000000000a");
        let intent = intent("truncating.lock", id);
        assert_eq!(
            intent,
            "truncating.lock.INTENT.abababababababababababababababab"
        );
    }
}
