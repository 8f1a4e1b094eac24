//! Raw key-value data in the three API versions of a store.
//!
//! | version | keys | values |
//! |---|---|---|
//! | V1 | as they are | as they are |
//! | V1TTL | as they are | value, BE8 of the expiry (Unix seconds, 0: never) |
//! | V2 | memcomparable of `r`, 3 bytes keyspace, key; then a timestamp | value, [BE8 expiry], flags |
//!
//! In V2 the newest timestamp of a key counts; bit 0 of the flags says that an expiry stands
//! before them, bit 1 that the key is removed.

use br_types::{KeyRange, RawKey, TimeStamp};

use crate::{
    DecodeError, bytes, key,
    number::{read_u64, write_u64},
};

/// What raw keys of V2 begin with.
pub const RAW_PREFIX: u8 = b'r';
/// What transactional keys of V2 begin with.
pub const TXN_PREFIX: u8 = b'x';
/// The timestamp of raw entries that a backup brings from V1 or V1TTL to V2: older than any that
/// a cluster gives out.
pub const CONVERTED_TS: TimeStamp = TimeStamp(1);

const FLAG_EXPIRES: u8 = 1;
const FLAG_DELETED: u8 = 1 << 1;
const WHAT: &str = "raw value";

/// How a store lays out raw keys and values. The numbers are those of `kvrpcpb.APIVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ApiVersion {
    /// Plain.
    #[default]
    V1 = 0,
    /// Plain with expiry.
    V1Ttl = 1,
    /// Keyspaces, expiry and versions.
    V2 = 2,
}

impl ApiVersion {
    /// The version with this number.
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(ApiVersion::V1),
            1 => Some(ApiVersion::V1Ttl),
            2 => Some(ApiVersion::V2),
            _ => None,
        }
    }
}

/// Id of a keyspace; three bytes in keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyspaceId(u32);

impl KeyspaceId {
    /// The keyspace with that number; `None` if it has more than 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number < 1 << 24 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A raw value and what is stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawValue<'a> {
    /// The value as the user wrote it.
    pub user_value: &'a [u8],
    /// Unix seconds from which on it is not there any more; `None`: it stays.
    pub expires_at_seconds: Option<u64>,
    /// Whether the entry says that the key is removed (V2 only).
    pub is_deleted: bool,
}

impl<'a> RawValue<'a> {
    /// A value that stays.
    pub const fn lasting(user_value: &'a [u8]) -> Self {
        Self {
            user_value,
            expires_at_seconds: None,
            is_deleted: false,
        }
    }

    /// Whether a reader at that time sees it.
    pub fn is_visible_at(&self, now_seconds: u64) -> bool {
        !self.is_deleted
            && self
                .expires_at_seconds
                .is_none_or(|expiry| expiry > now_seconds)
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// It is too short, or has flags that are not known.
    pub fn decode(version: ApiVersion, stored: &'a [u8]) -> Result<Self, DecodeError> {
        match version {
            ApiVersion::V1 => Ok(Self::lasting(stored)),
            ApiVersion::V1Ttl => {
                let (user_value, expiry) = split_expiry(stored)?;
                let expires_at_seconds = (expiry != 0).then_some(expiry);
                Ok(Self {
                    user_value,
                    expires_at_seconds,
                    is_deleted: false,
                })
            }
            ApiVersion::V2 => {
                let (&flags, rest) = stored
                    .split_last()
                    .ok_or(DecodeError::new(WHAT, "it has no flags"))?;
                if flags & !(FLAG_EXPIRES | FLAG_DELETED) != 0 {
                    return Err(DecodeError::new(WHAT, "it has flags that are not known"));
                }
                let is_deleted = flags & FLAG_DELETED != 0;
                if flags & FLAG_EXPIRES == 0 {
                    return Ok(Self {
                        user_value: rest,
                        expires_at_seconds: None,
                        is_deleted,
                    });
                }
                let (user_value, expiry) = split_expiry(rest)?;
                Ok(Self {
                    user_value,
                    expires_at_seconds: Some(expiry),
                    is_deleted,
                })
            }
        }
    }

    /// The value as that version stores it. V1 has no place for an expiry and V1TTL none for a
    /// removal: they are left out.
    pub fn encode(&self, version: ApiVersion) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.user_value.len() + 9);
        out.extend_from_slice(self.user_value);
        match version {
            ApiVersion::V1 => {}
            ApiVersion::V1Ttl => write_u64(&mut out, self.expires_at_seconds.unwrap_or(0)),
            ApiVersion::V2 => {
                let mut flags = if self.is_deleted { FLAG_DELETED } else { 0 };
                if let Some(expiry) = self.expires_at_seconds {
                    write_u64(&mut out, expiry);
                    flags |= FLAG_EXPIRES;
                }
                out.push(flags);
            }
        }
        out
    }
}

fn split_expiry(stored: &[u8]) -> Result<(&[u8], u64), DecodeError> {
    let (value, mut expiry) = stored
        .len()
        .checked_sub(8)
        .and_then(|at| stored.split_at_checked(at))
        .ok_or(DecodeError::new(WHAT, "it is shorter than its expiry"))?;
    Ok((value, read_u64(&mut expiry)?))
}

/// The key that a user's raw key has in V2: prefix, keyspace, key. Not memcomparable yet.
pub fn v2_raw_key(keyspace: KeyspaceId, user_key: &[u8]) -> RawKey {
    let [_, a, b, c] = keyspace.0.to_be_bytes();
    let mut out = Vec::with_capacity(4 + user_key.len());
    out.extend_from_slice(&[RAW_PREFIX, a, b, c]);
    out.extend_from_slice(user_key);
    RawKey::from(out)
}

/// The keyspace and the user's key of a raw key of V2.
///
/// # Errors
/// It is shorter than its prefix or begins with something else than `r`.
pub fn split_v2_raw_key(key: &[u8]) -> Result<(KeyspaceId, &[u8]), DecodeError> {
    match key.split_first_chunk::<4>() {
        Some(([RAW_PREFIX, a, b, c], user_key)) => {
            Ok((KeyspaceId(u32::from_be_bytes([0, *a, *b, *c])), user_key))
        }
        _ => Err(DecodeError::new(
            "raw key",
            "it has no prefix of API version 2",
        )),
    }
}

/// The range of V2 with the entries of a range of V1 or V1TTL, in the default keyspace. The end is
/// always a bound, for other keyspaces follow.
pub fn v2_range_of_v1(range: &KeyRange<RawKey>) -> KeyRange<RawKey> {
    let end = if range.end.is_empty() {
        v2_raw_key(KeyspaceId(1), b"")
    } else {
        v2_raw_key(KeyspaceId(0), range.end.as_bytes())
    };
    KeyRange {
        start: v2_raw_key(KeyspaceId(0), range.start.as_bytes()),
        end,
    }
}

/// The engine key of V2 (without `z`) for an entry of V1 or V1TTL.
pub fn v2_engine_key_of_v1(user_key: &[u8]) -> Vec<u8> {
    let mut out = bytes::encode(v2_raw_key(KeyspaceId(0), user_key).as_bytes());
    key::append_ts(&mut out, CONVERTED_TS);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values() {
        let expiring = RawValue {
            user_value: b"v",
            expires_at_seconds: Some(2),
            is_deleted: false,
        };
        assert_eq!(expiring.encode(ApiVersion::V1), b"v");
        assert_eq!(expiring.encode(ApiVersion::V1Ttl), b"v\0\0\0\0\0\0\0\x02");
        assert_eq!(expiring.encode(ApiVersion::V2), b"v\0\0\0\0\0\0\0\x02\x01");
        let removed = RawValue {
            user_value: b"",
            expires_at_seconds: None,
            is_deleted: true,
        };
        assert_eq!(removed.encode(ApiVersion::V2), b"\x02");
        assert_eq!(RawValue::lasting(b"v").encode(ApiVersion::V2), b"v\0");
        assert_eq!(
            RawValue::decode(ApiVersion::V1Ttl, b"v\0\0\0\0\0\0\0\0"),
            Ok(RawValue::lasting(b"v"))
        );
    }

    #[test]
    fn values_disappear_at_their_expiry() {
        let value = RawValue {
            user_value: b"",
            expires_at_seconds: Some(10),
            is_deleted: false,
        };
        assert!(value.is_visible_at(9));
        assert!(!value.is_visible_at(10));
    }

    #[test]
    fn damage_is_found() {
        for (version, stored) in [
            (ApiVersion::V1Ttl, &b"1234567"[..]),
            (ApiVersion::V2, b""),
            (ApiVersion::V2, b"\x04"),
            (ApiVersion::V2, b"1234567\x01"),
        ] {
            assert!(
                RawValue::decode(version, stored).is_err(),
                "{version:?} {stored:?}"
            );
        }
        assert!(split_v2_raw_key(b"x\0\0\0k").is_err());
    }

    #[test]
    fn ranges_of_v1_stay_in_the_default_keyspace() {
        let all = v2_range_of_v1(&KeyRange::default());
        assert_eq!(all, KeyRange::new(&b"r\0\0\0"[..], &b"r\0\0\x01"[..]));
        let some = v2_range_of_v1(&KeyRange::new(&b"a"[..], &b"b"[..]));
        assert_eq!(some, KeyRange::new(&b"r\0\0\0a"[..], &b"r\0\0\0b"[..]));
    }

    proptest! {
        #[test]
        fn values_come_back(value: Vec<u8>, expiry in proptest::option::of(1_u64..), is_deleted: bool) {
            let v2 = RawValue { user_value: &value, expires_at_seconds: expiry, is_deleted };
            let stored = v2.encode(ApiVersion::V2);
            prop_assert_eq!(RawValue::decode(ApiVersion::V2, &stored), Ok(v2));
            let ttl = RawValue { is_deleted: false, ..v2 };
            let stored = ttl.encode(ApiVersion::V1Ttl);
            prop_assert_eq!(RawValue::decode(ApiVersion::V1Ttl, &stored), Ok(ttl));
        }

        #[test]
        fn keys_come_back(id in 0_u32..1 << 24, user_key: Vec<u8>, noise: Vec<u8>) {
            let keyspace = KeyspaceId::new(id).unwrap();
            let key = v2_raw_key(keyspace, &user_key);
            prop_assert_eq!(split_v2_raw_key(key.as_bytes()), Ok((keyspace, &user_key[..])));
            let _ = split_v2_raw_key(&noise);
            for version in [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2] {
                let _ = RawValue::decode(version, &noise);
            }
        }
    }
}
