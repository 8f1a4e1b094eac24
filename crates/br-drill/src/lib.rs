//! Rehearses restores: a backup, and the log on top of it, into a cluster of this process.
//!
//! # What it does
//! [`rehearse`] restores into an empty embedded cluster as `br restore` would, reads the tables back
//! and compares their contents with sums that were computed without the cluster. [`drill`] does so
//! at a random point of those that the objects prove, and measures.
//!
//! # Objects it reads and writes
//! Reads the backup and the log, and writes nothing there: not even the lock or the ids that a
//! restore leaves. The cluster's data lies in a folder of its own below
//! [`RehearsalOptions::temp_dir`], which is removed at the end.
//!
//! # Ordering and invariants
//! What is compared is not computed by what is tested: rows at a point come from the offline reader
//! of backup and log, and so do those of an incremental backup; those of a full backup alone come from the sums that the
//! stores wrote into its index. Keys of indexes at a point are made from the rows once more.
//!
//! # Cancellation
//! That of the restore; the cluster is stopped and its folder removed.
//!
//! # After a crash
//! The folder `br-rehearsal-*` stays below the folder for temporary files.

mod clock;
mod compare;
mod drill;
mod error;
mod indexes;
mod rehearse;
mod scratch;
mod site;

pub use clock::PhaseTime;
pub use drill::{DrillOptions, Drilled, drill};
pub use error::DrillError;
pub use rehearse::{Compared, Place, Rehearsal, RehearsalOptions, Sources, What, rehearse};
