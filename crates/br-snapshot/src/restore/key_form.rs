//! How keys of the backup become keys of regions, and what stores have to know of them.

use br_codec::{ApiVersion, DecodeError, key};
use br_types::{EncodedKey, KeyRange, RawKey};

/// Whether regions know keys by their memcomparable form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// They do: transactional data, and raw data of API v2.
    Encoded,
    /// Region boundaries are the keys themselves: raw data of API v1.
    Plain,
}

/// What the keys and values in files are, as stores are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileKeys {
    pub(super) form: KeyForm,
    /// Whether they are those of a raw key-value client.
    pub(super) is_raw: bool,
    /// How they are laid out. Keys of TiDB are the same in each version.
    pub(super) api_version: ApiVersion,
}

impl FileKeys {
    /// Those of TiDB.
    pub(super) const TABLES: FileKeys = FileKeys::transactional(ApiVersion::V1);

    /// Those of transactions.
    pub(super) const fn transactional(api_version: ApiVersion) -> FileKeys {
        FileKeys {
            form: KeyForm::Encoded,
            is_raw: false,
            api_version,
        }
    }

    /// Those of a raw key-value client.
    pub(super) const fn raw(api_version: ApiVersion) -> FileKeys {
        FileKeys {
            form: match api_version {
                ApiVersion::V1 | ApiVersion::V1Ttl => KeyForm::Plain,
                ApiVersion::V2 => KeyForm::Encoded,
            },
            is_raw: true,
            api_version,
        }
    }

    /// Whether the keys in files end with a timestamp.
    pub(super) fn have_ts(self) -> bool {
        self.form == KeyForm::Encoded
    }
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
