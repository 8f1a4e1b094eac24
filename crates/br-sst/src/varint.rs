//! Variable-length integers, least significant seven bits first.

/// Takes a number off the front; `None` if it does not end or does not fit.
pub(crate) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The same of 32 bits, as a length.
pub(crate) fn take_len(bytes: &mut &[u8]) -> Option<usize> {
    // Most lengths are short.
    if let Some((&byte, rest)) = bytes.split_first()
        && byte < 0x80
    {
        *bytes = rest;
        return Some(usize::from(byte));
    }
    u32::try_from(take_u64(bytes)?).ok().map(|len| len as usize)
}

/// A signed number in zigzag form.
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let value = take_u64(bytes)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Appends a number.
pub(crate) fn push_u64(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7F) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
