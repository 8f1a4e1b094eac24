//! The damage matrix: objects of golden backups and logs are flipped, cut, removed and swapped, and
//! each time `verify` has to name the object and what it costs, or the damage has to be one that
//! changes nothing. `DAMAGE_SEED=n` takes other bytes, `DAMAGE_BYTES=n` more of them; `DAMAGE_TABLE`
//! names a file for the matrix as text.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod backups;
mod logs;
mod place;
mod sealed_storage;
mod silent;
mod table;
