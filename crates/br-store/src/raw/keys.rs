use br_codec::{ApiVersion, DecodeError, RawValue, api_version::RAW_PREFIX, bytes, key};
use br_proto::errorpb;
use br_types::{Cf, DataKey, EncodedKey, KeyRange, RawKey, TimeStamp};

use crate::{
    engine::{EngineError, Snapshot},
    mvcc::{MvccError, engine_region_error},
    storage::Storage,
};

/// Why a raw command failed; becomes a string in its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RawError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    #[error("there is no column family {0:?} for raw data")]
    NoSuchFamily(String),
    #[error("a raw key of API version 2 begins with 'r' and a keyspace")]
    NotRawKey,
    #[error("this store keeps no expiry (API version 1)")]
    NoExpiry,
    #[error("{0}")]
    Invalid(&'static str),
}

impl RawError {
    pub(crate) fn region_error(&self) -> Option<errorpb::Error> {
        match self {
            RawError::Engine(error) => engine_region_error(error),
            _ => None,
        }
    }
}

impl From<MvccError> for RawError {
    fn from(error: MvccError) -> Self {
        match error {
            MvccError::Engine(error) => RawError::Engine(error),
            MvccError::Damaged(error) => RawError::Damaged(error),
            _ => RawError::Invalid("a raw command met a transaction"),
        }
    }
}

/// Where raw data of a request lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) version: ApiVersion,
    pub(super) cf: Cf,
}

impl Storage {
    /// The place that a request's column family means.
    pub(super) fn raw_place(&self, cf: &str) -> Result<Place, RawError> {
        let version = self.api_version();
        let found = Cf::from_name(cf).filter(|&cf| version != ApiVersion::V2 || cf == Cf::Default);
        let cf = found.ok_or_else(|| RawError::NoSuchFamily(cf.to_owned()))?;
        Ok(Place { version, cf })
    }

    /// Unix seconds.
    pub(super) fn now_seconds(&self) -> u64 {
        self.0.rt.wall().0 / 1000
    }

    /// When a value with that time to live expires; 0 seconds: never.
    pub(super) fn expiry(&self, ttl_seconds: u64) -> Result<Option<u64>, RawError> {
        if ttl_seconds == 0 {
            return Ok(None);
        }
        if self.api_version() == ApiVersion::V1 {
            return Err(RawError::NoExpiry);
        }
        Ok(Some(self.now_seconds().saturating_add(ttl_seconds)))
    }
}

impl Place {
    /// The key as regions know it.
    pub(super) fn encode(self, raw: &[u8]) -> Result<EncodedKey, RawError> {
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => Ok(EncodedKey::from(raw)),
            ApiVersion::V2 if raw.first() == Some(&RAW_PREFIX) && raw.len() >= 4 => {
                Ok(key::encode(raw))
            }
            ApiVersion::V2 => Err(RawError::NotRawKey),
        }
    }

    /// A range of raw keys as regions know it. In V2 it stays within raw data.
    pub(super) fn encode_range(
        self,
        start: &[u8],
        end: &[u8],
    ) -> Result<KeyRange<EncodedKey>, RawError> {
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => Ok(KeyRange::new(start, end)),
            ApiVersion::V2 => {
                let raw_data = KeyRange::<RawKey>::new(vec![RAW_PREFIX], vec![RAW_PREFIX + 1]);
                let wanted = KeyRange::<RawKey>::new(start, end);
                let range = wanted.intersect(&raw_data).unwrap_or_else(|| KeyRange {
                    start: raw_data.start.clone(),
                    end: raw_data.start.clone(),
                });
                Ok(key::encode_range(&range))
            }
        }
    }

    /// The key that a write at `ts` goes to; the timestamp matters in V2 alone.
    pub(super) fn write_key(self, encoded: &EncodedKey, ts: TimeStamp) -> DataKey {
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => key::data_key(encoded.as_bytes()),
            ApiVersion::V2 => key::data_key_at(encoded.as_bytes(), ts),
        }
    }

    /// The part of a data key that names the user's key, without version.
    pub(super) fn user_part(self, data_key: &[u8]) -> Result<&[u8], RawError> {
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => Ok(data_key),
            ApiVersion::V2 => Ok(key::split_ts(data_key)?.0),
        }
    }

    /// The user's key of a [`user_part`](Self::user_part).
    pub(super) fn raw_key(self, user_part: &[u8]) -> Result<Vec<u8>, RawError> {
        let encoded = key::strip_data_prefix(user_part)?;
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => Ok(encoded.to_vec()),
            ApiVersion::V2 => Ok(bytes::decode(&mut &*encoded)?),
        }
    }

    /// What is stored for a key: its newest version, expired and removed ones too.
    pub(super) fn stored(
        self,
        snapshot: &dyn Snapshot,
        encoded: &EncodedKey,
    ) -> Result<Option<Vec<u8>>, RawError> {
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => {
                Ok(snapshot.get(self.cf, key::data_key(encoded.as_bytes()).as_bytes())?)
            }
            ApiVersion::V2 => {
                let start = key::data_key_at(encoded.as_bytes(), TimeStamp::MAX);
                let end = key::data_key_at(encoded.as_bytes(), TimeStamp::ZERO);
                let mut cursor = snapshot.iter(self.cf, KeyRange { start, end });
                Ok(cursor.seek_to_first()?.then(|| cursor.value().to_vec()))
            }
        }
    }

    /// The value of a key for a reader at that time.
    pub(super) fn value(
        self,
        snapshot: &dyn Snapshot,
        encoded: &EncodedKey,
        now_seconds: u64,
    ) -> Result<Option<Vec<u8>>, RawError> {
        let Some(stored) = self.stored(snapshot, encoded)? else {
            return Ok(None);
        };
        let value = RawValue::decode(self.version, &stored)?;
        Ok(value
            .is_visible_at(now_seconds)
            .then(|| value.user_value.to_vec()))
    }
}
