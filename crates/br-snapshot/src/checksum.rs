//! # What it does
//! Has the stores compute the checksum of ranges at a timestamp (`ADMIN CHECKSUM TABLE`).
//!
//! # Ordering and invariants
//! Every key of a range is summed exactly once: a range is walked region by region, each step
//! starting where the region of the step before ended.
//!
//! # Retries
//! Region errors by the router. Locks are resolved, or waited for by [`KEY_ERROR_RETRY`].
//!
//! # Source
//! The coprocessor's request type 105, `tipb.ChecksumRequest`.

use br_cluster::{Cluster, KEY_ERROR_RETRY, KvError, RegionRoute};
use br_codec::key;
use br_format::kv_stats::KvStats;
use br_proto::{coprocessor, tipb};
use br_rt::Backoff;
use br_types::{Classify, Code, KeyRange, Kind, RawKey, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;

/// The coprocessor's number for checksums.
const CHECKSUM_REQUEST: i64 = 105;

/// A checksum that the stores did not give.
#[derive(Debug, thiserror::Error)]
pub enum ChecksumError {
    /// The cluster does not answer.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A store refused.
    #[error("a store could not compute the checksum of {range}: {message}")]
    Refused {
        /// The range.
        range: KeyRange<RawKey>,
        /// What it said.
        message: String,
    },
}

impl Classify for ChecksumError {
    fn kind(&self) -> Kind {
        match self {
            ChecksumError::Kv(error) => error.kind(),
            ChecksumError::Refused { .. } => Kind::Internal,
        }
    }

    fn code(&self) -> Code {
        match self {
            ChecksumError::Kv(error) => error.code(),
            ChecksumError::Refused { .. } => Code::KV_UNKNOWN,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            ChecksumError::Kv(error) => error.next_step(),
            ChecksumError::Refused { .. } => {
                Some("Look into the log of the store that leads this range".to_owned())
            }
        }
    }
}

/// A range to sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumRange {
    /// The keys as they go into requests.
    pub range: KeyRange<RawKey>,
    /// Sum the keys as if they began with another prefix.
    pub rewrite: Option<PrefixRewrite>,
}

/// Stands for a prefix in the sums: keys begin with `new`, and count as if they began with `old`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixRewrite {
    /// The prefix that counts.
    pub old: RawKey,
    /// The prefix that the keys have.
    pub new: RawKey,
}

/// The sums of ranges at a timestamp, with so many requests at a time.
///
/// # Errors
/// [`ChecksumError`].
pub async fn checksum(
    cluster: &Cluster,
    ranges: &[ChecksumRange],
    ts: TimeStamp,
    requests_max: usize,
) -> Result<KvStats, ChecksumError> {
    stream::iter(ranges)
        .then(|range| by_region(cluster, range))
        .map_ok(|parts| stream::iter(parts.into_iter().map(Ok)))
        .try_flatten()
        .map_ok(|part| sum_part(cluster, part, ts))
        .try_buffer_unordered(requests_max.max(1))
        .try_fold(KvStats::default(), |mut sum, part| async move {
            sum += part;
            Ok(sum)
        })
        .await
}

/// Cuts a range at the borders of the regions that PD knows, so that they can be summed side by
/// side. What PD has wrong costs time only.
async fn by_region(
    cluster: &Cluster,
    whole: &ChecksumRange,
) -> Result<Vec<ChecksumRange>, ChecksumError> {
    let encoded = key::encode_range(&whole.range);
    let first = cluster.router().locate(&encoded.start).await?;
    if first.range().covers(&encoded) {
        return Ok(vec![whole.clone()]);
    }
    let mut parts = Vec::new();
    let mut start = whole.range.start.clone();
    for region in cluster
        .pd()
        .all_regions(&encoded)
        .await
        .map_err(KvError::from)?
    {
        let Some(end) = end_within(&region, &whole.range) else {
            break;
        };
        let range = KeyRange {
            start,
            end: end.clone(),
        };
        parts.push(ChecksumRange {
            range,
            rewrite: whole.rewrite.clone(),
        });
        start = end;
    }
    let range = KeyRange {
        start,
        end: whole.range.end.clone(),
    };
    parts.push(ChecksumRange {
        range,
        rewrite: whole.rewrite.clone(),
    });
    Ok(parts)
}

/// Where the region ends, if that is before the end of the range. A border that is no key counts
/// as none: the store answers for what it has.
fn end_within(region: &RegionRoute, range: &KeyRange<RawKey>) -> Option<RawKey> {
    let end = region.range().end;
    if end.is_empty() {
        return None;
    }
    key::decode(end.as_bytes())
        .ok()
        .filter(|end| range.is_before_end(end) && *end > range.start)
}

async fn sum_part(
    cluster: &Cluster,
    part: ChecksumRange,
    ts: TimeStamp,
) -> Result<KvStats, ChecksumError> {
    let mut rest = part.range.clone();
    let mut sum = KvStats::default();
    let mut locks = LockWait::new(cluster, ts);
    loop {
        let (answer, region) = request(cluster, &part, &rest, ts, &locks).await?;
        if let Some(lock) = answer.locked {
            locks.clear_way(lock).await?;
            continue;
        }
        let refused = |message: String| ChecksumError::Refused {
            range: rest.clone(),
            message,
        };
        if !answer.other_error.is_empty() {
            return Err(refused(answer.other_error));
        }
        let sums = tipb::ChecksumResponse::decode(answer.data.as_slice())
            .map_err(|error| refused(format!("its answer cannot be read: {error}")))?;
        sum += KvStats {
            crc64_xor: sums.checksum(),
            total_kvs: sums.total_kvs(),
            total_bytes: sums.total_bytes(),
        };
        match end_within(&region, &rest) {
            Some(end) => rest.start = end,
            None => return Ok(sum),
        }
    }
}

async fn request(
    cluster: &Cluster,
    part: &ChecksumRange,
    rest: &KeyRange<RawKey>,
    ts: TimeStamp,
    locks: &LockWait<'_>,
) -> Result<(coprocessor::Response, RegionRoute), KvError> {
    let data = tipb::ChecksumRequest {
        start_ts_fallback: Some(ts.0),
        scan_on: Some(tipb::ChecksumScanOn::Table as i32),
        algorithm: Some(tipb::ChecksumAlgorithm::Crc64Xor as i32),
        rule: part
            .rewrite
            .as_ref()
            .map(|rewrite| tipb::ChecksumRewriteRule {
                old_prefix: Some(rewrite.old.as_bytes().to_vec()),
                new_prefix: Some(rewrite.new.as_bytes().to_vec()),
            }),
    }
    .encode_to_vec();
    cluster
        .router()
        .send(&key::encode(rest.start.as_bytes()), |client, region| {
            let mut context = region.context();
            context.resolved_locks = locks.passable.clone();
            context.not_fill_cache = true;
            let end = end_within(&region, rest).unwrap_or_else(|| rest.end.clone());
            let request = coprocessor::Request {
                context: Some(context),
                tp: CHECKSUM_REQUEST,
                data: data.clone(),
                start_ts: ts.0,
                ranges: vec![coprocessor::KeyRange {
                    start: rest.start.as_bytes().to_vec(),
                    end: end.into_bytes(),
                }],
                ..Default::default()
            };
            async move { client.coprocessor(request).await }
        })
        .await
}

/// Locks in the way of one part.
struct LockWait<'a> {
    cluster: &'a Cluster,
    ts: TimeStamp,
    backoff: Backoff,
    /// Start timestamps of transactions whose locks may be passed by.
    passable: Vec<u64>,
}

impl<'a> LockWait<'a> {
    fn new(cluster: &'a Cluster, ts: TimeStamp) -> LockWait<'a> {
        let backoff = Backoff::new(KEY_ERROR_RETRY, cluster.rt());
        LockWait {
            cluster,
            ts,
            backoff,
            passable: Vec::new(),
        }
    }

    async fn clear_way(&mut self, lock: br_proto::kvrpcpb::LockInfo) -> Result<(), KvError> {
        let locks = std::slice::from_ref(&lock);
        let resolution = self
            .cluster
            .lock_resolver()
            .resolve_for_read(locks, self.ts)
            .await?;
        self.passable
            .extend(resolution.resolved.iter().map(|ts| ts.0));
        let (rt, cancel) = (self.cluster.rt(), self.cluster.cancel());
        if self.backoff.pause(rt, cancel).await {
            return Ok(());
        }
        if cancel.is_cancelled() {
            return Err(KvError::Cancelled);
        }
        Err(KvError::Locked {
            key: RawKey::from(lock.key),
            owner: TimeStamp(lock.lock_version),
        })
    }
}
