//! # What it does
//! Has the stores write every wanted range to external storage, once.
//!
//! In rounds: what is still missing goes to all live stores, each of which answers for its own
//! leaders. Errors name no range, so after a round what is missing is found by subtraction and goes
//! out again, finely. Splits, merges, leader moves and stores that are lost need nothing more.
//!
//! # Ordering and invariants
//! [`RangeTree`](crate::range_tree::RangeTree) proves that nothing is there twice and nothing is
//! missing. Only files that it finally keeps reach the meta files.
//!
//! # Retries
//! A round that brings something is followed by the next one after a short pause; one that brings
//! nothing, after longer and longer ones. Without anything new for [`STALL_MAX`] the backup fails.
//! Errors that nobody knows are tried [`UNKNOWN_ERRORS_MAX`] times for each store.
//!
//! # Cancellation
//! All streams are dropped, on which the stores stop their work.

mod answer;
mod round;
mod stores;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use br_format::{
    kv_stats::KvStats,
    resume::{ResumeError, ResumeRange},
};
use br_proto::{backup::BackupRequest, kvrpcpb::LockInfo};
use br_rt::{Backoff, CancellationToken, Phase, RetryPolicy, Rt, kill_point};
use br_storage::StorageError;
use br_types::{Classify, Code, KeyRange, Kind, RawKey, StoreId, TimeStamp};
use futures::TryStreamExt;

pub use self::answer::Refusal;
pub(crate) use self::{
    answer::{Answer, Expected, Piece},
    stores::{Answers, LiveStore, Resolved, Stores},
};
use super::{
    meta_sink::MetaSink,
    resume::{Resume, ResumeFilesError},
};
use crate::range_tree::{Insert, RangeTree, WantedError};

/// Without a new piece or a resolved lock for so long, the backup fails: longer than elections,
/// restarts of stores and the locks of dead transactions last.
pub const STALL_MAX: Duration = Duration::from_secs(600);
/// Errors of one store in one backup that nobody knows to pass.
pub const UNKNOWN_ERRORS_MAX: u32 = 10;
/// Pieces kept in memory, at about 1 KiB each, before their files go to the meta files.
const PIECES_HELD_MAX: usize = 16_384;
/// Locks resolved after one round; those beyond come again in the next.
const LOCKS_PER_ROUND_MAX: usize = 4_096;
/// Locks remembered as resolved.
const LOCKS_SEEN_MAX: usize = 65_536;
/// Transactions whose locks may be passed by; each request names them, 8 bytes each.
const PASSABLE_MAX: usize = 65_536;
/// The pause after a round that brought something.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

const STALL_POLICY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(10),
    attempts_max: u32::MAX,
    elapsed_max: STALL_MAX,
};

/// Why the stores could not back up.
#[derive(Debug, thiserror::Error)]
pub enum PushError<E: Classify + 'static> {
    /// The ranges to back up overlap.
    #[error("the ranges to back up are wrong: {0}")]
    Wanted(#[from] WantedError),
    /// A store cannot, and will not be able to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The cluster is out of reach.
    #[error(transparent)]
    Cluster(E),
    /// The meta files cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What earlier commands wrote down cannot be read.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Nothing new for too long.
    #[error(
        "no progress for {} seconds: {missing} ranges are missing, the first is {first}; {}",
        waited.as_secs(),
        describe(last_errors)
    )]
    Stalled {
        /// Ranges that are missing.
        missing: usize,
        /// The first of them.
        first: KeyRange<RawKey>,
        /// The time since the last progress.
        waited: Duration,
        /// What each store said last.
        last_errors: BTreeMap<StoreId, String>,
    },
    /// Cancelled.
    #[error("cancelled")]
    Cancelled,
}

fn describe(last_errors: &BTreeMap<StoreId, String>) -> String {
    if last_errors.is_empty() {
        return "no store answered for them".to_owned();
    }
    let texts: Vec<String> = last_errors
        .iter()
        .map(|(store, text)| format!("store {store}: {text}"))
        .collect();
    texts.join("; ")
}

impl<E: Classify + 'static> From<ResumeFilesError> for PushError<E> {
    fn from(error: ResumeFilesError) -> PushError<E> {
        match error {
            ResumeFilesError::Storage(error) => error.into(),
            ResumeFilesError::Format(error) => error.into(),
        }
    }
}

impl<E: Classify + 'static> Classify for PushError<E> {
    fn kind(&self) -> Kind {
        match self {
            PushError::Wanted(_) => Kind::Internal,
            PushError::Refused(refusal) => refusal.kind(),
            PushError::Cluster(error) => error.kind(),
            PushError::Storage(error) => error.kind(),
            PushError::Resume(error) => error.kind(),
            PushError::Stalled { .. } => Kind::Retry,
            PushError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            PushError::Wanted(_) => Code::BACKUP_INVALID_RANGE,
            PushError::Refused(refusal) => refusal.code(),
            PushError::Cluster(error) => error.code(),
            PushError::Storage(error) => error.code(),
            PushError::Resume(error) => error.code(),
            PushError::Stalled { .. } => Code::BACKUP_NO_LEADER,
            PushError::Cancelled => Code::CANCELLED,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            PushError::Wanted(_) | PushError::Cancelled => None,
            PushError::Refused(refusal) => refusal.next_step(),
            PushError::Cluster(error) => error.next_step(),
            PushError::Storage(error) => error.next_step(),
            PushError::Resume(error) => error.next_step(),
            PushError::Stalled { .. } => Some(
                "Check with `pd-ctl region check miss-peer` and `pd-ctl store` that every region \
                 has a leader, then start again with an empty target"
                    .to_owned(),
            ),
        }
    }
}

/// What a phase of a push counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Pieces, of which there is about one a region.
    Regions,
    /// Wanted ranges.
    Ranges,
}

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Rounds over the stores.
    pub(crate) rounds: u64,
    /// Pieces that count.
    pub(crate) pieces: u64,
    /// Pieces whose files were written for nothing, as others hold the same keys.
    pub(crate) superseded: u64,
    /// Locks that stood in the way and were resolved or passed by.
    pub(crate) locks: u64,
    /// Pieces that earlier commands brought.
    pub(crate) resumed: u64,
    /// Key-value pairs in them.
    pub(crate) resumed_kvs: u64,
    /// Bytes of those.
    pub(crate) resumed_kv_bytes: u64,
}

/// One push of ranges.
pub(crate) struct Push<'a, S> {
    pub(crate) rt: &'a Rt,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) stores: Arc<S>,
    /// The request without its sub ranges.
    pub(crate) template: BackupRequest,
    /// Against which answers are held.
    pub(crate) expected: Expected,
    /// Requests to one store at a time.
    pub(crate) requests_per_store: usize,
    pub(crate) phase: &'a Phase,
    pub(crate) counts: Counts,
    /// Where earlier commands wrote down what they did, and this one does.
    pub(crate) resume: Option<&'a Resume>,
}

impl<S: Stores> Push<'_, S> {
    /// Backs up `wanted`; the files of all pieces are in `sink` when it returns.
    pub(crate) async fn run(
        self,
        wanted: Vec<KeyRange<RawKey>>,
        sink: &mut MetaSink,
    ) -> Result<Pushed, PushError<S::Error>> {
        let mut state = State {
            tree: RangeTree::new(wanted)?,
            sink,
            template: self.template.clone(),
            locks: BTreeMap::new(),
            last_errors: BTreeMap::new(),
            unknown_errors: BTreeMap::new(),
            accepted: 0,
            locks_seen: HashSet::new(),
            pushed: Pushed::default(),
        };
        self.take_resumed(&mut state).await?;
        let mut stall = Backoff::new(STALL_POLICY, self.rt);
        let mut progress_at = self.rt.now();
        while !state.tree.is_complete() {
            let had_progress = self.round(&mut state).await?;
            if state.tree.is_complete() {
                break;
            }
            let go_on = if had_progress {
                stall.reset(self.rt);
                progress_at = self.rt.now();
                self.pause().await
            } else {
                stall.pause(self.rt, self.cancel).await
            };
            if self.cancel.is_cancelled() {
                return Err(PushError::Cancelled);
            }
            if !go_on {
                let missing = state.tree.missing();
                return Err(PushError::Stalled {
                    missing: missing.len(),
                    first: missing.into_iter().next().unwrap_or_default(),
                    waited: self.rt.now().since(progress_at),
                    last_errors: state.last_errors,
                });
            }
        }
        let rest = state.tree.take_finished();
        state.sink.accept(rest).await?;
        Ok(state.pushed)
    }

    /// Takes in what earlier commands brought.
    async fn take_resumed(&self, state: &mut State<'_>) -> Result<(), PushError<S::Error>> {
        let Some(reader) = self.resume.and_then(Resume::reader) else {
            return Ok(());
        };
        let files = reader.ranges();
        futures::pin_mut!(files);
        while let Some(ranges) = files.try_next().await? {
            for ResumeRange { range, files } in ranges {
                let mut sums = KvStats::default();
                files.iter().for_each(|file| sums += file.stats);
                let piece = Piece {
                    store: StoreId(0),
                    range,
                    files,
                };
                let before = state.pushed.pieces;
                self.count_piece(state, piece).await?;
                if state.pushed.pieces > before {
                    state.pushed.resumed += 1;
                    state.pushed.resumed_kvs += sums.total_kvs;
                    state.pushed.resumed_kv_bytes += sums.total_bytes;
                }
            }
            kill_point("backup.resumed_file");
        }
        tracing::info!(
            pieces = state.pushed.resumed,
            complete = state.tree.complete(),
            wanted = state.tree.wanted().len(),
            "an interrupted backup goes on"
        );
        Ok(())
    }

    async fn pause(&self) -> bool {
        tokio::select! {
            biased;
            () = self.rt.sleep(ROUND_PAUSE) => true,
            () = self.cancel.cancelled() => false,
        }
    }

    /// Asks all stores once for what is missing, then resolves the locks that were met. Tells
    /// whether anything came of it.
    async fn round(&self, state: &mut State<'_>) -> Result<bool, PushError<S::Error>> {
        state.pushed.rounds += 1;
        let before = state.accepted;
        let live = match self.stores.live().await {
            Ok(live) => live,
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "the stores could not be listed yet");
                return Ok(false);
            }
            Err(error) => return Err(PushError::Cluster(error)),
        };
        self.send(state, live).await?;
        let resolved = self.resolve(state).await?;
        let pieces = state.accepted - before;
        tracing::info!(
            round = state.pushed.rounds,
            pieces,
            resolved,
            complete = state.tree.complete(),
            wanted = state.tree.wanted().len(),
            "round of the backup"
        );
        Ok(pieces > 0 || resolved > 0)
    }

    /// Takes an answer into the books.
    async fn take(
        &self,
        state: &mut State<'_>,
        store: StoreId,
        answer: Answer,
    ) -> Result<(), PushError<S::Error>> {
        match answer {
            Answer::Piece(piece) => self.take_piece(state, piece).await,
            Answer::Locked(lock) => {
                if state.locks.len() < LOCKS_PER_ROUND_MAX {
                    state
                        .locks
                        .insert((lock.lock_version, lock.key.clone()), *lock);
                }
                Ok(())
            }
            Answer::Again { why, is_known } => {
                tracing::warn!(%store, error = why, "part of the backup is tried again");
                let times = state.unknown_errors.entry(store).or_default();
                *times += u32::from(!is_known);
                if *times > UNKNOWN_ERRORS_MAX {
                    let times = *times;
                    return Err(Refusal::TooOften {
                        store,
                        times,
                        message: why,
                    }
                    .into());
                }
                state.last_errors.insert(store, why);
                Ok(())
            }
            Answer::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Takes a piece in that a store brought.
    async fn take_piece(
        &self,
        state: &mut State<'_>,
        piece: Piece,
    ) -> Result<(), PushError<S::Error>> {
        let (store, range) = (piece.store, piece.range.clone());
        let done = self.resume.map(|resume| (resume, piece.files.clone()));
        match self.count_piece(state, piece).await? {
            Counted::Yes => {}
            Counted::No => return Ok(()),
            Counted::NotWanted => {
                let message = format!("nobody asked for the range {range}");
                return Err(Refusal::Protocol { store, message }.into());
            }
        }
        if let Some((resume, files)) = done {
            let range = ResumeRange { range, files };
            resume.writer().add_range(range).await;
        }
        kill_point("backup.piece");
        Ok(())
    }

    /// Takes a piece into the books.
    async fn count_piece(
        &self,
        state: &mut State<'_>,
        piece: Piece,
    ) -> Result<Counted, PushError<S::Error>> {
        let range = piece.range.clone();
        let bytes = piece.files.iter().map(|file| file.size_bytes).sum();
        let completed = match state.tree.insert(&range, piece) {
            Insert::Added { completed } => completed,
            Insert::Replaced {
                superseded,
                completed,
            } => {
                let count = superseded.len() as u64;
                tracing::info!(%range, count, "a piece takes the place of older ones");
                state.pushed.superseded += count;
                state.pushed.pieces -= count;
                completed
            }
            Insert::Refused(piece) => {
                tracing::info!(store = %piece.store, %range, "a piece is there already");
                state.pushed.superseded += 1;
                return Ok(Counted::No);
            }
            Insert::NotWanted(_) => return Ok(Counted::NotWanted),
        };
        state.accepted += 1;
        state.pushed.pieces += 1;
        let units = match self.counts {
            Counts::Regions => 1,
            Counts::Ranges => completed as u64,
        };
        self.phase.advance(units, bytes);
        if state.tree.held() >= PIECES_HELD_MAX {
            let finished = state.tree.take_finished();
            state.sink.accept(finished).await?;
        }
        Ok(Counted::Yes)
    }

    /// Resolves the locks of the round; gives how many that had not been met before.
    async fn resolve(&self, state: &mut State<'_>) -> Result<u64, PushError<S::Error>> {
        let locks: Vec<LockInfo> = std::mem::take(&mut state.locks).into_values().collect();
        if locks.is_empty() {
            return Ok(0);
        }
        let met: Vec<(u64, Vec<u8>)> = locks
            .iter()
            .map(|lock| (lock.lock_version, lock.key.clone()))
            .collect();
        let resolving = self.stores.resolve(locks, self.expected.end_ts);
        let resolved = tokio::select! {
            biased;
            resolved = resolving => resolved,
            () = self.cancel.cancelled() => return Err(PushError::Cancelled),
        };
        match resolved {
            Ok(resolved) => {
                let new = state.note_resolved(met, resolved);
                state.pushed.locks += new;
                Ok(new)
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "locks could not be resolved yet");
                Ok(0)
            }
            Err(error) => Err(PushError::Cluster(error)),
        }
    }
}

/// What became of a piece.
enum Counted {
    Yes,
    No,
    NotWanted,
}

fn is_passing(error: &impl Classify) -> bool {
    matches!(error.kind(), Kind::Retry | Kind::Reroute)
}

/// The books of a push.
struct State<'a> {
    tree: RangeTree<Piece>,
    sink: &'a mut MetaSink,
    /// Carries in its context which transactions' locks can be passed by.
    template: BackupRequest,
    /// Locks met in this round, by transaction and key.
    locks: BTreeMap<(u64, Vec<u8>), LockInfo>,
    last_errors: BTreeMap<StoreId, String>,
    unknown_errors: BTreeMap<StoreId, u32>,
    /// Pieces ever accepted; never goes down.
    accepted: u64,
    /// Locks that were resolved, by transaction and key: one that comes again is no progress.
    locks_seen: HashSet<(u64, Vec<u8>)>,
    pushed: Pushed,
}

impl State<'_> {
    /// Tells the stores from now on which locks they may pass by. Gives how many of the locks that
    /// were met are out of the way and had not been met before.
    fn note_resolved(&mut self, met: Vec<(u64, Vec<u8>)>, resolved: Resolved) -> u64 {
        let context = self.template.context.get_or_insert_default();
        for (list, more) in [
            (&mut context.resolved_locks, resolved.passable),
            (&mut context.committed_locks, resolved.committed),
        ] {
            list.extend(more.iter().map(|ts| ts.0));
            list.sort_unstable();
            list.dedup();
            // The oldest are most likely gone.
            list.drain(..list.len().saturating_sub(PASSABLE_MAX));
        }
        if self.locks_seen.len() >= LOCKS_SEEN_MAX {
            self.locks_seen.clear();
        }
        let mut new = 0;
        for lock in met {
            if !resolved.alive.contains(&TimeStamp(lock.0)) {
                new += u64::from(self.locks_seen.insert(lock));
            }
        }
        new
    }
}
