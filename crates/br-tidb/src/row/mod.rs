//! Rows: from the key and value of a row to text, as SQL shows it.
//!
//! Text is what `CAST(x AS CHAR)` gives with time zone `+00:00`; bytes (BINARY, VARBINARY, the
//! BLOBs, BIT) are upper-case hexadecimal as `HEX(x)` gives it.

mod datum;
mod decimal;
mod decoder;
mod error;
mod json;
mod text;
mod time;
mod value;

pub use datum::Datum;
pub use decoder::RowDecoder;
pub use error::RowError;

#[cfg(test)]
mod tests;
