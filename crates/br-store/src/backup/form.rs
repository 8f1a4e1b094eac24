use br_codec::{
    ApiVersion, DecodeError, RawValue, api_version,
    key::{self, TS_LEN},
};
use br_types::{EncodedKey, KeyRange, RawKey};

/// How keys and values stand in the store and how they shall stand in the backup.
///
/// Transactional data is the same everywhere; raw data may go from V1 or V1TTL to V2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    is_raw: bool,
    store: ApiVersion,
    backup: ApiVersion,
}

/// A raw entry in the form of the backup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawEntry<'a> {
    /// Engine key without `z`.
    pub(super) key: &'a [u8],
    /// Stored value.
    pub(super) value: &'a [u8],
    /// What checksums count: the key without its timestamp, decoded.
    pub(super) user_key: &'a [u8],
    /// What checksums count: the value without expiry and flags.
    pub(super) user_value: &'a [u8],
}

/// Room for converted entries, used again for each.
#[derive(Debug, Default)]
pub(super) struct RawRoom {
    key: Vec<u8>,
    value: Vec<u8>,
    user_key: Vec<u8>,
}

impl Form {
    /// The form of a request; `None` if the conversion does not exist.
    pub(super) fn new(is_raw: bool, store: ApiVersion, backup: ApiVersion) -> Option<Form> {
        let known = !is_raw || store == backup || backup == ApiVersion::V2;
        known.then_some(Form {
            is_raw,
            store,
            backup,
        })
    }

    pub(super) fn is_raw(self) -> bool {
        self.is_raw
    }

    /// The version that the answer names.
    pub(super) fn backup_version(self) -> ApiVersion {
        self.backup
    }

    /// Whether raw keys carry timestamps, of which the newest counts.
    pub(super) fn has_raw_versions(self) -> bool {
        self.is_raw && self.store == ApiVersion::V2
    }

    fn is_encoded(self) -> bool {
        !self.is_raw || self.store == ApiVersion::V2
    }

    /// Whether a range may be asked for: raw data of V2 stays below the mode byte `r`.
    pub(super) fn allows(self, range: &KeyRange<RawKey>) -> bool {
        if !self.has_raw_versions() {
            return true;
        }
        let in_mode = |key: &RawKey| key.as_bytes().first() == Some(&api_version::RAW_PREFIX);
        let end_of_mode = [api_version::RAW_PREFIX + 1];
        in_mode(&range.start) && (in_mode(&range.end) || range.end.as_bytes() == end_of_mode)
    }

    /// The range as regions know it.
    pub(super) fn encode_range(self, range: &KeyRange<RawKey>) -> KeyRange<EncodedKey> {
        if self.is_encoded() {
            key::encode_range(range)
        } else {
            KeyRange::new(range.start.as_bytes(), range.end.as_bytes())
        }
    }

    /// A bound of a range as the client knows it.
    pub(super) fn decode_bound(self, bound: &EncodedKey) -> Result<RawKey, DecodeError> {
        if bound.is_empty() {
            Ok(RawKey::default())
        } else if self.is_encoded() {
            key::decode(bound.as_bytes())
        } else {
            Ok(RawKey::from(bound.as_bytes()))
        }
    }

    /// The range that a file names: in the form of the backup.
    pub(super) fn file_range(self, range: &KeyRange<RawKey>) -> KeyRange<RawKey> {
        if self.is_raw && self.store != self.backup {
            api_version::v2_range_of_v1(range)
        } else {
            range.clone()
        }
    }

    /// Converts a raw entry; `None` if it is removed or expired. `key` is without `z`.
    pub(super) fn convert<'a>(
        self,
        stored_key: &'a [u8],
        stored_value: &'a [u8],
        now_seconds: u64,
        room: &'a mut RawRoom,
    ) -> Result<Option<RawEntry<'a>>, DecodeError> {
        let value = RawValue::decode(self.store, stored_value)?;
        if !value.is_visible_at(now_seconds) {
            return Ok(None);
        }
        let user_value = value.user_value;
        if self.store == self.backup {
            let user_key = if self.store == ApiVersion::V2 {
                let (encoded, _) = key::split_ts(stored_key)?;
                room.user_key.clear();
                let mut input = encoded;
                br_codec::bytes::decode_into(&mut room.user_key, &mut input)?;
                &room.user_key[..]
            } else {
                stored_key
            };
            return Ok(Some(RawEntry {
                key: stored_key,
                value: stored_value,
                user_key,
                user_value,
            }));
        }
        room.key = api_version::v2_engine_key_of_v1(stored_key);
        room.value = value.encode(self.backup);
        room.user_key.clear();
        let mut input = room
            .key
            .get(..room.key.len().saturating_sub(TS_LEN))
            .unwrap_or_default();
        br_codec::bytes::decode_into(&mut room.user_key, &mut input)?;
        Ok(Some(RawEntry {
            key: &room.key,
            value: &room.value,
            user_key: &room.user_key,
            user_value,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> KeyRange<RawKey> {
        KeyRange::new(start.as_bytes(), end.as_bytes())
    }

    #[test]
    fn only_these_conversions_exist() {
        use ApiVersion::{V1, V1Ttl, V2};
        for (store, backup, exists) in [
            (V1, V1, true),
            (V1Ttl, V1Ttl, true),
            (V2, V2, true),
            (V1, V2, true),
            (V1Ttl, V2, true),
            (V1, V1Ttl, false),
            (V1Ttl, V1, false),
            (V2, V1, false),
            (V2, V1Ttl, false),
        ] {
            assert_eq!(
                Form::new(true, store, backup).is_some(),
                exists,
                "{store:?} {backup:?}"
            );
        }
        assert!(Form::new(false, V2, V1).is_some());
    }

    #[test]
    fn raw_ranges_of_v2_stay_in_their_mode() {
        let v2 = Form::new(true, ApiVersion::V2, ApiVersion::V2).unwrap();
        assert!(v2.allows(&range("r", "s")));
        assert!(v2.allows(&range("ra", "rz")));
        assert!(!v2.allows(&range("", "")));
        assert!(!v2.allows(&range("a", "z")));
        assert!(
            Form::new(true, ApiVersion::V1, ApiVersion::V2)
                .unwrap()
                .allows(&range("", ""))
        );
    }

    #[test]
    fn entries_of_v1ttl_become_entries_of_v2() {
        let form = Form::new(true, ApiVersion::V1Ttl, ApiVersion::V2).unwrap();
        let stored = RawValue {
            user_value: b"v",
            expires_at_seconds: Some(9),
            is_deleted: false,
        }
        .encode(ApiVersion::V1Ttl);
        let mut room = RawRoom::default();
        let entry = form.convert(b"k", &stored, 5, &mut room).unwrap().unwrap();
        assert_eq!(entry.key, api_version::v2_engine_key_of_v1(b"k"));
        assert_eq!(entry.value, b"v\0\0\0\0\0\0\0\x09\x01");
        assert_eq!(
            (entry.user_key, entry.user_value),
            (&b"r\0\0\0k"[..], &b"v"[..])
        );
        assert_eq!(form.convert(b"k", &stored, 9, &mut room), Ok(None));
    }
}
