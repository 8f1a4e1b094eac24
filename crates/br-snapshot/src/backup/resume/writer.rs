//! # What it does
//! Writes down what is done, a little later and in the background.
//!
//! # Retries
//! What could not be written is tried again with the next flush. The backup does not fail of it: at
//! worst an interruption costs more.
//!
//! # Cancellation
//! Dropped, what was not written yet is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use br_format::{
    crypter::{Crypter, Iv},
    names,
    resume::{ResumeChecksums, ResumeRange, ResumeRanges, TableChecksum},
};
use br_rt::{Monotonic, Rt, Task, kill_point};
use br_storage::{Storage, StorageError};
use br_types::TimeStamp;
use tokio::sync::mpsc;

/// How long something that is done may stay unwritten: what an interruption costs.
pub(super) const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Ranges in one file, at about 1 KiB each; more are written without waiting.
const RANGES_PER_FILE_MAX: usize = 4_096;
/// Ranges that wait for a storage that does not take them; beyond, they are forgotten, and would be
/// backed up again.
const RANGES_HELD_MAX: usize = 65_536;
/// Things done that wait to be noted.
const QUEUE: usize = 1_024;
/// How long the end of a backup waits for the last flush.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

enum Done {
    Range(ResumeRange),
    Checksum(TableChecksum),
}

/// See the module.
pub(in super::super) struct ResumeWriter {
    rt: Rt,
    done: mpsc::Sender<Done>,
    /// Set when what is not written yet is not wanted any more.
    is_over: Arc<AtomicBool>,
    task: Task<()>,
}

struct Work {
    rt: Rt,
    storage: Storage,
    crypter: Crypter,
    backup_ts: TimeStamp,
    began: Monotonic,
    elapsed_before_ns: Arc<AtomicU64>,
    ranges: Vec<ResumeRange>,
    checksums: Vec<TableChecksum>,
    is_forgetful: bool,
    is_over: Arc<AtomicBool>,
}

impl ResumeWriter {
    pub(super) fn start(
        rt: &Rt,
        storage: &Storage,
        crypter: Crypter,
        backup_ts: TimeStamp,
        elapsed_before_ns: Arc<AtomicU64>,
    ) -> ResumeWriter {
        let (done, queue) = mpsc::channel(QUEUE);
        let is_over = Arc::new(AtomicBool::new(false));
        let work = Work {
            rt: rt.clone(),
            storage: storage.clone(),
            crypter,
            backup_ts,
            began: rt.now(),
            elapsed_before_ns,
            ranges: Vec::new(),
            checksums: Vec::new(),
            is_forgetful: false,
            is_over: is_over.clone(),
        };
        let task = rt.spawn(work.run(queue));
        ResumeWriter {
            rt: rt.clone(),
            done,
            is_over,
            task,
        }
    }

    /// Notes that a range is backed up.
    pub(in super::super) async fn add_range(&self, range: ResumeRange) {
        // The task lives for as long as this.
        let _ = self.done.send(Done::Range(range)).await;
    }

    /// Notes the checksum of a table.
    pub(super) async fn add_checksum(&self, checksum: TableChecksum) {
        let _ = self.done.send(Done::Checksum(checksum)).await;
    }

    /// Writes the rest and ends.
    pub(super) async fn close(self) {
        let ResumeWriter { rt, done, task, .. } = self;
        drop(done);
        if rt.timeout(CLOSE_WAIT_MAX, task).await.is_err() {
            tracing::warn!("the last progress could not be written down in time");
        }
    }

    /// Ends without writing anything more. Waits for a write under way, which would leave a file
    /// behind otherwise.
    pub(super) async fn discard(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.close().await;
    }
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Done>) {
        let mut flush_at: Option<Monotonic> = None;
        loop {
            let wait = flush_at.map(|at| at.since(self.rt.now()));
            let received = match wait {
                None => queue.recv().await.map(Some),
                Some(wait) => match self.rt.timeout(wait, queue.recv()).await {
                    Ok(received) => received.map(Some),
                    Err(_) => Some(None),
                },
            };
            match received {
                None => break,
                Some(Some(done)) => {
                    self.note(done);
                    if self.ranges.len() < RANGES_PER_FILE_MAX || self.is_forgetful {
                        flush_at.get_or_insert(self.rt.now().plus(FLUSH_INTERVAL));
                        continue;
                    }
                }
                Some(None) => {}
            }
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            flush_at = match self.flush().await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "progress could not be written down yet");
                    Some(self.rt.now().plus(FLUSH_INTERVAL))
                }
            };
        }
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "the last progress could not be written down");
        }
    }

    fn note(&mut self, done: Done) {
        match done {
            Done::Checksum(checksum) => self.checksums.push(checksum),
            Done::Range(range) if self.ranges.len() < RANGES_HELD_MAX => self.ranges.push(range),
            Done::Range(_) if self.is_forgetful => {}
            Done::Range(_) => {
                self.is_forgetful = true;
                tracing::warn!("progress is not written down any more for now");
            }
        }
    }

    async fn flush(&mut self) -> Result<(), StorageError> {
        let before = Duration::from_nanos(self.elapsed_before_ns.load(Ordering::Relaxed));
        let elapsed = before.saturating_add(self.rt.now().since(self.began));
        if !self.ranges.is_empty() {
            let ranges = ResumeRanges {
                ranges: std::mem::take(&mut self.ranges),
                elapsed,
            };
            let bytes = ranges.encode(&self.crypter, &Iv(self.rt.random_bytes()));
            let name = names::resume_data(self.backup_ts, self.rt.uuid());
            if let Err(error) = self.storage.write(&name, bytes).await {
                self.ranges = ranges.ranges;
                return Err(error);
            }
            self.is_forgetful = false;
            kill_point("backup.resume_data");
        }
        if !self.checksums.is_empty() {
            let checksums = ResumeChecksums {
                tables: std::mem::take(&mut self.checksums),
                elapsed,
            };
            let name = names::resume_checksum(self.backup_ts, self.rt.uuid());
            if let Err(error) = self.storage.write(&name, checksums.encode()).await {
                self.checksums = checksums.tables;
                return Err(error);
            }
            kill_point("backup.resume_checksum");
        }
        Ok(())
    }
}
