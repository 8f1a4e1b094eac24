//! # What it does
//! Brings sorted versions into the cluster: they are written into SST files that end where regions
//! end, each file goes to every peer of its region, and the leader ingests the two of a region's
//! piece together.
//!
//! # Ordering and invariants
//! The records of a key and the values that they need are always ingested together, so that at no
//! time a record is there without its value. Small tables share files: a file ends where a region
//! does or when it is large, not where a table ends.
//!
//! # Retries
//! A piece whose region has changed is made again for the regions that there are by then, by
//! [`INGEST_RETRY`]; the sorted data is read again for that. Ingesting the same twice gives the
//! same keys and values.
//!
//! # After a crash
//! Uploaded files that were not ingested are removed by the stores.

mod piece;

use std::{sync::Arc, time::Duration};

use br_cluster::{Cluster, KvError, RegionRoute};
use br_proto::import_sstpb::{self, SstMeta};
use br_rt::{Backoff, Phase, Progress, RetryPolicy, Unit, kill_point};
use br_snapshot::restore::{DoneSteps, ingest, split_at};
use br_sst::SstFiles;
use br_types::{Classify, EncodedKey, KeyRange, Kind};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future, stream};

use self::piece::{Piece, PieceMaker, SstOfPiece};
use super::{error::PointError, parts::Parts, sort::Sorted};
use crate::scratch::ScratchDir;

/// How long one range is tried: through elections, splits and busy stores.
const INGEST_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(40),
    pause_max: Duration::from_secs(10),
    attempts_max: 16,
    elapsed_max: Duration::from_secs(600),
};
/// Bytes of the log that become one part of the work, and at least so many a new region: what an
/// interruption costs.
pub(super) const PART_BYTES: u64 = 64 << 20;
/// Parts that are worked on at once: while one waits for a store, another computes.
const PARTS_IN_FLIGHT_MAX: usize = 2;
/// Pieces of one part that are on their way at once; each is held in memory while it is sent.
const PIECES_IN_FLIGHT_MAX: usize = 2;

/// Brings sorted data in.
pub(crate) struct Ingestion {
    pub(crate) cluster: Cluster,
    pub(crate) scratch: Arc<ScratchDir>,
    pub(crate) ssts: Arc<dyn SstFiles>,
    pub(crate) sorted: Sorted,
    pub(crate) parts: Parts,
    /// Of each key its newest version only.
    pub(crate) newest_only: bool,
}

/// What was brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestTotals {
    /// Records of the write column family.
    pub records: u64,
    /// Bytes of the keys and values in both column families.
    pub kv_bytes: u64,
    /// SST files.
    pub files: u64,
    /// Regions that were split off before.
    pub split_regions: u64,
}

impl IngestTotals {
    fn add(&mut self, other: IngestTotals) {
        self.records += other.records;
        self.kv_bytes += other.kv_bytes;
        self.files += other.files;
        self.split_regions += other.split_regions;
    }
}

impl Ingestion {
    /// Brings everything in that is not in yet, and marks it.
    ///
    /// # Errors
    /// A value is missing, a local file cannot be used, or a region failed in all attempts. What
    /// was ingested until then stays.
    pub(crate) async fn run(
        &self,
        progress: &Arc<dyn Progress>,
        done: Option<&DoneSteps>,
    ) -> Result<IngestTotals, PointError> {
        let cuts = self.parts.cuts();
        let mut totals = IngestTotals {
            split_regions: self.split(cuts, progress).await?,
            ..IngestTotals::default()
        };
        kill_point("point.split");
        let phase = Phase::start(progress, "Ingest Log", Unit::Bytes, self.sorted.bytes());
        let parts: Vec<_> = stream::iter(self.parts.missing())
            .map(|(number, range)| self.marked_part(number, range, done, &phase))
            .buffer_unordered(PARTS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        parts.into_iter().for_each(|part| totals.add(part));
        Ok(totals)
    }

    async fn marked_part(
        &self,
        number: usize,
        range: KeyRange<EncodedKey>,
        done: Option<&DoneSteps>,
        phase: &Phase,
    ) -> Result<IngestTotals, PointError> {
        let totals = self.part(range, phase).await?;
        kill_point("point.part_in");
        if let Some(done) = done {
            Parts::mark(done, number);
        }
        kill_point("point.part");
        Ok(totals)
    }

    /// Splits regions where parts end, so that no region grows by more than a part.
    async fn split(
        &self,
        cuts: &[Vec<u8>],
        progress: &Arc<dyn Progress>,
    ) -> Result<u64, PointError> {
        if cuts.is_empty() {
            return Ok(0);
        }
        let keys = cuts.iter().map(|cut| br_codec::key::decode(cut));
        let keys = keys
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| PointError::Key { source })?;
        let phase = Phase::start(progress, "Split Regions", Unit::Ranges, keys.len() as u64);
        Ok(split_at(&self.cluster, &keys, &phase).await? as u64)
    }

    /// Brings one part in, its failed pieces again.
    async fn part(
        &self,
        range: KeyRange<EncodedKey>,
        phase: &Phase,
    ) -> Result<IngestTotals, PointError> {
        let (rt, cancel) = (self.cluster.rt(), self.cluster.cancel());
        let mut backoff = Backoff::new(INGEST_RETRY, rt);
        let mut totals = IngestTotals::default();
        let mut rest = vec![range];
        while !rest.is_empty() {
            let mut failed = Vec::new();
            let mut last_error = None;
            for range in &rest {
                let pieces = self.pieces(range.clone());
                let outcomes = pieces
                    .map(|piece| async {
                        let piece = piece?;
                        let outcome = self.bring_in(&piece).await;
                        Ok::<_, PointError>((piece, outcome))
                    })
                    .buffer_unordered(PIECES_IN_FLIGHT_MAX);
                let mut outcomes = std::pin::pin!(outcomes);
                while let Some((piece, outcome)) = outcomes.try_next().await? {
                    match outcome {
                        Ok(()) => {
                            kill_point("point.piece");
                            phase.advance(piece.totals.kv_bytes, piece.totals.kv_bytes);
                            totals.add(piece.totals);
                        }
                        Err(error) if matches!(error.kind(), Kind::Retry | Kind::Reroute) => {
                            tracing::warn!(range = %piece.range, %error, "ingesting again");
                            failed.push(piece.range.clone());
                            last_error = Some(error);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            if let Some(error) = last_error
                && !backoff.pause(rt, cancel).await
            {
                return Err(match cancel.is_cancelled() {
                    true => PointError::Cancelled,
                    false => error,
                });
            }
            rest = failed;
        }
        Ok(totals)
    }

    /// The pieces of a range, each made when it is asked for.
    fn pieces(
        &self,
        range: KeyRange<EncodedKey>,
    ) -> impl stream::Stream<Item = Result<Piece, PointError>> + '_ {
        let state = Making::Start(range);
        stream::try_unfold(state, async |state| {
            let (mut maker, mut regions) = match state {
                Making::Start(range) => (Box::new(self.maker(range).await?), Vec::new()),
                Making::On(maker, regions) => (maker, regions),
            };
            let Some(key) = maker.next_key() else {
                return Ok(None);
            };
            let route = self.region_of(&key, &mut regions).await?;
            let made;
            (maker, made) = self
                .cluster
                .rt()
                .blocking(move || {
                    let made = maker.make(route);
                    (maker, made)
                })
                .await;
            Ok(made?.map(|piece| (piece, Making::On(maker, regions))))
        })
    }

    async fn maker(&self, range: KeyRange<EncodedKey>) -> Result<PieceMaker, PointError> {
        let (sorted, newest_only) = (self.sorted.clone(), self.newest_only);
        let (ssts, scratch) = (self.ssts.clone(), self.scratch.clone());
        self.cluster
            .rt()
            .blocking(move || PieceMaker::new(&sorted, range, newest_only, ssts, scratch))
            .await
    }

    /// The region of a key, out of a page that is fetched when it is used up.
    async fn region_of(
        &self,
        key: &EncodedKey,
        page: &mut Vec<RegionRoute>,
    ) -> Result<RegionRoute, PointError> {
        loop {
            if let Some(found) = page.iter().find(|route| route.range().contains(key)) {
                return Ok(found.clone());
            }
            let from = KeyRange {
                start: key.clone(),
                end: EncodedKey::default(),
            };
            *page = self.cluster.pd().region_page(&from).await?;
            if page.is_empty() {
                return Err(KvError::InvalidResponse {
                    method: "ScanRegions",
                    what: format!("has no region for {key}"),
                }
                .into());
            }
        }
    }

    /// Sends the files of a piece to all peers and lets the leader ingest them.
    async fn bring_in(&self, piece: &Piece) -> Result<(), PointError> {
        if piece.files.is_empty() {
            return Ok(());
        }
        let mut metas = Vec::with_capacity(piece.files.len());
        for file in &piece.files {
            metas.push(self.upload(&piece.route, file).await?);
        }
        Ok(ingest(self.cluster.router(), piece.route.clone(), metas).await?)
    }

    async fn upload(&self, route: &RegionRoute, file: &SstOfPiece) -> Result<SstMeta, PointError> {
        let path = file.path.clone();
        let read = self
            .cluster
            .rt()
            .blocking(move || {
                let content = Bytes::from(std::fs::read(&path)?);
                let crc32 = crc32fast::hash(&content);
                Ok((content, crc32))
            })
            .await;
        let (content, crc32) = read.map_err(|source| PointError::LocalFile {
            path: file.path.clone(),
            source,
        })?;
        let meta = SstMeta {
            uuid: self.cluster.rt().uuid().as_bytes().to_vec(),
            range: Some(import_sstpb::Range {
                start: file.first.clone(),
                end: file.last.clone(),
            }),
            crc32,
            length: content.len() as u64,
            cf_name: file.cf.name().to_owned(),
            region_id: route.region.id,
            region_epoch: route.region.region_epoch,
            ..SstMeta::default()
        };
        let uploads = route.stores().map(|store| {
            let (meta, content) = (meta.clone(), content.clone());
            async move {
                let client = self.cluster.stores().client(store).await?;
                let sent = client.upload(meta, content).await;
                sent.map_err(|error| PointError::Kv(KvError::Rpc(error)))
            }
        });
        future::try_join_all(uploads).await?;
        Ok(meta)
    }
}

enum Making {
    Start(KeyRange<EncodedKey>),
    On(Box<PieceMaker>, Vec<RegionRoute>),
}
