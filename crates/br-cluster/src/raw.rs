use std::time::Duration;

use br_codec::{
    api_version::{ApiVersion, KeyspaceId, RAW_PREFIX},
    key,
};
use br_proto::kvrpcpb;
use br_types::{EncodedKey, KeyRange, RawKey};

use crate::{KvError, RegionRoute, Router};

/// Pairs of one page of a scan.
const PAGE_PAIRS: usize = 1024;

/// How raw keys lie in the regions of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLayout {
    version: ApiVersion,
    /// Only in V2; `None`: keys bring what stands before them in V2 along.
    keyspace: Option<KeyspaceId>,
}

impl RawLayout {
    /// That of stores with an API version; in V2 the default keyspace.
    pub fn new(version: ApiVersion) -> RawLayout {
        RawLayout {
            version,
            keyspace: Some(KeyspaceId::default()),
        }
    }

    /// That of a keyspace (V2).
    pub fn keyspace(keyspace: KeyspaceId) -> RawLayout {
        RawLayout {
            version: ApiVersion::V2,
            keyspace: Some(keyspace),
        }
    }

    /// That of keys of all keyspaces: in V2 a key is given with `r` and its keyspace before it.
    pub fn all_keyspaces(version: ApiVersion) -> RawLayout {
        RawLayout {
            version,
            keyspace: None,
        }
    }

    /// The API version.
    pub fn version(self) -> ApiVersion {
        self.version
    }

    fn prefix(self) -> Vec<u8> {
        match (self.version, self.keyspace) {
            (ApiVersion::V1 | ApiVersion::V1Ttl, _) | (ApiVersion::V2, None) => Vec::new(),
            (ApiVersion::V2, Some(keyspace)) => {
                let [_, a, b, c] = keyspace.get().to_be_bytes();
                vec![RAW_PREFIX, a, b, c]
            }
        }
    }

    /// The key as it goes into requests.
    pub fn wire(self, user: &RawKey) -> RawKey {
        let mut bytes = self.prefix();
        bytes.extend_from_slice(user.as_bytes());
        RawKey::from(bytes)
    }

    /// The range as it goes into requests; in V2 an open end ends with the keyspace, or with the
    /// raw keys.
    pub fn wire_range(self, user: &KeyRange<RawKey>) -> KeyRange<RawKey> {
        let all = match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => RawKey::default(),
            ApiVersion::V2 if self.keyspace.is_none() => RawKey::from(vec![RAW_PREFIX]),
            ApiVersion::V2 => RawKey::from(self.prefix()),
        };
        let wire = |bound: &RawKey, open: RawKey| {
            if bound.is_empty() {
                open
            } else {
                self.wire(bound)
            }
        };
        KeyRange {
            end: wire(&user.end, all.prefix_end()),
            start: wire(&user.start, all),
        }
    }

    /// The user's key of one in an answer; `None` if it is not of this keyspace.
    pub fn user(self, wire: &[u8]) -> Option<RawKey> {
        wire.strip_prefix(self.prefix().as_slice())
            .map(RawKey::from)
    }

    /// A key of requests as regions know it.
    pub fn routing(self, wire: &RawKey) -> EncodedKey {
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => EncodedKey::from(wire.as_bytes()),
            ApiVersion::V2 => key::encode(wire.as_bytes()),
        }
    }

    /// A range of requests as regions know it.
    pub fn routing_range(self, wire: &KeyRange<RawKey>) -> KeyRange<EncodedKey> {
        let end = if wire.end.is_empty() {
            EncodedKey::default()
        } else {
            self.routing(&wire.end)
        };
        let start = if wire.start.is_empty() {
            EncodedKey::default()
        } else {
            self.routing(&wire.start)
        };
        KeyRange { start, end }
    }

    /// The bound of a region as a key of requests.
    fn bound(self, bound: &EncodedKey) -> Result<RawKey, KvError> {
        if bound.is_empty() {
            return Ok(RawKey::default());
        }
        match self.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => Ok(RawKey::from(bound.as_bytes())),
            ApiVersion::V2 => {
                key::decode(bound.as_bytes()).map_err(|error| KvError::InvalidResponse {
                    method: "RawScan",
                    what: format!("is of a region whose bound is no key: {error}"),
                })
            }
        }
    }
}

/// The checksum of a range of raw data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawChecksum {
    /// XOR of the CRC64 of each key and value.
    pub crc64xor: u64,
    /// Pairs.
    pub total_kvs: u64,
    /// Bytes of keys and values.
    pub total_bytes: u64,
}

/// Raw key-value data: no transactions, each write by itself. Cheap to clone.
///
/// Writes are repeated when an answer is lost; each of them may be carried out twice, to the same
/// effect.
#[derive(Clone)]
pub struct RawClient {
    router: Router,
    layout: RawLayout,
}

/// A refusal, which raw answers carry as text.
fn refused(method: &'static str, message: String) -> Result<(), KvError> {
    if message.is_empty() {
        Ok(())
    } else {
        Err(KvError::Refused { method, message })
    }
}

impl RawClient {
    pub(crate) fn new(router: Router, layout: RawLayout) -> Self {
        Self { router, layout }
    }

    /// The same client for keys that lie in another way.
    #[must_use]
    pub fn with_layout(&self, layout: RawLayout) -> RawClient {
        RawClient {
            layout,
            router: self.router.clone(),
        }
    }

    /// How keys lie.
    pub fn layout(&self) -> RawLayout {
        self.layout
    }

    fn context(&self, route: &RegionRoute) -> kvrpcpb::Context {
        let keyspace = self
            .layout
            .keyspace
            .filter(|_| self.layout.version == ApiVersion::V2)
            .map(|id| kvrpcpb::context::Keyspace::KeyspaceId(id.get()));
        kvrpcpb::Context {
            api_version: self.layout.version as i32,
            keyspace,
            ..route.context()
        }
    }

    /// The value of a key; `None` if it does not exist (any more).
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn get(&self, key: &RawKey) -> Result<Option<Vec<u8>>, KvError> {
        let wire = self.layout.wire(key);
        let (answer, _): (kvrpcpb::RawGetResponse, _) = self
            .router
            .send(&self.layout.routing(&wire), |client, route| {
                let request = kvrpcpb::RawGetRequest {
                    context: Some(self.context(&route)),
                    key: wire.as_bytes().to_vec(),
                    ..Default::default()
                };
                async move { client.raw_get(request).await }
            })
            .await?;
        refused("RawGet", answer.error)?;
        Ok((!answer.not_found).then_some(answer.value))
    }

    /// Sets a key, for `ttl` if given (whole seconds; not with API V1).
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn put(
        &self,
        key: &RawKey,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), KvError> {
        let wire = self.layout.wire(key);
        let (answer, _): (kvrpcpb::RawPutResponse, _) = self
            .router
            .send(&self.layout.routing(&wire), |client, route| {
                let request = kvrpcpb::RawPutRequest {
                    context: Some(self.context(&route)),
                    key: wire.as_bytes().to_vec(),
                    value: value.to_vec(),
                    ttl: ttl.map_or(0, |ttl| ttl.as_secs().max(1)),
                    ..Default::default()
                };
                async move { client.raw_put(request).await }
            })
            .await?;
        refused("RawPut", answer.error)
    }

    /// Sets many keys. Not all or nothing: after an error some may be set.
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn batch_put(
        &self,
        pairs: impl IntoIterator<Item = (RawKey, Vec<u8>)>,
        ttl: Option<Duration>,
    ) -> Result<(), KvError> {
        let ttl_seconds = ttl.map_or(0, |ttl| ttl.as_secs().max(1));
        let mut rest: Vec<(RawKey, Vec<u8>)> = pairs
            .into_iter()
            .map(|(key, value)| (self.layout.wire(&key), value))
            .collect();
        rest.sort();
        while let Some((first, _)) = rest.first() {
            let routing = self.layout.routing(first);
            let (answer, route): (kvrpcpb::RawBatchPutResponse, _) = self
                .router
                .send(&routing, |client, route| {
                    let pairs = rest
                        .get(..self.batch_len(&route, &rest))
                        .unwrap_or_default()
                        .iter()
                        .map(|(key, value)| kvrpcpb::KvPair {
                            key: key.as_bytes().to_vec(),
                            value: value.clone(),
                            ..Default::default()
                        })
                        .collect();
                    let request = kvrpcpb::RawBatchPutRequest {
                        context: Some(self.context(&route)),
                        pairs,
                        ttls: vec![ttl_seconds],
                        ..Default::default()
                    };
                    async move { client.raw_batch_put(request).await }
                })
                .await?;
            refused("RawBatchPut", answer.error)?;
            rest.drain(..self.batch_len(&route, &rest));
        }
        Ok(())
    }

    /// How many of the sorted pairs go into one request to that region; at least one.
    fn batch_len(&self, route: &RegionRoute, pairs: &[(RawKey, Vec<u8>)]) -> usize {
        /// Far below a raft entry.
        const BATCH_BYTES_MAX: usize = 512 << 10;
        let range = route.range();
        let mut bytes = 0;
        let held = pairs.iter().take_while(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= BATCH_BYTES_MAX && range.is_before_end(&self.layout.routing(key))
        });
        held.count().clamp(1, pairs.len().max(1))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn delete(&self, key: &RawKey) -> Result<(), KvError> {
        let wire = self.layout.wire(key);
        let (answer, _): (kvrpcpb::RawDeleteResponse, _) = self
            .router
            .send(&self.layout.routing(&wire), |client, route| {
                let request = kvrpcpb::RawDeleteRequest {
                    context: Some(self.context(&route)),
                    key: wire.as_bytes().to_vec(),
                    ..Default::default()
                };
                async move { client.raw_delete(request).await }
            })
            .await?;
        refused("RawDelete", answer.error)
    }

    /// Removes a range, region by region.
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn delete_range(&self, range: &KeyRange<RawKey>) -> Result<(), KvError> {
        let mut rest = self.layout.wire_range(range);
        while !rest.is_empty() {
            let (answer, route): (kvrpcpb::RawDeleteRangeResponse, _) = self
                .router
                .send(&self.layout.routing_range(&rest).start, |client, route| {
                    let part = self.part(&route, &rest);
                    let context = self.context(&route);
                    async move {
                        let Ok(part) = part else {
                            return Ok(Default::default());
                        };
                        let request = kvrpcpb::RawDeleteRangeRequest {
                            context: Some(context),
                            start_key: part.start.into_bytes(),
                            end_key: part.end.into_bytes(),
                            ..Default::default()
                        };
                        client.raw_delete_range(request).await
                    }
                })
                .await?;
            refused("RawDeleteRange", answer.error)?;
            let end = self.part(&route, &rest)?.end;
            if end.is_empty() {
                break;
            }
            rest.start = end;
        }
        Ok(())
    }

    /// The part of a range of requests that lies in a region, which holds its start.
    fn part(
        &self,
        route: &RegionRoute,
        rest: &KeyRange<RawKey>,
    ) -> Result<KeyRange<RawKey>, KvError> {
        let region_end = self.layout.bound(&route.range().end)?;
        let region = KeyRange {
            start: rest.start.clone(),
            end: region_end,
        };
        Ok(region.intersect(rest).unwrap_or_else(|| rest.clone()))
    }

    /// One page of the pairs of a range, from its start on, and what is left of it; nothing is
    /// left at its end. A page may be empty before that.
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn scan_page(
        &self,
        range: &KeyRange<RawKey>,
    ) -> Result<(Vec<(RawKey, Vec<u8>)>, Option<KeyRange<RawKey>>), KvError> {
        let wire = self.layout.wire_range(range);
        if wire.is_empty() {
            return Ok((Vec::new(), None));
        }
        let (answer, route): (kvrpcpb::RawScanResponse, _) = self
            .router
            .send(&self.layout.routing_range(&wire).start, |client, route| {
                let request = kvrpcpb::RawScanRequest {
                    context: Some(self.context(&route)),
                    start_key: wire.start.as_bytes().to_vec(),
                    end_key: wire.end.as_bytes().to_vec(),
                    limit: PAGE_PAIRS as u32,
                    ..Default::default()
                };
                async move { client.raw_scan(request).await }
            })
            .await?;
        let is_full = answer.kvs.len() >= PAGE_PAIRS;
        let mut pairs = Vec::with_capacity(answer.kvs.len());
        for pair in answer.kvs {
            if let Some(error) = pair.error {
                return Err(KvError::from_key_error(
                    "RawScan",
                    Default::default(),
                    error,
                ));
            }
            pairs.extend(self.layout.user(&pair.key).map(|key| (key, pair.value)));
        }
        let rest = if is_full {
            pairs.last().map(|(key, _)| key.successor())
        } else {
            let end = self.layout.bound(&route.range().end)?;
            let in_range = !end.is_empty() && wire.is_before_end(&end);
            if in_range {
                self.layout.user(end.as_bytes())
            } else {
                None
            }
        };
        let rest = rest.map(|start| KeyRange {
            start,
            end: range.end.clone(),
        });
        Ok((pairs, rest.filter(|rest| !rest.is_empty())))
    }

    /// All pairs of a range, at most `limit`.
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn scan(
        &self,
        range: &KeyRange<RawKey>,
        limit: usize,
    ) -> Result<Vec<(RawKey, Vec<u8>)>, KvError> {
        let mut pairs = Vec::new();
        let mut rest = Some(range.clone());
        while let Some(range) = rest.filter(|_| pairs.len() < limit) {
            let (page, next) = self.scan_page(&range).await?;
            pairs.extend(page);
            rest = next;
        }
        pairs.truncate(limit);
        Ok(pairs)
    }

    /// The checksum of a range, computed by the stores.
    ///
    /// # Errors
    /// PD or a store is out of reach or refuses.
    pub async fn checksum(&self, range: &KeyRange<RawKey>) -> Result<RawChecksum, KvError> {
        let mut sum = RawChecksum::default();
        let mut rest = self.layout.wire_range(range);
        while !rest.is_empty() {
            let (answer, route): (kvrpcpb::RawChecksumResponse, _) = self
                .router
                .send(&self.layout.routing_range(&rest).start, |client, route| {
                    let part = self.part(&route, &rest);
                    let context = self.context(&route);
                    async move {
                        let Ok(part) = part else {
                            return Ok(Default::default());
                        };
                        let request = kvrpcpb::RawChecksumRequest {
                            context: Some(context),
                            ranges: vec![kvrpcpb::KeyRange {
                                start_key: part.start.into_bytes(),
                                end_key: part.end.into_bytes(),
                            }],
                            ..Default::default()
                        };
                        client.raw_checksum(request).await
                    }
                })
                .await?;
            refused("RawChecksum", answer.error)?;
            sum.crc64xor ^= answer.checksum;
            sum.total_kvs += answer.total_kvs;
            sum.total_bytes += answer.total_bytes;
            let end = self.part(&route, &rest)?.end;
            if end.is_empty() {
                break;
            }
            rest.start = end;
        }
        Ok(sum)
    }
}
