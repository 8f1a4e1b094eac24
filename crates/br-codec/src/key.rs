//! From keys of users to keys of engines and back.
//!
//! ```text
//! RawKey      what the user wrote
//! EncodedKey  memcomparable(raw)                       regions, PD
//! DataKey     'z' encoded [BE8(!ts)]                   engine, SST files
//! ```
//! The timestamp is inverted, so newer versions of a key sort first. Raw data of API versions V1
//! and V1TTL is not encoded: there `EncodedKey` has the raw bytes.

use br_types::{DataKey, EncodedKey, KeyRange, RawKey, TimeStamp};

use crate::{
    DecodeError, bytes,
    number::{read_u64_desc, write_u64_desc},
};

/// What every data key begins with.
pub const DATA_PREFIX: u8 = b'z';
/// The first byte beyond all data keys.
pub const DATA_PREFIX_END: u8 = DATA_PREFIX + 1;
/// Bytes of a timestamp at the end of a key.
pub const TS_LEN: usize = 8;

/// The memcomparable form of a raw key.
pub fn encode(raw: &[u8]) -> EncodedKey {
    EncodedKey::from(bytes::encode(raw))
}

/// The raw key of a memcomparable one, which must have nothing after it.
///
/// # Errors
/// It is damaged or something follows.
pub fn decode(encoded: &[u8]) -> Result<RawKey, DecodeError> {
    let mut input = encoded;
    let raw = bytes::decode(&mut input)?;
    if !input.is_empty() {
        return Err(DecodeError::new(
            "memcomparable key",
            "something follows it",
        ));
    }
    Ok(RawKey::from(raw))
}

/// The least raw key whose memcomparable form is not below a bound, which need be none itself: where
/// raw data of V1 lies, regions begin and end with keys that are not encoded.
pub fn first_at(bound: &[u8]) -> RawKey {
    RawKey::from(bytes::first_at(bound))
}

/// Encodes both ends; an end that is no bound stays so.
pub fn encode_range(range: &KeyRange<RawKey>) -> KeyRange<EncodedKey> {
    let encode_bound = |bound: &RawKey| {
        if bound.is_empty() {
            EncodedKey::default()
        } else {
            encode(bound.as_bytes())
        }
    };
    KeyRange {
        start: encode_bound(&range.start),
        end: encode_bound(&range.end),
    }
}

/// Decodes both ends; an end that is no bound stays so.
///
/// # Errors
/// An end is not a memcomparable key.
pub fn decode_range(range: &KeyRange<EncodedKey>) -> Result<KeyRange<RawKey>, DecodeError> {
    let decode_bound = |bound: &EncodedKey| {
        if bound.is_empty() {
            Ok(RawKey::default())
        } else {
            decode(bound.as_bytes())
        }
    };
    Ok(KeyRange {
        start: decode_bound(&range.start)?,
        end: decode_bound(&range.end)?,
    })
}

/// The data key without a timestamp: in the lock column family, and as a bound of ranges.
pub fn data_key(encoded: &[u8]) -> DataKey {
    let mut key = Vec::with_capacity(1 + encoded.len() + TS_LEN);
    key.push(DATA_PREFIX);
    key.extend_from_slice(encoded);
    DataKey::from(key)
}

/// The data key of one version: `start_ts` in the default column family, `commit_ts` in write.
pub fn data_key_at(encoded: &[u8], ts: TimeStamp) -> DataKey {
    let mut key = data_key(encoded).into_bytes();
    append_ts(&mut key, ts);
    DataKey::from(key)
}

/// The data keys of a range of encoded keys, all versions; bounds on both sides, for what lies
/// before and after data in an engine is none of it.
pub fn data_range(range: &KeyRange<EncodedKey>) -> KeyRange<DataKey> {
    let start = data_key(range.start.as_bytes());
    let end = if range.end.is_empty() {
        DataKey::from(vec![DATA_PREFIX_END])
    } else {
        data_key(range.end.as_bytes())
    };
    KeyRange { start, end }
}

/// Appends a timestamp.
pub fn append_ts(key: &mut Vec<u8>, ts: TimeStamp) {
    write_u64_desc(key, ts.0);
}

/// Splits the timestamp off the end of a key.
///
/// # Errors
/// The key is shorter than a timestamp.
pub fn split_ts(key: &[u8]) -> Result<(&[u8], TimeStamp), DecodeError> {
    let (head, mut ts) = key
        .len()
        .checked_sub(TS_LEN)
        .and_then(|at| key.split_at_checked(at))
        .ok_or(DecodeError::new("key", "it is shorter than its timestamp"))?;
    Ok((head, TimeStamp(read_u64_desc(&mut ts)?)))
}

/// The data key without its `z`.
///
/// # Errors
/// It begins with something else.
pub fn strip_data_prefix(data_key: &[u8]) -> Result<&[u8], DecodeError> {
    data_key
        .strip_prefix(&[DATA_PREFIX])
        .ok_or(DecodeError::new("data key", "it does not begin with 'z'"))
}

/// The encoded key and the timestamp of a data key of the write or default column family.
///
/// # Errors
/// It does not begin with `z` or is too short.
pub fn split_data_key(data_key: &[u8]) -> Result<(&[u8], TimeStamp), DecodeError> {
    split_ts(strip_data_prefix(data_key)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn newer_versions_sort_first() {
        let encoded = encode(b"k");
        assert!(
            data_key_at(encoded.as_bytes(), TimeStamp(5))
                < data_key_at(encoded.as_bytes(), TimeStamp(4))
        );
        assert!(data_key(encoded.as_bytes()) < data_key_at(encoded.as_bytes(), TimeStamp::MAX));
    }

    #[test]
    fn open_ends_are_the_ends_of_data() {
        let range = data_range(&KeyRange::default());
        assert_eq!(range.start.as_bytes(), b"z");
        assert_eq!(range.end.as_bytes(), b"{");
        assert_eq!(encode_range(&KeyRange::default()), KeyRange::default());
    }

    #[test]
    fn damaged_keys_are_refused() {
        assert!(split_ts(b"1234567").is_err());
        assert!(strip_data_prefix(b"y").is_err());
        assert!(decode(b"abc\0\0\0\0\0\xFAx").is_err());
    }

    /// Keys that often begin alike, and bounds that nearly are keys.
    fn short() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(vec![0, 1, b'a', 0xf6, 0xf7, 0xf8, 0xf9, 0xfe, 0xff]);
        let noise = prop::collection::vec(byte, 0..20);
        (noise, any::<bool>(), 0..4usize).prop_map(|(raw, is_key, cut)| {
            if !is_key {
                return raw;
            }
            let mut key = bytes::encode(&raw);
            key.truncate(key.len() - cut);
            key
        })
    }

    proptest! {
        #[test]
        fn keys_come_back(raw: Vec<u8>, ts: u64) {
            let encoded = encode(&raw);
            let data = data_key_at(encoded.as_bytes(), TimeStamp(ts));
            let (head, at) = split_data_key(data.as_bytes()).unwrap();
            prop_assert_eq!(head, encoded.as_bytes());
            prop_assert_eq!(at, TimeStamp(ts));
            prop_assert_eq!(decode(head).unwrap().into_bytes(), raw);
        }

        #[test]
        fn ranges_come_back(start: Vec<u8>, end: Vec<u8>) {
            let range = KeyRange::new(start, end);
            prop_assert_eq!(decode_range(&encode_range(&range)), Ok(range));
        }

        #[test]
        fn the_first_key_at_a_bound_is_not_below_it(bound in short(), other in short()) {
            let first = first_at(&bound);
            prop_assert!(*encode(first.as_bytes()).as_bytes() >= *bound);
            if *encode(&other).as_bytes() >= *bound {
                prop_assert!(first.as_bytes() <= &*other);
            }
            prop_assert_eq!(first_at(encode(&other).as_bytes()).into_bytes(), other);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = split_data_key(&noise);
            let _ = decode(&noise);
        }
    }
}
