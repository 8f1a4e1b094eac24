use std::sync::Arc;

use br_proto::backup::{self, BackupResponse};
use br_rt::{CancellationToken, RateLimit, Task};
use br_storage::Storage as ExternalStorage;
use br_types::{EncodedKey, KeyRange, RawKey, TimeStamp};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    error::PieceError,
    name, parts,
    pieces::{Piece, Pieces},
    plan::{Plan, Refusal},
    scan::{self, ScanOptions, Scanned},
    scratch_dir,
    upload::{Target, upload},
    writer::{FinishedFile, WriterOptions},
};
use crate::{
    context::StoreContext,
    mvcc::ReadContext,
    region_check::{epoch_not_match, not_leader, region_not_found},
};

/// Pairs of files that wait for an upload beside those under way: one, as in TiKV, so that local
/// files cannot pile up when external storage is slower than the scan.
const WAITING_MAX: usize = 1;

/// Where answers of one request go.
pub(super) type Answers = mpsc::Sender<Result<BackupResponse, Status>>;

/// One backup request under way.
pub(super) struct Job {
    store: StoreContext,
    pieces: Pieces,
    scan: Arc<ScanOptions>,
    read: ReadContext,
    target: Target,
    answers: Answers,
}

/// A pair of files on its way to external storage.
struct Pair {
    files: Vec<FinishedFile>,
    range: KeyRange<RawKey>,
    stem: String,
}

/// Serves one request: to its end, or until the client has gone.
pub(super) async fn serve(store: StoreContext, request: backup::BackupRequest, answers: Answers) {
    let cancel = CancellationToken::new();
    let gone = answers.clone();
    let work = async {
        match Job::new(store, request, answers.clone(), cancel.clone()).await {
            Ok(job) => Arc::new(job).run().await,
            Err(Refusal::Status(status)) => send(&answers, Err(status)).await,
            Err(Refusal::Error(error)) => {
                send(
                    &answers,
                    Ok(BackupResponse {
                        error: Some(*error),
                        ..Default::default()
                    }),
                )
                .await;
            }
        }
    };
    tokio::select! {
        biased;
        () = work => {}
        () = gone.closed() => {
            tracing::info!("the client has dropped its backup request");
            cancel.cancel();
        }
    }
}

/// A client that has gone is noticed elsewhere.
async fn send(answers: &Answers, answer: Result<BackupResponse, Status>) {
    let _ = answers.send(answer).await;
}

impl Job {
    async fn new(
        store: StoreContext,
        request: backup::BackupRequest,
        answers: Answers,
        cancel: CancellationToken,
    ) -> Result<Job, Refusal> {
        let plan = Plan::new(request, store.api_version())?;
        let storage = ExternalStorage::open(&store.rt, &plan.backend)
            .await
            .map_err(Refusal::message)?;
        let dir = scratch_dir(&**store.engine());
        let scan = ScanOptions {
            form: plan.form,
            raw_cf: plan.raw_cf,
            start_ts: plan.start_ts,
            writer: WriterOptions {
                dir,
                compression: plan.compression,
                cipher: plan.cipher,
            },
            file_bytes_max: store.config.backup_sst_bytes_max,
            cancel,
            courtesy: store.storage.courtesy().clone(),
        };
        let boundaries = {
            let (engine, is_raw) = (store.engine().clone(), plan.form.is_raw());
            move |range: &KeyRange<EncodedKey>| {
                // A raw backup of everything is one file, which its name says.
                if is_raw {
                    return Vec::new();
                }
                parts::boundaries(&*engine, range).unwrap_or_else(|error| {
                    tracing::warn!(%error, %range, "a large region is backed up in one part");
                    Vec::new()
                })
            }
        };
        Ok(Job {
            pieces: Pieces::new(
                store.topology.clone(),
                store.store_id,
                plan.any_replica,
                Box::new(boundaries),
                plan.ranges,
            ),
            scan: Arc::new(scan),
            read: plan.read,
            target: Target {
                storage,
                limit: RateLimit::new(store.rt.clone(), plan.bytes_per_s),
            },
            answers,
            store,
        })
    }

    /// Scans on some tasks and uploads on as many, with a short queue in between.
    async fn run(self: Arc<Self>) {
        let workers = self.store.config.backup_threads.max(1);
        let (queue, pairs) = mpsc::channel::<Pair>(WAITING_MAX);
        let scans: Vec<Task<()>> = (0..workers)
            .map(|_| self.store.rt.spawn(self.clone().scan_pieces(queue.clone())))
            .collect();
        drop(queue);
        let uploads = ReceiverStream::new(pairs).for_each_concurrent(workers, |pair| {
            let job = self.clone();
            async move { job.save(pair).await }
        });
        futures::join!(uploads, futures::future::join_all(scans));
    }

    async fn scan_pieces(self: Arc<Self>, queue: mpsc::Sender<Pair>) {
        while let Some(piece) = self.pieces.next() {
            if self.scan.cancel.is_cancelled() {
                return;
            }
            if !self.store.topology.is_up(self.store.store_id) {
                let text = format!("store {} is down", self.store.store_id);
                send(&self.answers, Err(Status::unavailable(text))).await;
                self.scan.cancel.cancel();
                return;
            }
            match self.scan_piece(&piece, &queue).await {
                Ok(()) => {}
                Err(PieceError::Cancelled) => return,
                Err(error) => {
                    tracing::warn!(region = %piece.state.id(), %error, "cannot back up a region");
                    let error = Some(error.to_proto());
                    send(
                        &self.answers,
                        Ok(BackupResponse {
                            error,
                            ..Default::default()
                        }),
                    )
                    .await;
                }
            }
        }
    }

    async fn scan_piece(
        self: &Arc<Self>,
        piece: &Piece,
        queue: &mpsc::Sender<Pair>,
    ) -> Result<(), PieceError> {
        let view = self.view(piece)?;
        let mut from = piece.range.start.clone();
        loop {
            let (job, view, range) = (
                self.clone(),
                view.clone(),
                KeyRange {
                    start: from.clone(),
                    end: piece.range.end.clone(),
                },
            );
            let Scanned { files, next } = self
                .store
                .rt
                .blocking(move || view.scan(&job, &range))
                .await?;
            let end = next.as_ref().unwrap_or(&piece.range.end);
            let range = scan::answer_range(self.scan.form, &from, end)?;
            let is_whole_raw = self.scan.form.is_raw() && from.is_empty();
            let stem = name::stem(
                self.target.storage.layout(),
                self.store.store_id,
                &piece.state.region,
                (!is_whole_raw).then_some(&range.start),
                self.store.rt.wall(),
            );
            queue
                .send(Pair { files, range, stem })
                .await
                .map_err(|_| PieceError::Cancelled)?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// What the piece is read from; the region must still be the one that it was cut from.
    fn view(&self, piece: &Piece) -> Result<View, PieceError> {
        let view = if self.scan.form.is_raw() {
            View::Raw(Arc::from(self.store.engine().snapshot()))
        } else {
            View::Transactional(Arc::new(
                self.store
                    .storage
                    .read_range(&piece.range, self.read.clone())?,
            ))
        };
        let region = |error| PieceError::Region(Box::new(error));
        let id = piece.state.id();
        let now = self
            .store
            .topology
            .region(id)
            .ok_or_else(|| region(region_not_found(id)))?;
        if now.region.region_epoch != piece.state.region.region_epoch {
            let key = std::iter::once(piece.range.start.clone());
            return Err(region(epoch_not_match(&self.store, &now, key)));
        }
        if now.leader != piece.state.leader {
            return Err(region(not_leader(&now)));
        }
        Ok(view)
    }

    /// Uploads a pair and answers for its range.
    async fn save(&self, pair: Pair) {
        let Pair { files, range, stem } = pair;
        let mut answer = BackupResponse {
            start_key: range.start.as_bytes().to_vec(),
            end_key: range.end.as_bytes().to_vec(),
            api_version: self.scan.form.backup_version() as i32,
            ..Default::default()
        };
        match self.save_files(files, &range, &stem).await {
            Ok(files) => answer.files = files,
            Err(error) => {
                tracing::warn!(stem, %error, "cannot upload a backup file");
                answer.error = Some(error.to_proto());
            }
        }
        send(&self.answers, Ok(answer)).await;
    }

    async fn save_files(
        &self,
        files: Vec<FinishedFile>,
        range: &KeyRange<RawKey>,
        stem: &str,
    ) -> Result<Vec<backup::File>, PieceError> {
        let range = self.scan.form.file_range(range);
        let end_ts = if self.scan.form.is_raw() {
            TimeStamp::ZERO
        } else {
            self.read.ts
        };
        let start_ts = if self.scan.form.is_raw() {
            TimeStamp::ZERO
        } else {
            self.scan.start_ts
        };
        let mut saved = Vec::with_capacity(files.len());
        for finished in files {
            let file = upload(&self.store.rt, &self.target, stem, finished).await?;
            saved.push(backup::File {
                start_key: range.start.as_bytes().to_vec(),
                end_key: range.end.as_bytes().to_vec(),
                start_version: start_ts.0,
                end_version: end_ts.0,
                ..file
            });
        }
        Ok(saved)
    }
}

/// What a piece is read from; all its files from one moment.
#[derive(Clone)]
enum View {
    Transactional(Arc<crate::mvcc::RangeView>),
    Raw(Arc<dyn crate::engine::Snapshot>),
}

impl View {
    /// Writes the next pair of files of a range; blocks.
    fn scan(&self, job: &Job, range: &KeyRange<EncodedKey>) -> Result<Scanned, PieceError> {
        let rt = &job.store.rt;
        match self {
            View::Transactional(view) => scan::transactional(rt, &job.scan, view, &range.start),
            View::Raw(snapshot) => scan::raw(rt, &job.scan, &**snapshot, range),
        }
    }
}
