//! Raw backups: how the stores lay raw keys out, and which ranges they take.
//!
//! The official tool asks for API version 1 whatever the stores have, and loops for ever when they
//! refuse. Here the stores are asked what they have.

use br_cluster::{Cluster, KeyPrefix, StoreConfig};
use br_codec::api_version::{RAW_PREFIX, v2_raw_key};
use br_proto::{kvrpcpb::ApiVersion, metapb};
use br_types::{KeyRange, RawKey, StoreId};

use super::BackupError;

/// The versions that are tried one after the other when the stores do not say theirs.
pub(super) const CANDIDATES: [ApiVersion; 3] = [ApiVersion::V1, ApiVersion::V1ttl, ApiVersion::V2];

/// The API version of the stores by their configuration; `None` if no status port answers.
pub(super) async fn api_version(
    cluster: &Cluster,
    stores: &[metapb::Store],
) -> Result<Option<ApiVersion>, BackupError> {
    let mut known: Option<ApiVersion> = None;
    for store in stores
        .iter()
        .filter(|store| !store.status_address.is_empty())
    {
        let config = match cluster.store_status().config(&store.status_address).await {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(store = store.id, %error, "the store does not tell its configuration");
                continue;
            }
        };
        let Some(found) = of_config(&config) else {
            continue;
        };
        match known {
            Some(other) if other != found => {
                let store = StoreId(store.id);
                return Err(BackupError::ApiVersionsDiffer {
                    store,
                    found,
                    other,
                });
            }
            _ => known = Some(found),
        }
    }
    Ok(known)
}

fn of_config(config: &StoreConfig) -> Option<ApiVersion> {
    match (config.api_version?, config.ttl_enabled) {
        (1, Some(true)) => Some(ApiVersion::V1ttl),
        (1, _) => Some(ApiVersion::V1),
        (2, _) => Some(ApiVersion::V2),
        _ => None,
    }
}

/// The range in the keys of requests.
///
/// In API v2, raw keys begin with `r` and the keyspace. With a keyspace they are put before the
/// bounds; without one the bounds have them already, or are open.
pub(super) fn wire_range(
    range: &KeyRange<RawKey>,
    api_version: ApiVersion,
    prefix: KeyPrefix,
) -> Result<KeyRange<RawKey>, BackupError> {
    if api_version != ApiVersion::V2 {
        return Ok(range.clone());
    }
    if let Some(keyspace) = prefix.keyspace_id() {
        let key = |user: &RawKey| v2_raw_key(keyspace, user.as_bytes());
        let end = if range.end.is_empty() {
            key(&RawKey::default()).prefix_end()
        } else {
            key(&range.end)
        };
        return Ok(KeyRange {
            start: key(&range.start),
            end,
        });
    }
    let all = KeyRange::<RawKey>::new(vec![RAW_PREFIX], vec![RAW_PREFIX + 1]);
    let bound = |given: &RawKey, open: &RawKey| match given.as_bytes().first() {
        None => Ok(open.clone()),
        Some(&RAW_PREFIX) => Ok(given.clone()),
        Some(_) if *given == all.end => Ok(given.clone()),
        Some(_) => Err(BackupError::NotARawKey { key: given.clone() }),
    };
    Ok(KeyRange {
        start: bound(&range.start, &all.start)?,
        end: bound(&range.end, &all.end)?,
    })
}

#[cfg(test)]
mod tests {
    use br_codec::api_version::KeyspaceId;

    use super::*;

    fn range(start: &[u8], end: &[u8]) -> KeyRange<RawKey> {
        KeyRange::new(start, end)
    }

    #[test]
    fn the_configuration_tells_the_version() {
        let config = |api_version, ttl_enabled| StoreConfig {
            api_version,
            ttl_enabled,
            ..StoreConfig::default()
        };
        assert_eq!(
            of_config(&config(Some(1), Some(false))),
            Some(ApiVersion::V1)
        );
        assert_eq!(
            of_config(&config(Some(1), Some(true))),
            Some(ApiVersion::V1ttl)
        );
        assert_eq!(
            of_config(&config(Some(2), Some(true))),
            Some(ApiVersion::V2)
        );
        assert_eq!(of_config(&config(None, Some(true))), None);
    }

    #[test]
    fn ranges_of_v2_stay_within_raw_keys() {
        let none = KeyPrefix::default();
        let wire = |given: KeyRange<RawKey>| wire_range(&given, ApiVersion::V2, none);
        assert_eq!(wire(range(b"", b"")).expect("all"), range(b"r", b"s"));
        let keyed = range(b"r\0\0\x01a", b"r\0\0\x01b");
        assert_eq!(wire(keyed.clone()).expect("as given"), keyed);
        let error = wire(range(b"a", b"")).expect_err("no raw key");
        assert!(error.to_string().contains("key 61"), "{error}");
        let other = wire_range(&range(b"a", b""), ApiVersion::V1ttl, none);
        assert_eq!(other.expect("as given"), range(b"a", b""));
        let keyspace = KeyPrefix::keyspace(KeyspaceId::new(1).expect("small"));
        let wire = |given| wire_range(&given, ApiVersion::V2, keyspace).expect("within");
        assert_eq!(wire(range(b"", b"")), range(b"r\0\0\x01", b"r\0\0\x02"));
        assert_eq!(wire(range(b"a", b"b")), range(b"r\0\0\x01a", b"r\0\0\x01b"));
    }
}
