//! Timestamps, ids, keys, ranges and error kinds: the words that every other crate uses.
//!
//! Pure data: no I/O, no clock, no async. Encoding of keys lives in `br-codec`.

mod cf;
mod code;
mod error;
mod id;
mod key;
mod range;
mod region;
mod timestamp;

pub use cf::Cf;
pub use code::Code;
pub use error::{Classify, Kind};
pub use id::{ClusterId, DbId, IndexId, PeerId, RegionId, StoreId, TableId};
pub use key::{DataKey, EncodedKey, RawKey};
pub use range::KeyRange;
pub use region::RegionEpoch;
pub use timestamp::TimeStamp;
