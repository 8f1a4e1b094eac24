//! Rows: from the key and value of a row to text, as SQL shows it, and to entries of indexes; and from
//! the values of its columns to its key, value and entries.
//!
//! Text is what `CAST(x AS CHAR)` gives with time zone `+00:00`; bytes (BINARY, VARBINARY, the
//! BLOBs, BIT) are upper-case hexadecimal as `HEX(x)` gives it.

mod copier;
mod datum;
mod decimal;
mod decoder;
mod encoder;
mod error;
mod from_text;
mod general_ci;
mod index_entry;
mod json;
mod stored_row;
mod text;
mod time;
mod value;

pub use copier::{IncompatibleColumn, RowCopier};
pub use datum::Datum;
pub use decoder::RowDecoder;
pub use encoder::{IndexEntry, RowEncoder};
pub use error::RowError;
pub use index_entry::{IndexEncoder, UnsupportedIndex};
pub use json::without_key as json_without_key;
pub use stored_row::StoredRow;

#[cfg(test)]
mod tests;
