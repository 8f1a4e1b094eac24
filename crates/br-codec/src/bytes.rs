//! Memcomparable bytes: byte strings of any length in a form that can stand in front of other
//! bytes and keeps their order.
//!
//! Groups of 8 bytes, each followed by a marker: 0xFF after a full group, 0xFF minus the number of
//! padding zeros after the last one, which is always short (a length that is a multiple of 8 ends
//! with a group of padding alone).

use crate::{
    DecodeError,
    number::{read_slice, read_var_i64, write_var_i64},
};

/// Data bytes of a group.
const GROUP: usize = 8;
/// Marker of a group without padding.
const FULL: u8 = 0xFF;
const WHAT: &str = "memcomparable key";

/// Length of the encoding of `raw_len` bytes.
pub const fn encoded_len(raw_len: usize) -> usize {
    (raw_len / GROUP + 1) * (GROUP + 1)
}

/// Appends the encoding of `raw`.
pub fn encode_into(out: &mut Vec<u8>, raw: &[u8]) {
    out.reserve(encoded_len(raw.len()));
    let (groups, tail) = raw.as_chunks::<GROUP>();
    for group in groups {
        out.extend_from_slice(group);
        out.push(FULL);
    }
    let padding = GROUP - tail.len();
    out.extend_from_slice(tail);
    out.resize(out.len() + padding, 0);
    // At most 8, so it fits.
    out.push(FULL - padding as u8);
}

/// The encoding of `raw`.
pub fn encode(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, raw);
    out
}

/// The least byte string whose encoding is not below `bound`, which need be no encoding itself.
pub fn first_at(bound: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(bound.len());
    let (groups, tail) = bound.as_chunks::<{ GROUP + 1 }>();
    for (at, [group @ .., marker]) in groups.iter().enumerate() {
        raw.extend_from_slice(group);
        if *marker == FULL {
            continue;
        }
        // No encoding goes on behind such a group; the first is one that has at least as many bytes
        // here as the marker counts, and none that padding would be as good as.
        let counted = usize::from(marker.saturating_sub(FULL - GROUP as u8));
        let goes_on = at + 1 < groups.len() || !tail.is_empty();
        let wanted = counted + usize::from(goes_on && *marker >= FULL - GROUP as u8);
        let padding = group.iter().rev().take_while(|byte| **byte == 0).count();
        raw.truncate(raw.len() - padding.min(GROUP - wanted));
        return raw;
    }
    raw.extend_from_slice(tail);
    let padding = tail.iter().rev().take_while(|byte| **byte == 0).count();
    raw.truncate(raw.len() - padding);
    raw
}

/// Checks the encoding that `input` begins with and gives its length, which is a multiple of 9.
///
/// # Errors
/// No last group, a marker that cannot be, or padding other than zeros.
pub fn encoded_prefix_len(input: &[u8]) -> Result<usize, DecodeError> {
    let (groups, _) = input.as_chunks::<{ GROUP + 1 }>();
    for (at, [group @ .., marker]) in groups.iter().enumerate() {
        if *marker != FULL {
            check_last_group(group, *marker)?;
            return Ok((at + 1) * (GROUP + 1));
        }
    }
    Err(DecodeError::new(WHAT, "its last group is missing"))
}

/// Moves `input` past the encoding that it begins with and appends the bytes to `out`.
///
/// # Errors
/// As [`encoded_prefix_len`]; `input` stays, `out` may have grown.
pub fn decode_into(out: &mut Vec<u8>, input: &mut &[u8]) -> Result<(), DecodeError> {
    let (groups, _) = input.as_chunks::<{ GROUP + 1 }>();
    for (at, [group @ .., marker]) in groups.iter().enumerate() {
        if *marker == FULL {
            out.extend_from_slice(group);
            continue;
        }
        out.extend_from_slice(check_last_group(group, *marker)?);
        *input = input.get((at + 1) * (GROUP + 1)..).unwrap_or_default();
        return Ok(());
    }
    Err(DecodeError::new(WHAT, "its last group is missing"))
}

/// Moves `input` past the encoding that it begins with and gives the bytes.
///
/// # Errors
/// As [`encoded_prefix_len`].
pub fn decode(input: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    decode_into(&mut out, input)?;
    Ok(out)
}

/// The data of the last group.
fn check_last_group(group: &[u8], marker: u8) -> Result<&[u8], DecodeError> {
    let padding = usize::from(FULL - marker);
    let (data, zeros) = GROUP
        .checked_sub(padding)
        .and_then(|len| group.split_at_checked(len))
        .ok_or(DecodeError::new(WHAT, "it has a marker that cannot be"))?;
    if zeros.iter().any(|&byte| byte != 0) {
        return Err(DecodeError::new(WHAT, "its padding is not zero"));
    }
    Ok(data)
}

/// Appends a varint of the length and the bytes as they are ("compact bytes", in lock records).
pub fn write_compact(out: &mut Vec<u8>, raw: &[u8]) {
    write_var_i64(out, raw.len() as i64);
    out.extend_from_slice(raw);
}

/// Reads what [`write_compact`] writes.
///
/// # Errors
/// The length is damaged or more than what is left.
pub fn read_compact<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = read_var_i64(input)?;
    let len = usize::try_from(len)
        .map_err(|_| DecodeError::new("byte string", "its length is negative"))?;
    read_slice(input, len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_encodings() {
        assert_eq!(encode(b""), *b"\0\0\0\0\0\0\0\0\xF7");
        assert_eq!(encode(b"abc"), *b"abc\0\0\0\0\0\xFA");
        assert_eq!(encode(b"12345678"), *b"12345678\xFF\0\0\0\0\0\0\0\0\xF7");
    }

    #[test]
    fn damage_is_found() {
        let damaged: [&[u8]; 6] = [
            b"",
            b"12345678",
            b"12345678\xFF",
            b"12345678\xFF\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\0\xF6",
            b"abc\0\0\0\0\x01\xFA",
        ];
        for bytes in damaged {
            assert!(decode(&mut &bytes[..]).is_err(), "{bytes:?}");
            assert!(encoded_prefix_len(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back_and_the_rest_stays(raw: Vec<u8>, rest: Vec<u8>) {
            let mut encoded = encode(&raw);
            prop_assert_eq!(encoded.len(), encoded_len(raw.len()));
            prop_assert_eq!(encoded_prefix_len(&encoded), Ok(encoded.len()));
            encoded.extend_from_slice(&rest);
            let mut input = &encoded[..];
            prop_assert_eq!(decode(&mut input), Ok(raw));
            prop_assert_eq!(input, &rest[..]);
        }

        #[test]
        fn order_is_kept(a in proptest::collection::vec(0_u8..3, 0..20), b in proptest::collection::vec(0_u8..3, 0..20)) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn what_decodes_encodes_to_the_same(input: Vec<u8>) {
            let mut rest = &input[..];
            let decoded = decode(&mut rest);
            prop_assert_eq!(decoded.is_ok(), encoded_prefix_len(&input).is_ok());
            if let Ok(raw) = decoded {
                prop_assert_eq!(&encode(&raw)[..], &input[..input.len() - rest.len()]);
            }
        }

        #[test]
        fn compact_bytes_come_back(raw: Vec<u8>, noise: Vec<u8>) {
            let mut out = Vec::new();
            write_compact(&mut out, &raw);
            let mut input = &out[..];
            prop_assert_eq!(read_compact(&mut input), Ok(&raw[..]));
            prop_assert!(input.is_empty());
            let _ = read_compact(&mut &noise[..]);
        }
    }
}
