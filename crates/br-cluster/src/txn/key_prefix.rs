use br_codec::{
    api_version::{ApiVersion, KeyspaceId, TXN_PREFIX},
    key,
};
use br_proto::kvrpcpb;
use br_types::{EncodedKey, KeyRange, RawKey};

/// What stands before every transactional key: nothing (API v1, and TiDB's `m` and `t` keys in
/// v2), or `x` and three bytes for a keyspace of API v2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPrefix {
    keyspace: Option<KeyspaceId>,
}

impl KeyPrefix {
    /// That of a keyspace.
    pub const fn keyspace(id: KeyspaceId) -> KeyPrefix {
        KeyPrefix { keyspace: Some(id) }
    }

    /// The keyspace, if there is one.
    pub const fn keyspace_id(self) -> Option<KeyspaceId> {
        self.keyspace
    }

    fn bytes(self) -> Vec<u8> {
        match self.keyspace {
            None => Vec::new(),
            Some(id) => {
                let [_, a, b, c] = id.get().to_be_bytes();
                vec![TXN_PREFIX, a, b, c]
            }
        }
    }

    /// The key as it goes into requests.
    pub fn wire(self, user: &RawKey) -> RawKey {
        let mut bytes = self.bytes();
        if bytes.is_empty() {
            return user.clone();
        }
        bytes.extend_from_slice(user.as_bytes());
        RawKey::from(bytes)
    }

    /// The range as it goes into requests; an open end ends with the keyspace.
    pub fn wire_range(self, user: &KeyRange<RawKey>) -> KeyRange<RawKey> {
        let end = if user.end.is_empty() {
            RawKey::from(self.bytes()).prefix_end()
        } else {
            self.wire(&user.end)
        };
        KeyRange {
            start: self.wire(&user.start),
            end,
        }
    }

    /// The user's key of one in an answer; `None` if it is not of this keyspace.
    pub fn user(self, wire: Vec<u8>) -> Option<RawKey> {
        let prefix = self.bytes();
        if prefix.is_empty() {
            return Some(RawKey::from(wire));
        }
        wire.strip_prefix(prefix.as_slice()).map(RawKey::from)
    }

    /// Where a request for a key (with the prefix) goes.
    pub(crate) fn routing(wire: &RawKey) -> EncodedKey {
        key::encode(wire.as_bytes())
    }

    /// Marks a request with the API version and the keyspace.
    pub(crate) fn mark(self, context: &mut kvrpcpb::Context) {
        if let Some(id) = self.keyspace {
            context.api_version = ApiVersion::V2 as i32;
            context.keyspace = Some(kvrpcpb::context::Keyspace::KeyspaceId(id.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_bounds_its_keys() {
        let prefix = KeyPrefix::keyspace(KeyspaceId::new(5).expect("small"));
        let all = prefix.wire_range(&KeyRange::default());
        assert_eq!(all.start.as_bytes(), b"x\0\0\x05");
        assert_eq!(all.end.as_bytes(), b"x\0\0\x06");
        let wire = prefix.wire(&RawKey::from(&b"k"[..]));
        assert_eq!(
            prefix.user(wire.into_bytes()),
            Some(RawKey::from(&b"k"[..]))
        );
        assert_eq!(prefix.user(b"y\0\0\x05k".to_vec()), None);
        assert_eq!(
            KeyPrefix::default().wire_range(&KeyRange::default()),
            KeyRange::default()
        );
    }
}
