use br_cluster::{Cluster, KvError};
use br_codec::key;
use br_proto::kvrpcpb::{LockInfo, ScanLockRequest, ScanLockResponse};
use br_types::{EncodedKey, KeyRange, RawKey, TimeStamp};

/// Locks in one answer.
const PAGE_LOCKS: u32 = 1024;

/// Goes through the locks in a range of transactions that began at a timestamp or before.
pub(crate) struct OldLocks<'c> {
    cluster: &'c Cluster,
    /// What is not searched yet; `None` when all is.
    rest: Option<KeyRange<EncodedKey>>,
    max_version: TimeStamp,
}

impl<'c> OldLocks<'c> {
    pub(crate) fn new(
        cluster: &'c Cluster,
        range: KeyRange<EncodedKey>,
        max_version: TimeStamp,
    ) -> OldLocks<'c> {
        OldLocks {
            cluster,
            rest: Some(range),
            max_version,
        }
    }

    /// The next locks, which may be none in a region without any; `None` at the end.
    ///
    /// # Errors
    /// PD or stores are out of reach, or refuse.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<LockInfo>>, KvError> {
        const METHOD: &str = "KvScanLock";
        let Some(range) = self.rest.clone() else {
            return Ok(None);
        };
        let max_version = self.max_version.0;
        let (answer, route): (ScanLockResponse, _) = self
            .cluster
            .router()
            .send(&range.start, |client, route| {
                let part = route.range().intersect(&range);
                let part = part.and_then(|part| key::decode_range(&part).ok());
                async move {
                    let part: KeyRange<RawKey> = part.unwrap_or_default();
                    let request = ScanLockRequest {
                        context: Some(route.context()),
                        max_version,
                        start_key: part.start.into_bytes(),
                        end_key: part.end.into_bytes(),
                        limit: PAGE_LOCKS,
                    };
                    client.scan_lock(request).await
                }
            })
            .await?;
        if let Some(error) = answer.error {
            return Err(KvError::Refused {
                method: METHOD,
                message: format!("{}{}", error.abort, error.retryable),
            });
        }
        let is_full = u32::try_from(answer.locks.len()).unwrap_or(u32::MAX) >= PAGE_LOCKS;
        let next = match answer.locks.last() {
            Some(last) if is_full => {
                let after = RawKey::from(last.key.as_slice()).successor();
                key::encode(after.as_bytes())
            }
            _ => route.range().end,
        };
        let is_more = !next.is_empty() && next > range.start && range.is_before_end(&next);
        self.rest = is_more.then(|| KeyRange::new(next, range.end));
        Ok(Some(answer.locks))
    }
}
