//! Values as text, by the column's type.

use std::fmt::Write as _;

use br_codec::{DecodeError, number::read_f64};

use super::{Datum, RowError, decimal, json, time};
use crate::schema::{ColumnInfo, FieldType, tp};

const WHAT: &str = "value";

/// Reads the bytes that a row of the new format has for a column.
pub(super) fn read_compact<'a>(
    field: &FieldType,
    bytes: &'a [u8],
) -> Result<Datum<'a>, DecodeError> {
    Ok(match field.tp {
        tp::TINY | tp::SHORT | tp::INT24 | tp::LONG | tp::LONGLONG if field.is_unsigned() => {
            Datum::Uint(uint(bytes)?)
        }
        tp::TINY | tp::SHORT | tp::INT24 | tp::LONG | tp::LONGLONG | tp::YEAR => {
            Datum::Int(int(bytes)?)
        }
        tp::FLOAT | tp::DOUBLE => Datum::Float(read_f64(&mut &*bytes)?),
        tp::NEW_DECIMAL => Datum::Decimal(decimal::read(&mut &*bytes)?),
        tp::DATE | tp::DATETIME | tp::TIMESTAMP | tp::ENUM | tp::SET | tp::BIT => {
            Datum::Uint(uint(bytes)?)
        }
        tp::DURATION => Datum::DurationNs(int(bytes)?),
        tp::JSON => Datum::Json(bytes),
        tp::VECTOR => Datum::Vector(bytes),
        _ => Datum::Bytes(bytes.into()),
    })
}

/// Little-endian in 1, 2, 4 or 8 bytes.
pub(super) fn uint(bytes: &[u8]) -> Result<u64, DecodeError> {
    match bytes.len() {
        1 | 2 | 4 | 8 => Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))),
        _ => Err(DecodeError::new(
            WHAT,
            "its number does not have 1, 2, 4 or 8 bytes",
        )),
    }
}

/// The same with a sign.
pub(super) fn int(bytes: &[u8]) -> Result<i64, DecodeError> {
    let value = uint(bytes)?;
    let unused = 64 - 8 * bytes.len() as u32;
    Ok((value << unused).cast_signed() >> unused)
}

/// The value of a column as text; `None`: NULL.
pub(super) fn text(column: &ColumnInfo, datum: &Datum<'_>) -> Result<Option<String>, RowError> {
    let field = &column.field_type;
    if !is_known(field.tp) {
        return Err(RowError::UnknownType {
            column: column.name.original.clone(),
            tp: field.tp,
        });
    }
    match datum {
        Datum::Null => Ok(None),
        datum => not_null(field, datum)
            .map(Some)
            .map_err(|source| RowError::Column {
                column: column.name.original.clone(),
                source,
            }),
    }
}

fn is_known(number: u8) -> bool {
    FieldType {
        tp: number,
        ..FieldType::default()
    }
    .name()
        != "unknown"
}

fn not_null(field: &FieldType, datum: &Datum<'_>) -> Result<String, DecodeError> {
    let fraction_digits = usize::try_from(field.decimal).unwrap_or(0).min(6);
    Ok(match (field.tp, datum) {
        (tp::YEAR, _) => format!("{:04}", whole(datum)?),
        (tp::TINY | tp::SHORT | tp::INT24 | tp::LONG | tp::LONGLONG, _) => {
            let value = whole(datum)?;
            if field.is_unsigned() {
                value.to_string()
            } else {
                value.cast_signed().to_string()
            }
        }
        // Shortest digits that give the same number, never with an exponent.
        (tp::FLOAT, Datum::Float(value)) => (*value as f32).to_string(),
        (tp::DOUBLE, Datum::Float(value)) => value.to_string(),
        (tp::NEW_DECIMAL, Datum::Decimal(text)) => text.clone(),
        (tp::DATE, _) => time::DateTime::from_packed(whole(datum)?).date_text(),
        (tp::DATETIME | tp::TIMESTAMP, _) => {
            time::DateTime::from_packed(whole(datum)?).text(fraction_digits)
        }
        (tp::DURATION, Datum::DurationNs(nanos) | Datum::Int(nanos)) => {
            time::duration_text(*nanos, fraction_digits)
        }
        // Zero is the empty string that MySQL has for a name that it does not know.
        (tp::ENUM, _) => name_of(field, whole(datum)?).unwrap_or_default().to_owned(),
        (tp::SET, _) => set_text(field, whole(datum)?)?,
        (tp::BIT, _) => format!("{:X}", whole(datum)?),
        (tp::JSON, Datum::Json(stored)) => json::text(stored)?,
        (tp::VECTOR, Datum::Vector(stored)) => vector_text(stored)?,
        (_, Datum::Bytes(bytes)) if field.is_binary_string() => upper_hex(bytes),
        (_, Datum::Bytes(bytes)) => std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::new(WHAT, "its text is not UTF-8"))?
            .to_owned(),
        _ => return Err(DecodeError::new(WHAT, "it is stored as another type")),
    })
}

/// The 64 bits of a number, with or without sign.
fn whole(datum: &Datum<'_>) -> Result<u64, DecodeError> {
    match datum {
        Datum::Int(value) => Ok(value.cast_unsigned()),
        Datum::Uint(value) => Ok(*value),
        _ => Err(DecodeError::new(WHAT, "it is not stored as a whole number")),
    }
}

/// The name with that number; they count from 1.
fn name_of(field: &FieldType, number: u64) -> Option<&str> {
    let at = usize::try_from(number.checked_sub(1)?).ok()?;
    field.elems.get(at).map(String::as_str)
}

fn set_text(field: &FieldType, bits: u64) -> Result<String, DecodeError> {
    let mut names = Vec::new();
    for bit in 0..64 {
        if bits >> bit & 1 == 1 {
            let name = name_of(field, bit + 1);
            names.push(name.ok_or(DecodeError::new(WHAT, "it has a name that its SET has not"))?);
        }
    }
    Ok(names.join(","))
}

fn vector_text(stored: &[u8]) -> Result<String, DecodeError> {
    let (count, rest) = stored
        .split_first_chunk::<4>()
        .ok_or(DecodeError::new("vector", "it has no length"))?;
    let (numbers, tail) = rest.as_chunks::<4>();
    if !tail.is_empty() || u32::from_le_bytes(*count) as usize != numbers.len() {
        return Err(DecodeError::new("vector", "its length is wrong"));
    }
    let mut out = String::from("[");
    for (at, number) in numbers.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{}", f32::from_le_bytes(*number))
            .expect("writing to a string cannot fail");
    }
    out.push(']');
    Ok(out)
}

/// Bytes as hexadecimal.
pub(super) fn upper_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    out
}
