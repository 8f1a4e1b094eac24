//! # What it does
//! Lets the stores read the log and write its events key by key: slower than sorting, but without
//! room on this machine.
//!
//! # Ordering and invariants
//! A record may be there before its value while this runs; nobody reads the tables yet. Files of
//! deletions come after all others. Unlike sorting, entries of indexes that were dropped meanwhile
//! and values of rolled back transactions are written too; no schema leads to them.
//!
//! # Retries
//! A request of which anything failed is sent again, for the regions that there are by then, by
//! [`APPLY_RETRY`]. Writing the same events again changes nothing.
//!
//! # Garbage collection
//! A version may be there before those that it hides, and all are older than the safe point of the
//! cluster: what GC removed then would come back as if it had never been deleted. So there is none
//! while this runs: stores of the embedded cluster do not collect as long as the barrier of a restore
//! lives, others are told not to (`gc.ratio-threshold`, see [`super::gc_hold`]).
//!
//! # After a crash
//! What was written lies under ids that no table has. GC may have come over it, so whoever goes on
//! applies everything again.

use std::{collections::BTreeMap, time::Duration};

use br_cluster::{Cluster, KvError, RegionFault, RegionRoute};
use br_codec::key;
use br_format::{
    crypter::Crypter,
    log::{
        encryption::FileEncryption,
        file::{EventKind, LogFile},
    },
};
use br_proto::{
    backup::StorageBackend,
    encryptionpb::MasterKey,
    import_sstpb::{ApplyRequest, KvMeta, RewriteRule},
};
use br_rt::{Backoff, Phase, RetryPolicy, kill_point};
use br_tidb::table_key;
use br_types::{Cf, Classify, EncodedKey, KeyRange, Kind, StoreId, TableId, TimeStamp};
use futures::{StreamExt, TryStreamExt, future, stream, stream::BoxStream};

use super::{error::PointError, load::LoadTotals, rewrite::KeyRewrite};
use crate::read::{FILES_HELD_MAX, LogFiles, LogObject, LogPart, LogReadError};

/// How long one batch is tried: stores that are short of memory need a while.
const APPLY_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(15),
    attempts_max: 45,
    elapsed_max: Duration::from_secs(600),
};
/// Requests of one batch at once; mostly a batch touches one region.
const REGIONS_IN_FLIGHT_MAX: usize = 4;
/// Bytes of a memcomparable table prefix without the padding of its last group: eight, a marker,
/// the last one of the id.
const ENCODED_PREFIX_LEN: usize = table_key::TABLE_PREFIX_LEN + 1;

/// Applies files.
pub(super) struct Applier<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) files: &'a LogFiles,
    pub(super) rewrite: &'a KeyRewrite,
    pub(super) backend: StorageBackend,
    pub(super) crypter: &'a Crypter,
    /// Under which data keys in metadata lie.
    pub(super) master_keys: Vec<MasterKey>,
    /// By which stores keep the storage open.
    pub(super) cache_id: String,
    /// Files and bytes of one request at most, and requests at once.
    pub(super) batch_files: usize,
    pub(super) batch_bytes: u64,
    pub(super) concurrency: usize,
}

/// Files of one table that are applied with one request to each region.
struct Batch<'f> {
    table: TableId,
    files: Vec<(&'f str, &'f LogFile)>,
}

/// The next objects, as many as have about [`FILES_HELD_MAX`] files.
async fn take_some(
    objects: &mut BoxStream<'_, Result<LogObject, LogReadError>>,
) -> Result<Vec<LogObject>, LogReadError> {
    let (mut some, mut files) = (Vec::new(), 0);
    while files < FILES_HELD_MAX {
        let Some(object) = objects.try_next().await? else {
            break;
        };
        files += object.files.len();
        some.push(object);
    }
    Ok(some)
}

impl Applier<'_> {
    /// Applies everything that is wanted.
    ///
    /// # Errors
    /// A batch failed in all attempts, or a file is missing or damaged.
    pub(super) async fn run(&self, phase: &Phase) -> Result<LoadTotals, PointError> {
        if !self.files.compacted.is_empty() {
            return Err(PointError::Options(
                "the log is compacted, and stores cannot apply that key by key".to_owned(),
            ));
        }
        let mut totals = LoadTotals::default();
        for kind in [EventKind::Put, EventKind::Delete] {
            let mut objects = self.files.objects(LogPart::Rows);
            loop {
                let some = take_some(&mut objects).await?;
                if some.is_empty() {
                    break;
                }
                let applied = self.apply_some(&some, kind, phase).await?;
                totals.files += applied.files;
                totals.records += applied.records;
                totals.record_bytes += applied.record_bytes;
            }
        }
        Ok(totals)
    }

    /// Applies the files of one kind in some objects.
    async fn apply_some(
        &self,
        objects: &[LogObject],
        kind: EventKind,
        phase: &Phase,
    ) -> Result<LoadTotals, PointError> {
        stream::iter(self.batches(objects, kind))
            .map(|batch| async move {
                let totals = self.apply(&batch, phase).await?;
                kill_point("point.applied");
                Ok::<_, PointError>(totals)
            })
            .buffer_unordered(self.concurrency.max(1))
            .try_fold(LoadTotals::default(), async |mut sum, one| {
                sum.files += one.files;
                sum.records += one.records;
                sum.record_bytes += one.record_bytes;
                Ok(sum)
            })
            .await
    }

    fn batches<'f>(&self, objects: &'f [LogObject], kind: EventKind) -> Vec<Batch<'f>> {
        let mut open: BTreeMap<(TableId, u64, bool), Batch<'f>> = BTreeMap::new();
        let mut full = Vec::new();
        for object in objects {
            for file in &object.files {
                let id = &file.identity;
                if id.kind != kind || !self.rewrite.wants_table(id.table) {
                    continue;
                }
                let group = (id.table, id.region.0, id.cf == Cf::Write);
                let batch = open.entry(group).or_insert_with(|| Batch {
                    table: id.table,
                    files: Vec::new(),
                });
                let bytes: u64 = batch.files.iter().map(|(_, file)| file.length).sum();
                let is_full = batch.files.len() >= self.batch_files.max(1)
                    || bytes + file.length > self.batch_bytes && !batch.files.is_empty();
                if is_full {
                    let files = std::mem::take(&mut batch.files);
                    full.push(Batch {
                        table: id.table,
                        files,
                    });
                }
                batch.files.push((&object.name, file));
            }
        }
        full.extend(open.into_values());
        full
    }

    async fn apply(&self, batch: &Batch<'_>, phase: &Phase) -> Result<LoadTotals, PointError> {
        let (rt, cancel) = (self.cluster.rt(), self.cluster.cancel());
        let mut backoff = Backoff::new(APPLY_RETRY, rt);
        loop {
            let Err(error) = self.try_apply(batch).await else {
                break;
            };
            if !matches!(error.kind(), Kind::Retry | Kind::Reroute) {
                return Err(error);
            }
            tracing::warn!(table = %batch.table, %error, "applying again");
            if !backoff.pause(rt, cancel).await {
                return Err(match cancel.is_cancelled() {
                    true => PointError::Cancelled,
                    false => error,
                });
            }
        }
        let files = batch.files.iter().map(|(_, file)| file);
        let totals = LoadTotals {
            files: batch.files.len() as u64,
            records: files.clone().map(|file| file.entries).sum(),
            record_bytes: files.map(|file| file.length).sum(),
        };
        phase.advance(totals.record_bytes, totals.record_bytes);
        Ok(totals)
    }

    async fn try_apply(&self, batch: &Batch<'_>) -> Result<(), PointError> {
        let Some(rule) = self.rule(batch.table) else {
            return Ok(());
        };
        let Some(range) = self.range(batch) else {
            return Ok(());
        };
        let regions = self.cluster.pd().all_regions(&range).await?;
        let requests = regions.into_iter().filter_map(|route| {
            let metas: Vec<_> = batch
                .files
                .iter()
                .filter(|(_, file)| {
                    let range = self.file_range(file);
                    range.is_none_or(|range| range.overlaps(&route.range()))
                })
                .map(|(object, file)| self.meta(object, file, &route))
                .collect();
            (!metas.is_empty()).then_some((route, metas))
        });
        stream::iter(requests)
            .map(|(route, metas)| self.send(route, metas, &rule))
            .buffer_unordered(REGIONS_IN_FLIGHT_MAX)
            .try_for_each(|()| future::ready(Ok(())))
            .await
    }

    /// The prefix of the table's keys in the log, and in the cluster.
    fn rule(&self, table: TableId) -> Option<RewriteRule> {
        let prefix = |id| {
            let mut encoded = key::encode(table_key::table_prefix(id).as_bytes()).into_bytes();
            encoded.truncate(ENCODED_PREFIX_LEN);
            encoded
        };
        Some(RewriteRule {
            old_key_prefix: prefix(table),
            new_key_prefix: prefix(self.rewrite.new_id(table)?),
            ..RewriteRule::default()
        })
    }

    /// The keys of a file as keys of the cluster.
    fn file_range(&self, file: &LogFile) -> Option<KeyRange<EncodedKey>> {
        let (first, last) = self.rewrite.move_span(&file.first_key, &file.last_key)?;
        Some(KeyRange {
            start: EncodedKey::from(first),
            end: EncodedKey::from([last.as_slice(), &[0]].concat()),
        })
    }

    fn range(&self, batch: &Batch<'_>) -> Option<KeyRange<EncodedKey>> {
        let ranges = batch.files.iter().map(|(_, file)| self.file_range(file));
        let known: Option<Vec<_>> = ranges.collect();
        match known {
            Some(ranges) => Some(KeyRange {
                start: ranges.iter().map(|range| range.start.clone()).min()?,
                end: ranges.into_iter().map(|range| range.end).max()?,
            }),
            // A file does not say: everything that the table may have.
            None => {
                let new = self.rewrite.new_id(batch.table)?;
                Some(key::encode_range(&table_key::table_range(new)))
            }
        }
    }

    fn meta(&self, object: &str, file: &LogFile, route: &RegionRoute) -> KvMeta {
        let window = self.files.window;
        let start_ts: TimeStamp = match file.identity.cf {
            Cf::Default => window.shift_ts,
            Cf::Write | Cf::Lock => window.start_ts.next(),
        };
        KvMeta {
            name: object.to_owned(),
            range_offset: file.span.offset,
            range_length: file.span.length,
            length: file.length,
            cf: file.identity.cf.name().to_owned(),
            is_delete: file.identity.kind == EventKind::Delete,
            start_ts: start_ts.0,
            restore_ts: window.restored_ts.0,
            start_key: route.region.start_key.clone(),
            end_key: route.region.end_key.clone(),
            sha256: file.sha256.to_vec(),
            compression_type: file.compression.number(),
            file_encryption_info: file.encryption.as_ref().map(FileEncryption::to_proto),
            ..KvMeta::default()
        }
    }

    async fn send(
        &self,
        route: RegionRoute,
        metas: Vec<KvMeta>,
        rule: &RewriteRule,
    ) -> Result<(), PointError> {
        let store: StoreId = route.leader_store();
        let request = ApplyRequest {
            rewrite_rules: vec![rule.clone(); metas.len()],
            metas,
            storage_backend: Some(self.backend.clone()),
            context: Some(route.context()),
            storage_cache_id: self.cache_id.clone(),
            cipher_info: Some(self.crypter.to_proto()),
            master_keys: self.master_keys.clone(),
            ..ApplyRequest::default()
        };
        let client = self.cluster.stores().client(store).await?;
        let answer = client.apply(request).await.map_err(KvError::Rpc)?;
        let Some(error) = answer.error else {
            return Ok(());
        };
        let kind = match error.store_error {
            Some(fault) => RegionFault::from(fault).kind(),
            None => kind_of_message(&error.message),
        };
        Err(PointError::Apply {
            store,
            message: error.message,
            kind,
        })
    }
}

/// What to do about words of a store that come without a class.
fn kind_of_message(message: &str) -> Kind {
    let message = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&[
        "sha-256",
        "sha256",
        "checksum",
        "corrupt",
        "damaged",
        "wrong prefix",
    ]) {
        return Kind::Data;
    }
    if has(&["notfound", "not found", "no such file", "permission"]) {
        return Kind::Invalid;
    }
    Kind::Retry
}
