//! How keys of the backup become keys of regions.

use br_codec::{DecodeError, key};
use br_types::{EncodedKey, KeyRange, RawKey};

/// Whether regions know keys by their memcomparable form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// They do: transactional data, and raw data of API v2.
    Encoded,
    /// Region boundaries are the keys themselves: raw data of API v1.
    Plain,
}

impl KeyForm {
    /// As regions know the key.
    pub(super) fn encode(self, raw: &RawKey) -> EncodedKey {
        match self {
            KeyForm::Encoded => key::encode(raw.as_bytes()),
            KeyForm::Plain => EncodedKey::from(raw.as_bytes()),
        }
    }

    /// As regions know the range.
    pub(super) fn encode_range(self, raw: &KeyRange<RawKey>) -> KeyRange<EncodedKey> {
        let bound = |raw: &RawKey| match raw.is_empty() {
            true => EncodedKey::default(),
            false => self.encode(raw),
        };
        KeyRange {
            start: bound(&raw.start),
            end: bound(&raw.end),
        }
    }

    /// As users know a region's range.
    ///
    /// # Errors
    /// A boundary is not memcomparable.
    pub(super) fn decode_range(
        self,
        encoded: &KeyRange<EncodedKey>,
    ) -> Result<KeyRange<RawKey>, DecodeError> {
        match self {
            KeyForm::Encoded => key::decode_range(encoded),
            KeyForm::Plain => Ok(KeyRange::new(
                encoded.start.as_bytes().to_vec(),
                encoded.end.as_bytes().to_vec(),
            )),
        }
    }
}
