//! Binary JSON, as TiDB stores it, to the text that MySQL prints.
//!
//! ```text
//! document  type value
//! array     u32 count, u32 size, entries, values        all little-endian
//! object    u32 count, u32 size, key entries, entries, keys, values
//! key entry u32 offset, u16 length
//! entry     type, u32 offset; a literal lies in the entry itself
//! ```
//! Offsets count from the array's or object's beginning.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use br_codec::{DecodeError, number::read_var_u64};

use super::time::{DateTime, duration_text};

const WHAT: &str = "JSON value";
const OBJECT: u8 = 0x01;
const ARRAY: u8 = 0x03;
const LITERAL: u8 = 0x04;
const INT64: u8 = 0x09;
const UINT64: u8 = 0x0A;
const DOUBLE: u8 = 0x0B;
const STRING: u8 = 0x0C;
const OPAQUE: u8 = 0x0D;
const DATE: u8 = 0x0E;
const DATETIME: u8 = 0x0F;
const TIMESTAMP: u8 = 0x10;
const DURATION: u8 = 0x11;

/// Bytes before the entries of an array or object.
const HEAD_LEN: usize = 8;
const KEY_ENTRY_LEN: usize = 6;
const ENTRY_LEN: usize = 5;
/// TiDB allows 100 levels.
const DEPTH_MAX: usize = 128;

const SHORT: DecodeError = DecodeError::new(WHAT, "it ends too early");

/// The text of a document.
pub(super) fn text(stored: &[u8]) -> Result<String, DecodeError> {
    let (&tp, value) = stored.split_first().ok_or(SHORT)?;
    // Each value takes at least one byte of the document and each string its own: a document whose
    // offsets share values, so that its text would grow without bound, is damaged.
    let mut printer = Printer {
        out: String::new(),
        values: stored.len(),
        bytes: stored.len(),
    };
    printer.value(tp, value, 0)?;
    Ok(printer.out)
}

/// The document without a key of its outermost object, as `JSON_REMOVE` makes it; `None`: it has no
/// such key.
///
/// # Errors
/// The document is damaged.
pub fn without_key(stored: &[u8], unwanted: &str) -> Result<Option<Vec<u8>>, DecodeError> {
    let (&tp, object) = stored.split_first().ok_or(SHORT)?;
    if tp != OBJECT {
        return Ok(None);
    }
    let count = size_at(object, 0)?;
    let mut kept = Vec::new();
    let mut is_there = false;
    for at in 0..count {
        let entry = HEAD_LEN + at * KEY_ENTRY_LEN;
        let start = size_at(object, entry)?;
        let len = usize::from(u16::from_le_bytes(array_at(object, entry + 4)?));
        let key = object.get(start..).and_then(|rest| rest.get(..len));
        let key = key.ok_or(SHORT)?;
        if key == unwanted.as_bytes() {
            is_there = true;
            continue;
        }
        let entry = HEAD_LEN + count * KEY_ENTRY_LEN + at * ENTRY_LEN;
        let [tp, place @ ..] = array_at::<ENTRY_LEN>(object, entry)?;
        let value = match tp {
            LITERAL => None,
            _ => {
                let offset = usize::try_from(u32::from_le_bytes(place)).map_err(|_| SHORT)?;
                let value = object.get(offset..).ok_or(SHORT)?;
                let typed = [&[tp], value].concat();
                let len = stored_len(&typed)? - 1;
                Some(value.get(..len).ok_or(SHORT)?)
            }
        };
        kept.push((key, tp, place, value));
    }
    if !is_there {
        return Ok(None);
    }
    let keys_at = HEAD_LEN + kept.len() * (KEY_ENTRY_LEN + ENTRY_LEN);
    let keys_len: usize = kept.iter().map(|(key, ..)| key.len()).sum();
    let number = |value: usize| {
        u32::try_from(value)
            .map_err(|_| SHORT)
            .map(u32::to_le_bytes)
    };
    let (mut keys, mut entries) = (Vec::new(), Vec::new());
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (key, tp, place, value) in &kept {
        keys.extend(number(keys_at + names.len())?);
        keys.extend((key.len() as u16).to_le_bytes());
        names.extend_from_slice(key);
        entries.push(*tp);
        match value {
            None => entries.extend(place),
            Some(value) => {
                entries.extend(number(keys_at + keys_len + values.len())?);
                values.extend_from_slice(value);
            }
        }
    }
    let mut out = vec![OBJECT];
    out.extend(number(kept.len())?);
    out.extend(number(keys_at + names.len() + values.len())?);
    for part in [keys, entries, names, values] {
        out.extend(part);
    }
    Ok(Some(out))
}

/// Bytes of the document that `input` begins with.
pub(super) fn stored_len(input: &[u8]) -> Result<usize, DecodeError> {
    let (&tp, value) = input.split_first().ok_or(SHORT)?;
    let len = match tp {
        LITERAL => 1,
        INT64 | UINT64 | DOUBLE | DATE | DATETIME | TIMESTAMP => 8,
        DURATION => 12,
        STRING => prefixed_len(value)?,
        OPAQUE => 1 + prefixed_len(value.get(1..).ok_or(SHORT)?)?,
        OBJECT | ARRAY => size_at(value, 4)?,
        _ => return Err(DecodeError::new(WHAT, "its type is not known")),
    };
    len.checked_add(1).ok_or(SHORT)
}

/// Bytes of a varint length and what follows it.
fn prefixed_len(input: &[u8]) -> Result<usize, DecodeError> {
    let mut rest = input;
    let len = usize::try_from(read_var_u64(&mut rest)?).map_err(|_| SHORT)?;
    len.checked_add(input.len() - rest.len()).ok_or(SHORT)
}

fn prefixed(input: &[u8]) -> Result<&[u8], DecodeError> {
    let mut rest = input;
    let len = usize::try_from(read_var_u64(&mut rest)?).map_err(|_| SHORT)?;
    rest.get(..len).ok_or(SHORT)
}

fn array_at<const N: usize>(input: &[u8], at: usize) -> Result<[u8; N], DecodeError> {
    input
        .get(at..)
        .and_then(<[u8]>::first_chunk::<N>)
        .copied()
        .ok_or(SHORT)
}

fn size_at(input: &[u8], at: usize) -> Result<usize, DecodeError> {
    usize::try_from(u32::from_le_bytes(array_at(input, at)?)).map_err(|_| SHORT)
}

fn u64_of(value: &[u8]) -> Result<u64, DecodeError> {
    array_at(value, 0).map(u64::from_le_bytes)
}

struct Printer {
    out: String,
    /// How many more values may come.
    values: usize,
    /// How many more bytes of strings may come.
    bytes: usize,
}

impl Printer {
    fn value(&mut self, tp: u8, value: &[u8], depth: usize) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::new(WHAT, "it is nested too deeply"));
        }
        self.values = self
            .values
            .checked_sub(1)
            .ok_or(DecodeError::new(WHAT, "its values refer to each other"))?;
        match tp {
            OBJECT => self.object(value, depth)?,
            ARRAY => self.array(value, depth)?,
            LITERAL => self.out.push_str(match value.first() {
                Some(0) => "null",
                Some(1) => "true",
                Some(2) => "false",
                _ => return Err(DecodeError::new(WHAT, "it has a literal that is not known")),
            }),
            INT64 => self.print(u64_of(value)?.cast_signed()),
            UINT64 => self.print(u64_of(value)?),
            DOUBLE => self.double(f64::from_bits(u64_of(value)?))?,
            STRING => self.string(prefixed(value)?)?,
            OPAQUE => {
                let (&tp, rest) = value.split_first().ok_or(SHORT)?;
                let bytes = prefixed(rest)?;
                self.spend(bytes.len())?;
                self.print(format_args!("\"base64:type{tp}:{}\"", BASE64.encode(bytes)));
            }
            DATE => self.quoted(&DateTime::from_core(u64_of(value)?).date_text()),
            DATETIME | TIMESTAMP => self.quoted(&DateTime::from_core(u64_of(value)?).text(6)),
            DURATION => self.quoted(&duration_text(u64_of(value)?.cast_signed(), 6)),
            _ => return Err(DecodeError::new(WHAT, "it has a type that is not known")),
        }
        Ok(())
    }

    fn array(&mut self, array: &[u8], depth: usize) -> Result<(), DecodeError> {
        self.out.push('[');
        for at in 0..size_at(array, 0)? {
            if at > 0 {
                self.out.push_str(", ");
            }
            self.entry(array, HEAD_LEN + at * ENTRY_LEN, depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn object(&mut self, object: &[u8], depth: usize) -> Result<(), DecodeError> {
        let count = size_at(object, 0)?;
        self.out.push('{');
        for at in 0..count {
            if at > 0 {
                self.out.push_str(", ");
            }
            let entry = HEAD_LEN + at * KEY_ENTRY_LEN;
            let start = size_at(object, entry)?;
            let len = usize::from(u16::from_le_bytes(array_at(object, entry + 4)?));
            let key = object
                .get(start..)
                .and_then(|rest| rest.get(..len))
                .ok_or(SHORT)?;
            self.string(key)?;
            self.out.push_str(": ");
            self.entry(
                object,
                HEAD_LEN + count * KEY_ENTRY_LEN + at * ENTRY_LEN,
                depth,
            )?;
        }
        self.out.push('}');
        Ok(())
    }

    fn entry(&mut self, parent: &[u8], at: usize, depth: usize) -> Result<(), DecodeError> {
        let [tp, a, b, c, d] = array_at::<ENTRY_LEN>(parent, at)?;
        if tp == LITERAL {
            return self.value(tp, &[a], depth + 1);
        }
        let offset = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| SHORT)?;
        let value = parent.get(offset..).ok_or(SHORT)?;
        self.value(tp, value, depth + 1)
    }

    /// Plain digits between 1e-15 and 1e15, where whole numbers get `.0`; an exponent beyond.
    fn double(&mut self, value: f64) -> Result<(), DecodeError> {
        if !value.is_finite() {
            return Err(DecodeError::new(WHAT, "it has a number that is not finite"));
        }
        let magnitude = value.abs();
        if magnitude != 0.0 && !(1e-15..1e15).contains(&magnitude) {
            self.print(format_args!("{value:e}"));
        } else {
            let plain = value.to_string();
            self.out.push_str(&plain);
            if !plain.contains('.') {
                self.out.push_str(".0");
            }
        }
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.spend(bytes.len())?;
        self.out.push('"');
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                self.escaped(c);
            }
            for _ in chunk.invalid() {
                self.out.push_str("\\ufffd");
            }
        }
        self.out.push('"');
        Ok(())
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' | '\\' => {
                self.out.push('\\');
                self.out.push(c);
            }
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            '\u{8}' => self.out.push_str("\\b"),
            '\u{c}' => self.out.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                self.print(format_args!("\\u{:04x}", u32::from(c)));
            }
            _ => self.out.push(c),
        }
    }

    fn quoted(&mut self, plain: &str) {
        self.print(format_args!("\"{plain}\""));
    }

    fn spend(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or(DecodeError::new(WHAT, "its strings overlap"))?;
        Ok(())
    }

    fn print(&mut self, what: impl std::fmt::Display) {
        write!(self.out, "{what}").expect("writing to a string cannot fail");
    }
}
