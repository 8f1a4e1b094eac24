//! `backupmeta`: the index of a backup.
//!
//! # What it does
//! Reads and writes `backupmeta` and the meta files that it points to, in both layouts: V1 has all
//! items in `backupmeta` itself, V2 in meta files of up to 128 MiB, each with its SHA-256 in an
//! index. No I/O: the writer yields objects, the reader names the objects that it wants next.
//!
//! # Ordering and invariants
//! `backupmeta` is written after everything that it points to, so a backup exists exactly when it
//! does. Its own bytes have no checksum in them; what they say is checked by what they point to, and
//! [`sum_of`] adds an object with their SHA-256.
//!
//! # After a crash
//! Meta files without a `backupmeta` mean nothing; the next run writes over them.

mod data_file;
mod error;
mod head;
pub(crate) mod index;
mod node;
mod reader;
mod sum;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use data_file::DataFile;
pub use error::MetaError;
pub use head::{BackupHead, Content, RawRange, SCHEMA_VERSION};
pub use index::{METAFILE_READ_SIZE_BYTES_MAX, ObjectRef};
pub use node::MetaNode;
use reader::check_unknown;
pub use reader::{BackupMeta, MetaWalk};
pub use sum::{check_sum, sum_of};
pub use writer::{METAFILE_SIZE_BYTES_MAX, MetaWriter};

/// Indexes within indexes that are followed. All known tools write one level.
pub const INDEX_DEPTH_MAX: usize = 8;

/// Where a backup has its items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// In `backupmeta` itself: raw and transactional backups, and `--use-backupmeta-v2=false`.
    V1,
    /// In meta files.
    #[default]
    V2,
}

impl Layout {
    const fn number(self) -> i32 {
        match self {
            Layout::V1 => 0,
            Layout::V2 => 1,
        }
    }
}

/// What to do about a backup that a newer tool made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compatibility {
    /// Refuse it: ignoring what is new could lose data.
    #[default]
    Strict,
    /// Read what is known (`--check-requirements=false`).
    Lenient,
}
