//! # What it does
//! Brings one group of files into the cluster: each file is downloaded by every peer of the regions
//! that it touches, which rewrites it and cuts it to the region; then the leader ingests.
//!
//! # Ordering and invariants
//! A region's files are ingested together, and only when every peer has each of them: a peer that
//! lacks a file would die of it. What was ingested is not sent again; what was not is, for the
//! regions that there are by then.
//!
//! # Retries
//! Download and ingest end with the region's error, and the region's part of the range is done
//! again with fresh regions, by [`IMPORT_RETRY`]. Damage in the backup is not tried again.
//!
//! # After a crash
//! Downloaded files that were not ingested are removed by the stores. Ingesting a file twice gives
//! the same keys and values.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_cluster::{KvError, RegionFault, RegionRoute, Router};
use br_format::backupmeta::DataFile;
use br_proto::{
    backup::{CipherInfo, StorageBackend},
    import_sstpb::{self, DownloadRequest, DownloadRequestType, RewriteRule, SstMeta},
};
use br_rt::{Backoff, CancellationToken, RetryPolicy, Rt};
use br_storage::Storage;
use br_types::{Classify, EncodedKey, KeyRange, Kind, RawKey, StoreId, TimeStamp};
use futures::{StreamExt, future, stream};
use tokio::sync::Semaphore;

use super::{
    error::RestoreError,
    file_groups::{FileGroup, FileUnit, PrefixRule},
    ingest::ingest,
    key_form::{FileKeys, KeyForm},
};

/// How long one part of a range is tried: through elections, splits and busy stores.
const IMPORT_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(40),
    pause_max: Duration::from_secs(10),
    attempts_max: 16,
    elapsed_max: Duration::from_secs(600),
};

/// Regions of one group that are worked on at once; mostly a group is one region.
const REGIONS_IN_FLIGHT_MAX: usize = 4;

/// Bytes of a timestamp at the end of the keys that a store names.
const TS_BYTES: usize = br_codec::key::TS_LEN;

/// Downloads and ingests.
pub(super) struct Importer {
    pub(super) rt: Rt,
    pub(super) cancel: CancellationToken,
    pub(super) router: Router,
    pub(super) keys: FileKeys,
    /// The timestamp that all versions get; zero: each keeps its own.
    pub(super) new_ts: TimeStamp,
    /// The backup as this process sees it, and as the stores do.
    pub(super) storage: Storage,
    pub(super) backend: StorageBackend,
    pub(super) cipher: CipherInfo,
    /// One name for all requests of this run, so that stores keep the storage open.
    pub(super) cache_id: String,
    /// Downloads that one store works on at once.
    pub(super) downloads_per_store: usize,
    pub(super) stores: Mutex<HashMap<StoreId, Arc<Semaphore>>>,
}

impl Importer {
    /// Brings the group's files in. Gives the number of regions that took some.
    ///
    /// # Errors
    /// The last error, when a part of it failed in all attempts or is damaged.
    pub(super) async fn import(&self, group: &FileGroup) -> Result<usize, RestoreError> {
        let mut backoff = Backoff::new(IMPORT_RETRY, &self.rt);
        let mut rest = vec![self.keys.form.encode_range(&group.range)];
        let mut regions_done = 0;
        while !rest.is_empty() {
            let mut parts = Vec::new();
            for range in &rest {
                for route in self.router.pd().all_regions(range).await? {
                    parts.extend(
                        range
                            .intersect(&route.range())
                            .map(|part| (part, route.clone())),
                    );
                }
            }
            let outcomes: Vec<_> = stream::iter(parts)
                .map(|(part, route)| async move {
                    let outcome = self.import_region(group, &part, route).await;
                    (part, outcome)
                })
                .buffer_unordered(REGIONS_IN_FLIGHT_MAX)
                .collect()
                .await;
            let mut failed = Vec::new();
            let mut last_error = None;
            for (part, outcome) in outcomes {
                match outcome {
                    Ok(()) => regions_done += 1,
                    Err(error) if matches!(error.kind(), Kind::Retry | Kind::Reroute) => {
                        tracing::warn!(range = %part, %error, "importing again");
                        failed.push(part);
                        last_error = Some(error);
                    }
                    Err(error) => return Err(self.explained(error).await),
                }
            }
            if let Some(error) = last_error {
                if failed.len() < rest.len() {
                    backoff.reset(&self.rt);
                }
                if !backoff.pause(&self.rt, &self.cancel).await {
                    let cancelled = self.cancel.is_cancelled();
                    return Err(if cancelled {
                        RestoreError::Cancelled
                    } else {
                        error
                    });
                }
            }
            rest = failed;
        }
        Ok(regions_done)
    }

    /// A file that a store does not find is missing from the backup, or only out of the store's
    /// sight: this process sees which.
    async fn explained(&self, error: RestoreError) -> RestoreError {
        match error {
            RestoreError::Download {
                store,
                file,
                message,
                kind: Kind::Invalid,
            } => {
                let is_there = self.storage.exists(&file).await.unwrap_or(true);
                let kind = if is_there { Kind::Invalid } else { Kind::Data };
                RestoreError::Download {
                    store,
                    file,
                    message,
                    kind,
                }
            }
            error => error,
        }
    }

    /// Downloads and ingests what of the group lies in `part`, all of it in one region.
    async fn import_region(
        &self,
        group: &FileGroup,
        part: &KeyRange<EncodedKey>,
        route: RegionRoute,
    ) -> Result<(), RestoreError> {
        let range =
            self.keys
                .form
                .decode_range(part)
                .map_err(|error| KvError::InvalidResponse {
                    method: "ScanRegions",
                    what: format!("has a region whose boundary is not a key: {error}"),
                })?;
        let wanted = group.units.iter().flat_map(|unit| {
            let inside = unit.range.intersect(&range);
            unit.files
                .iter()
                .filter_map(move |file| Some((unit, file, inside.clone()?)))
        });
        let downloads =
            wanted.map(|(unit, file, inside)| self.download(&route, unit, file, inside));
        let metas: Vec<Option<SstMeta>> = future::try_join_all(downloads).await?;
        let metas: Vec<_> = metas.into_iter().flatten().collect();
        if metas.is_empty() {
            return Ok(());
        }
        ingest(&self.router, route, metas).await
    }

    /// Lets every peer download one file; `None` if none of its keys lie in `inside`.
    async fn download(
        &self,
        route: &RegionRoute,
        unit: &FileUnit,
        file: &DataFile,
        inside: KeyRange<RawKey>,
    ) -> Result<Option<SstMeta>, RestoreError> {
        let meta = self.sst_meta(route, unit, file, &inside);
        let peers = route
            .stores()
            .map(|store| self.download_to(store, route, unit, file, &meta));
        let answers = future::try_join_all(peers).await?;
        let mut filled: Option<(StoreId, import_sstpb::Range)> = None;
        let mut empty: Option<StoreId> = None;
        for (store, answer) in answers {
            match answer {
                None => empty = Some(store),
                Some(range) => filled = Some((store, range)),
            }
        }
        let differs = |(a, b): (StoreId, StoreId)| RestoreError::Download {
            store: b,
            file: file.name.clone(),
            message: format!("it finds no keys where store {a} does"),
            kind: Kind::Internal,
        };
        match (filled, empty) {
            (None, _) => Ok(None),
            (Some((some, _)), Some(none)) => Err(differs((some, none))),
            (Some((_, range)), None) => Ok(Some(SstMeta {
                range: Some(self.without_ts(range)),
                ..meta
            })),
        }
    }

    fn sst_meta(
        &self,
        route: &RegionRoute,
        unit: &FileUnit,
        file: &DataFile,
        inside: &KeyRange<RawKey>,
    ) -> SstMeta {
        let mut end = inside.end.clone().into_bytes();
        if let Some(rule) = &unit.rule
            && !end.starts_with(rule.new_prefix.as_bytes())
        {
            // The end of the table, which its prefix does not begin: a key behind all of its keys.
            end = [rule.new_prefix.as_bytes(), &[0xFF; 10]].concat();
        }
        SstMeta {
            uuid: self.rt.uuid().as_bytes().to_vec(),
            range: Some(import_sstpb::Range {
                start: inside.start.as_bytes().to_vec(),
                end,
            }),
            length: file.size_bytes,
            cf_name: file.cf.name().to_owned(),
            region_id: route.region.id,
            region_epoch: route.region.region_epoch,
            // Keys of transactional data end with a timestamp, so that none equals the bare end.
            end_key_exclusive: self.keys.is_raw,
            api_version: self.keys.api_version as i32,
            cipher_iv: file.cipher_iv.map(|iv| iv.0.to_vec()).unwrap_or_default(),
            ..Default::default()
        }
    }

    /// Lets one store download; `None` if there is nothing in it for the region.
    async fn download_to(
        &self,
        store: StoreId,
        route: &RegionRoute,
        unit: &FileUnit,
        file: &DataFile,
        meta: &SstMeta,
    ) -> Result<(StoreId, Option<import_sstpb::Range>), RestoreError> {
        let permits = self.permits(store);
        let _permit = permits
            .acquire()
            .await
            .map_err(|_| RestoreError::Cancelled)?;
        let prefix = |of: fn(&PrefixRule) -> &RawKey| match &unit.rule {
            Some(rule) => of(rule).as_bytes().to_vec(),
            None => Vec::new(),
        };
        let rule = RewriteRule {
            old_key_prefix: prefix(|rule| &rule.old_prefix),
            new_key_prefix: prefix(|rule| &rule.new_prefix),
            new_timestamp: self.new_ts.0,
            ..Default::default()
        };
        let request = DownloadRequest {
            sst: Some(meta.clone()),
            name: file.name.clone(),
            rewrite_rule: Some(rule),
            storage_backend: Some(self.backend.clone()),
            is_raw_kv: self.keys.is_raw,
            cipher_info: Some(self.cipher.clone()),
            storage_cache_id: self.cache_id.clone(),
            request_type: self.request_type().into(),
            context: Some(route.context()),
            ..Default::default()
        };
        let client = self.router.stores().client(store).await?;
        let answer = client.download(request).await.map_err(KvError::Rpc)?;
        if let Some(error) = answer.error {
            let kind = match error.store_error {
                Some(fault) => RegionFault::from(fault).kind(),
                None => kind_of_message(&error.message),
            };
            return Err(RestoreError::Download {
                store,
                file: file.name.clone(),
                message: error.message,
                kind,
            });
        }
        let range = (!answer.is_empty).then(|| answer.range.unwrap_or_default());
        Ok((store, range))
    }

    /// Whether the range of a request is one of users' keys, or of keys as they stand in files.
    fn request_type(&self) -> DownloadRequestType {
        match self.keys.form {
            KeyForm::Encoded => DownloadRequestType::Keyspace,
            KeyForm::Plain => DownloadRequestType::Legacy,
        }
    }

    fn permits(&self, store: StoreId) -> Arc<Semaphore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.downloads_per_store.max(1);
        stores
            .entry(store)
            .or_insert_with(|| Arc::new(Semaphore::new(limit)))
            .clone()
    }

    /// The range that a store found, which ends with timestamps unless the data is raw.
    fn without_ts(&self, range: import_sstpb::Range) -> import_sstpb::Range {
        if !self.keys.have_ts() {
            return range;
        }
        let cut = |mut key: Vec<u8>| {
            key.truncate(key.len().saturating_sub(TS_BYTES));
            key
        };
        import_sstpb::Range {
            start: cut(range.start),
            end: cut(range.end),
        }
    }

    /// Groups that are worked on at once: enough to keep every store busy while others wait.
    pub(super) fn groups_in_flight(&self, stores: usize) -> usize {
        (self.downloads_per_store * stores.max(1)).clamp(1, 256)
    }
}

/// What to do about words of a store that come without a class.
fn kind_of_message(message: &str) -> Kind {
    let message = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    const DAMAGED: [&str; 9] = [
        "corrupt",
        "checksum",
        "bad table magic",
        "magic number",
        "damaged",
        "length not match",
        "wrong prefix",
        "truncated",
        // Shorter or longer than its metadata says.
        "downloaded size",
    ];
    if has(&DAMAGED) {
        return Kind::Data;
    }
    if has(&[
        "notfound",
        "no such file",
        "permissiondenied",
        "permission denied",
    ]) {
        return Kind::Invalid;
    }
    Kind::Retry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_not_tried_again() {
        assert_eq!(
            kind_of_message("Corruption: block checksum mismatch"),
            Kind::Data
        );
        assert_eq!(
            kind_of_message("Engine(Bad table magic number)"),
            Kind::Data
        );
        assert_eq!(
            kind_of_message("downloaded size 1, expected 2 of a.sst"),
            Kind::Data
        );
        assert_eq!(
            kind_of_message("Io(Custom { kind: NotFound })"),
            Kind::Invalid
        );
        assert_eq!(
            kind_of_message("TiKV disk space is not enough."),
            Kind::Retry
        );
    }
}
