//! Numbers in keys and records: fixed width with the order of their values, and varints.
//!
//! Readers take a `&mut &[u8]` and move it past what they read.

use crate::DecodeError;

const SIGN: u64 = 1 << 63;
/// Bytes of the longest varint.
pub const VARINT_LEN_MAX: usize = 10;

const SHORT: DecodeError = DecodeError::new("number", "too few bytes");
const LONG: DecodeError = DecodeError::new("varint", "more than 64 bits");

/// Reads one byte.
///
/// # Errors
/// Nothing is left.
pub fn read_u8(input: &mut &[u8]) -> Result<u8, DecodeError> {
    let (&first, rest) = input.split_first().ok_or(SHORT)?;
    *input = rest;
    Ok(first)
}

/// Reads `len` bytes.
///
/// # Errors
/// Fewer are left.
pub fn read_slice<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, rest) = input.split_at_checked(len).ok_or(SHORT)?;
    *input = rest;
    Ok(head)
}

fn read_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(SHORT)?;
    *input = rest;
    Ok(*head)
}

/// Reads a big-endian `u64`, the comparable form of unsigned numbers.
///
/// # Errors
/// Fewer than 8 bytes are left.
pub fn read_u64(input: &mut &[u8]) -> Result<u64, DecodeError> {
    read_array(input).map(u64::from_be_bytes)
}

/// Reads a big-endian `u64` with all bits inverted, the form that sorts greater numbers first.
///
/// # Errors
/// Fewer than 8 bytes are left.
pub fn read_u64_desc(input: &mut &[u8]) -> Result<u64, DecodeError> {
    read_u64(input).map(|value| !value)
}

/// Reads a comparable `i64`: big-endian with the sign bit flipped.
///
/// # Errors
/// Fewer than 8 bytes are left.
pub fn read_i64(input: &mut &[u8]) -> Result<i64, DecodeError> {
    read_u64(input).map(|value| (value ^ SIGN).cast_signed())
}

/// Reads a comparable `f64`.
///
/// # Errors
/// Fewer than 8 bytes are left.
pub fn read_f64(input: &mut &[u8]) -> Result<f64, DecodeError> {
    let bits = read_u64(input)?;
    Ok(f64::from_bits(if bits & SIGN == 0 {
        !bits
    } else {
        bits ^ SIGN
    }))
}

/// Reads a LEB128 `u64`.
///
/// # Errors
/// The input ends within it, or it has more than 64 bits.
pub fn read_var_u64(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for (at, &byte) in input.iter().enumerate().take(VARINT_LEN_MAX) {
        // The tenth byte holds the last bit.
        if at == VARINT_LEN_MAX - 1 && byte > 1 {
            return Err(LONG);
        }
        value |= u64::from(byte & 0x7F) << (7 * at);
        if byte < 0x80 {
            *input = input.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(if input.len() < VARINT_LEN_MAX {
        SHORT
    } else {
        LONG
    })
}

/// Reads a zig-zag LEB128 `i64`.
///
/// # Errors
/// The input ends within it, or it has more than 64 bits.
pub fn read_var_i64(input: &mut &[u8]) -> Result<i64, DecodeError> {
    let value = read_var_u64(input)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

/// Appends the form that [`read_u64`] reads.
pub fn write_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends the form that [`read_u64_desc`] reads.
pub fn write_u64_desc(out: &mut Vec<u8>, value: u64) {
    write_u64(out, !value);
}

/// Appends the form that [`read_i64`] reads.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_u64(out, value.cast_unsigned() ^ SIGN);
}

/// Appends the form that [`read_f64`] reads.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    let bits = value.to_bits();
    // Both zeros get the bytes of the positive one.
    write_u64(out, if value >= 0.0 { bits | SIGN } else { !bits });
}

/// Appends the form that [`read_var_u64`] reads.
pub fn write_var_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the form that [`read_var_i64`] reads.
pub fn write_var_i64(out: &mut Vec<u8>, value: i64) {
    write_var_u64(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written<T>(write: impl Fn(&mut Vec<u8>, T), value: T) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn varints_of_go_and_leb128() {
        assert_eq!(written(write_var_u64, 300), [0xAC, 0x02]);
        assert_eq!(written(write_var_i64, -1), [0x01]);
        assert_eq!(written(write_var_i64, 64), [0x80, 0x01]);
        assert_eq!(written(write_var_u64, u64::MAX).len(), VARINT_LEN_MAX);
        assert_eq!(read_var_u64(&mut &[0x80; 11][..]), Err(LONG));
        assert_eq!(read_var_u64(&mut &[0x80; 9][..]), Err(SHORT));
        assert_eq!(
            read_var_u64(&mut &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2][..]),
            Err(LONG)
        );
    }

    #[test]
    fn zeros_are_one() {
        assert_eq!(written(write_f64, -0.0), written(write_f64, 0.0));
    }

    proptest! {
        #[test]
        fn numbers_come_back(u: u64, i: i64, f in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let mut out = Vec::new();
            write_u64(&mut out, u);
            write_u64_desc(&mut out, u);
            write_i64(&mut out, i);
            write_f64(&mut out, f);
            write_var_u64(&mut out, u);
            write_var_i64(&mut out, i);
            let mut input = &out[..];
            prop_assert_eq!(read_u64(&mut input), Ok(u));
            prop_assert_eq!(read_u64_desc(&mut input), Ok(u));
            prop_assert_eq!(read_i64(&mut input), Ok(i));
            prop_assert_eq!(read_f64(&mut input), Ok(f));
            prop_assert_eq!(read_var_u64(&mut input), Ok(u));
            prop_assert_eq!(read_var_i64(&mut input), Ok(i));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn bytes_sort_like_their_numbers(a: i64, b: i64, c: u64, d: u64, e in -1e300..1e300, f in -1e300..1e300) {
            prop_assert_eq!(written(write_i64, a).cmp(&written(write_i64, b)), a.cmp(&b));
            prop_assert_eq!(written(write_u64_desc, c).cmp(&written(write_u64_desc, d)), d.cmp(&c));
            prop_assert_eq!(Some(written(write_f64, e).cmp(&written(write_f64, f))), e.partial_cmp(&f));
        }

        #[test]
        fn varints_never_panic(input: Vec<u8>) {
            let mut rest = &input[..];
            if read_var_u64(&mut rest).is_ok() {
                prop_assert!(rest.len() < input.len());
            } else {
                prop_assert_eq!(rest.len(), input.len());
            }
        }
    }
}
