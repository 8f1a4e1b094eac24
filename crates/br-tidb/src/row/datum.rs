//! Values with a type flag before them: in keys, and in rows of the old format.

use std::borrow::Cow;

use br_codec::{
    DecodeError,
    bytes::{decode, read_compact},
    number::{read_f64, read_i64, read_slice, read_u8, read_u64, read_var_i64, read_var_u64},
};

use super::{decimal, json};

const WHAT: &str = "value";

/// A value as it is stored; what it means is up to the column's type.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum<'a> {
    /// NULL.
    Null,
    /// A signed number.
    Int(i64),
    /// An unsigned number; also times, ENUM, SET and BIT.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// Text or bytes.
    Bytes(Cow<'a, [u8]>),
    /// A decimal, as text.
    Decimal(String),
    /// A duration in nanoseconds.
    DurationNs(i64),
    /// Binary JSON, beginning with its type.
    Json(&'a [u8]),
    /// A vector, beginning with its length.
    Vector(&'a [u8]),
}

impl<'a> Datum<'a> {
    /// Reads a flag and the value after it.
    ///
    /// # Errors
    /// The flag is not known or the value is damaged.
    pub fn read(input: &mut &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match read_u8(input)? {
            0 => Datum::Null,
            1 => Datum::Bytes(Cow::Owned(decode(input)?)),
            2 => Datum::Bytes(Cow::Borrowed(read_compact(input)?)),
            3 => Datum::Int(read_i64(input)?),
            4 => Datum::Uint(read_u64(input)?),
            5 => Datum::Float(read_f64(input)?),
            6 => Datum::Decimal(decimal::read(input)?),
            7 => Datum::DurationNs(read_i64(input)?),
            8 => Datum::Int(read_var_i64(input)?),
            9 => Datum::Uint(read_var_u64(input)?),
            10 => {
                let len = json::stored_len(input)?;
                Datum::Json(read_slice(input, len)?)
            }
            20 => {
                let len = vector_len(input)?;
                Datum::Vector(read_slice(input, len)?)
            }
            _ => return Err(DecodeError::new(WHAT, "its type flag is not known")),
        })
    }
}

/// Bytes of the vector that `input` begins with.
fn vector_len(input: &[u8]) -> Result<usize, DecodeError> {
    let head = input
        .first_chunk::<4>()
        .ok_or(DecodeError::new("vector", "it has no length"))?;
    usize::try_from(u32::from_le_bytes(*head))
        .ok()
        .and_then(|count| count.checked_mul(4)?.checked_add(4))
        .ok_or(DecodeError::new("vector", "it is too long"))
}
