//! Everything that lies on external storage, as bytes and as types.
//!
//! Pure: bytes come in, bytes go out; the caller reads and writes the objects and draws the
//! random initialization vectors. What is read here is checked: sizes, SHA-256, protobuf fields and
//! versions that a newer tool may have added. `docs/formats/snapshot.md` describes the layouts.
//!
//! - [`names`]: names of all objects, and which of them may be overwritten;
//! - [`backupmeta`]: the index of a backup, both layouts, reading and writing;
//! - [`schema`], [`stats`]: what a backup says about tables;
//! - [`crypter`]: encryption of all of them; [`master_key`]: keys under other keys;
//! - [`resume`]: files from which an interrupted backup goes on;
//! - [`kv_stats`]: sums that prove a table complete;
//! - [`log`]: everything of a log backup;
//! - [`sealed`]: a layer below all of these, encrypted and authenticated.

pub mod backup_lock;
pub mod backupmeta;
pub mod crypter;
pub mod kv_stats;
pub mod log;
pub mod master_key;
pub mod names;
pub mod resume;
pub mod schema;
pub mod sealed;
pub mod stats;
mod wire;

/// An object to write to external storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The name below the prefix of the backup; see [`names`].
    pub name: String,
    /// The content, encrypted already.
    pub bytes: bytes::Bytes,
}
