//! Rows: from the key and value of a row to text, as SQL shows it, and to entries of indexes.
//!
//! Text is what `CAST(x AS CHAR)` gives with time zone `+00:00`; bytes (BINARY, VARBINARY, the
//! BLOBs, BIT) are upper-case hexadecimal as `HEX(x)` gives it.

mod datum;
mod decimal;
mod decoder;
mod error;
mod index_entry;
mod json;
mod text;
mod time;
mod value;

pub use datum::Datum;
pub use decoder::RowDecoder;
pub use error::RowError;
pub use index_entry::{IndexEncoder, UnsupportedIndex};

#[cfg(test)]
mod tests;
