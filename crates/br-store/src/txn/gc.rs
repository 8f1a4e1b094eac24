//! Garbage collection: removes versions that no read at or above the safe point can see.
//!
//! # Ordering and invariants
//! Of each key, what is committed above the safe point stays, and the newest put at or below it;
//! a newest delete goes with all below it. Lock and rollback records at or below the safe point
//! go: whoever moves the safe point has resolved the locks of older transactions. Latches are not
//! needed, for what is removed is never changed again; a record that is rewritten meanwhile by an
//! overlapped rollback carries a fence.
//!
//! # Cancellation
//! Between batches; what was removed stays removed.

use std::time::Duration;

use br_codec::{WriteKind, WriteRef, key};
use br_rt::CancellationToken;
use br_types::{Cf, EncodedKey, KeyRange, TimeStamp};

use crate::{engine::Batch, mvcc::MvccError, storage::Storage};

/// Removals in one batch: large enough to be cheap, small enough not to hold up writers.
const BATCH_CHANGES_MAX: usize = 1024;
/// Records looked at in one go on a blocking thread, so that a stop is noticed soon.
const RECORDS_PER_PASS_MAX: usize = 100_000;

/// What garbage collection has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcSummary {
    /// Write records looked at.
    pub versions_seen: u64,
    /// Write records removed.
    pub versions_removed: u64,
}

/// What becomes of the next older record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Above the safe point.
    Keep,
    /// The first put or delete decides.
    Decide,
    /// Hidden by a newer put or delete.
    Remove,
}

impl Storage {
    /// Removes what no read at or above `safe_point` can see, in a range. Blocking.
    ///
    /// # Errors
    /// [`MvccError`]; what was removed before stays removed.
    pub fn gc(
        &self,
        range: &KeyRange<EncodedKey>,
        safe_point: TimeStamp,
    ) -> Result<GcSummary, MvccError> {
        let mut summary = GcSummary::default();
        let mut rest = Some(range.clone());
        while let Some(range) = rest {
            rest = self.gc_pass(&range, safe_point, &mut summary)?;
        }
        Ok(summary)
    }

    /// Collects garbage whenever the safe point has moved; looks for that each `interval`. Ends
    /// when cancelled.
    pub async fn run_gc(&self, interval: Duration, cancel: CancellationToken) {
        let mut done = TimeStamp::ZERO;
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.0.rt.sleep(interval) => {}
            }
            let safe_point = self.0.topology.gc_safe_point();
            if safe_point <= done || self.0.topology.is_gc_held() {
                continue;
            }
            match self.gc_all(safe_point, &cancel).await {
                Ok(summary) => {
                    done = safe_point;
                    tracing::info!(%safe_point, ?summary, "garbage collected");
                }
                Err(error) => tracing::warn!(%safe_point, %error, "garbage collection failed"),
            }
        }
    }

    async fn gc_all(
        &self,
        safe_point: TimeStamp,
        cancel: &CancellationToken,
    ) -> Result<GcSummary, MvccError> {
        let mut summary = GcSummary::default();
        let mut rest = Some(KeyRange::default());
        let topology = &self.0.topology;
        while let Some(range) = rest.filter(|_| !cancel.is_cancelled() && !topology.is_gc_held()) {
            let storage = self.clone();
            let mut so_far = summary;
            let passed = self
                .0
                .rt
                .blocking(move || {
                    let rest = storage.gc_pass(&range, safe_point, &mut so_far);
                    (rest, so_far)
                })
                .await;
            summary = passed.1;
            rest = passed.0?;
        }
        Ok(summary)
    }

    /// One go over the front of a range; gives what is left of it.
    fn gc_pass(
        &self,
        range: &KeyRange<EncodedKey>,
        safe_point: TimeStamp,
        summary: &mut GcSummary,
    ) -> Result<Option<KeyRange<EncodedKey>>, MvccError> {
        let snapshot = self.0.engine.snapshot();
        let mut cursor = snapshot.iter(Cf::Write, key::data_range(range));
        let mut pass = Pass {
            storage: self,
            safe_point,
            batch: Batch::default(),
        };
        let mut user_key: Vec<u8> = Vec::new();
        let mut state = State::Keep;
        let mut newest_delete: Option<Vec<u8>> = None;
        let mut seen = 0;
        let mut is_valid = cursor.seek_to_first()?;
        while is_valid {
            let (here, commit_ts) = key::split_ts(cursor.key())?;
            if here != user_key {
                pass.remove_delete(newest_delete.take(), summary)?;
                if seen >= RECORDS_PER_PASS_MAX {
                    let start = EncodedKey::from(key::strip_data_prefix(here)?);
                    pass.flush()?;
                    return Ok(Some(KeyRange {
                        start,
                        end: range.end.clone(),
                    }));
                }
                user_key.clear();
                user_key.extend_from_slice(here);
                state = State::Keep;
            }
            seen += 1;
            summary.versions_seen += 1;
            if state == State::Keep && commit_ts <= pass.safe_point {
                state = State::Decide;
            }
            let write = WriteRef::parse(cursor.value())?;
            match (state, write.kind) {
                (State::Keep, _) => {}
                (State::Decide, WriteKind::Put) => state = State::Remove,
                (State::Decide, WriteKind::Delete) => {
                    // It goes last: while older versions are there it has to hide them.
                    newest_delete = Some(cursor.key().to_vec());
                    state = State::Remove;
                }
                (State::Decide | State::Remove, _) => {
                    pass.remove(&user_key, cursor.key(), &write, summary)?;
                }
            }
            is_valid = cursor.next()?;
        }
        pass.remove_delete(newest_delete, summary)?;
        pass.flush()?;
        Ok(None)
    }
}

struct Pass<'s> {
    storage: &'s Storage,
    safe_point: TimeStamp,
    batch: Batch,
}

impl Pass<'_> {
    fn remove(
        &mut self,
        user_key: &[u8],
        write_key: &[u8],
        write: &WriteRef<'_>,
        summary: &mut GcSummary,
    ) -> Result<(), MvccError> {
        if write.kind == WriteKind::Put && write.short_value.is_none() {
            let mut value_key = user_key.to_vec();
            key::append_ts(&mut value_key, write.start_ts);
            self.batch.delete(Cf::Default, value_key);
        }
        self.batch.delete(Cf::Write, write_key.to_vec());
        summary.versions_removed += 1;
        if self.batch.changes.len() >= BATCH_CHANGES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn remove_delete(
        &mut self,
        write_key: Option<Vec<u8>>,
        summary: &mut GcSummary,
    ) -> Result<(), MvccError> {
        if let Some(write_key) = write_key {
            self.batch.delete(Cf::Write, write_key);
            summary.versions_removed += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MvccError> {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.storage.0.engine.write(&batch)?;
        }
        Ok(())
    }
}
