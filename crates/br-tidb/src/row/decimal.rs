//! Binary decimals, as MySQL stores them.
//!
//! Groups of nine digits, four bytes each, big-endian; the first and the last group may be shorter
//! and then take fewer bytes. The sign bit is flipped, and all bits are inverted for negatives, so
//! that bytes sort like numbers.

use br_codec::{
    DecodeError,
    number::{read_slice, read_u8},
};

const WHAT: &str = "decimal";
/// Digits in a full group.
const GROUP: usize = 9;
/// Bytes for a group of so many digits.
const GROUP_LEN: [usize; GROUP + 1] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// The most digits that MySQL allows is 65; TiDB's buffer holds 81.
const DIGITS_MAX: usize = 81;

/// Reads precision, digits after the point, and the number; gives it as text.
pub(super) fn read(input: &mut &[u8]) -> Result<String, DecodeError> {
    let precision = usize::from(read_u8(input)?);
    let frac = usize::from(read_u8(input)?);
    let int = precision
        .checked_sub(frac)
        .filter(|_| precision <= DIGITS_MAX && precision > 0)
        .ok_or(DecodeError::new(WHAT, "its precision cannot be"))?;
    let len = digits_len(int) + digits_len(frac);
    let mut bytes = [0_u8; 2 * DIGITS_MAX];
    let bytes = bytes
        .get_mut(..len)
        .ok_or(DecodeError::new(WHAT, "it is too long"))?;
    bytes.copy_from_slice(read_slice(input, len)?);
    let is_negative = bytes.first().is_some_and(|first| first & 0x80 == 0);
    if is_negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    if let Some(first) = bytes.first_mut() {
        *first ^= 0x80;
    }
    let mut rest = &*bytes;
    let mut digits = String::with_capacity(precision + 3);
    push_group(&mut digits, &mut rest, int % GROUP)?;
    for _ in 0..int / GROUP {
        push_group(&mut digits, &mut rest, GROUP)?;
    }
    let significant = digits.trim_start_matches('0');
    let mut out = String::with_capacity(precision + 3);
    if is_negative {
        out.push('-');
    }
    out.push_str(if significant.is_empty() {
        "0"
    } else {
        significant
    });
    if frac > 0 {
        out.push('.');
        for _ in 0..frac / GROUP {
            push_group(&mut out, &mut rest, GROUP)?;
        }
        push_group(&mut out, &mut rest, frac % GROUP)?;
    }
    Ok(out)
}

/// What [`read`] reads, of a number as text that has at most so many digits. `None`: it is none, or has
/// more.
pub(super) fn from_text(text: &str, precision: usize, frac: usize) -> Option<Vec<u8>> {
    let int = precision.checked_sub(frac).filter(|_| precision > 0)?;
    let (is_negative, number) = match text.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, text),
    };
    let (before, after) = number.split_once('.').unwrap_or((number, ""));
    let before = match before.trim_start_matches('0') {
        // The zero before the point need not have room.
        "" if !number.is_empty() => "",
        before => before,
    };
    let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let fits = before.len() <= int && after.len() <= frac && precision <= DIGITS_MAX;
    if !fits || number.is_empty() || !is_digits(before) || !is_digits(after) {
        return None;
    }
    let digits = format!("{before:0>int$}{after:0<frac$}");
    let mut out = vec![u8::try_from(precision).ok()?, u8::try_from(frac).ok()?];
    let mut rest = digits.as_str();
    let groups = [int % GROUP].into_iter().chain([GROUP].repeat(int / GROUP));
    let groups = groups
        .chain([GROUP].repeat(frac / GROUP))
        .chain([frac % GROUP]);
    for len in groups.filter(|len| *len > 0) {
        let (group, left) = rest.split_at_checked(len)?;
        let value: u32 = group.parse().ok()?;
        let bytes = value.to_be_bytes();
        out.extend_from_slice(bytes.get(bytes.len() - digits_len(len)..)?);
        rest = left;
    }
    let number = out.get_mut(2..)?;
    *number.first_mut()? ^= 0x80;
    if is_negative {
        number.iter_mut().for_each(|byte| *byte = !*byte);
    }
    Some(out)
}

fn digits_len(digits: usize) -> usize {
    digits / GROUP * 4 + GROUP_LEN.get(digits % GROUP).copied().unwrap_or(4)
}

/// Appends the digits of one group, with leading zeros.
fn push_group(out: &mut String, input: &mut &[u8], digits: usize) -> Result<(), DecodeError> {
    use std::fmt::Write as _;

    if digits == 0 {
        return Ok(());
    }
    let bytes = read_slice(input, digits_len(digits))?;
    let value = bytes
        .iter()
        .fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
    if value >= 10_u32.pow(digits as u32) {
        return Err(DecodeError::new(WHAT, "a group has too many digits"));
    }
    write!(out, "{value:0digits$}").expect("writing to a string cannot fail");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(hex: &str) -> Result<String, DecodeError> {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        read(&mut &bytes[..])
    }

    #[test]
    fn known_decimals() {
        // The example of MySQL's manual: 1234567890.1234 as DECIMAL(14,4).
        assert_eq!(text("0E04810DFB38D204D2").unwrap(), "1234567890.1234");
        assert_eq!(text("0E047EF204C72DFB2D").unwrap(), "-1234567890.1234");
        let bytes = from_text("-1234567890.1234", 14, 4).unwrap();
        assert_eq!(bytes, *b"\x0E\x04\x7E\xF2\x04\xC7\x2D\xFB\x2D");
        assert_eq!(text("030280007B").err(), None);
        assert_eq!(text("02018000").unwrap(), "0.0");
        assert_eq!(
            text("020A80"),
            Err(DecodeError::new(WHAT, "its precision cannot be"))
        );
        assert!(text("0E04810DFB38D204").is_err());
        assert!(text("0900FFFFFFFF").is_err());
    }
}
