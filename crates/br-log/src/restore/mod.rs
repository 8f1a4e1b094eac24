//! Restore to a point in time: a full backup, and the log after it.
//!
//! | step | where |
//! |---|---|
//! | what of the log is needed | [`crate::read`] |
//! | schemas at the point | `schema_changes` (what the log says), `schema_state` (on top of the backup) |
//! | events of the wanted tables | `load` reads, `rewrite` moves keys, `sort` sorts, `versions` joins both column families |
//! | into the cluster | `ingest`, in `parts`; or `apply`, where the stores read the log |
//! | entries of indexes that are not in the log | `added_indexes` finds them, `rebuild` makes them from rows |
//! | the log without a cluster | [`offline`] |
//! | the whole | `point`; `log_changes` is the log as a layer over a restore of a full backup |

mod added_indexes;
mod apply;
mod covered;
mod earlier;
mod error;
mod gc_hold;
mod id_map;
mod ingest;
mod load;
mod log_changes;
pub mod offline;
mod options;
mod parts;
mod point;
mod rebuild;
mod rewrite;
mod schema_changes;
mod schema_state;
mod sort;
mod versions;

pub use added_indexes::LeftOutIndex;
pub use error::PointError;
pub use id_map::forget_ids;
pub use ingest::IngestTotals;
pub use options::{Method, PointOptions, PointTarget, SORT_MEMORY_BYTES_DEFAULT};
pub use point::{PointLoad, PointPlan, PointSummary, plan, restore};
