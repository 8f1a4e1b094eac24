//! # What it does
//! Reads the wanted files of a log, checks every sum, and puts what is wanted of their events into
//! a sorter.
//!
//! # Ordering and invariants
//! Files may come in any order and events more than once: the sorter brings order. Files of
//! deletions hold what the stores cleaned up, rolled back values mostly, which nothing here would
//! take anyway; they are not read.
//!
//! # Retries
//! Those of the storage. Damage is not tried again.

use std::sync::{Arc, Mutex, PoisonError};

use br_codec::key;
use br_format::{
    backupmeta::DataFile,
    crypter::Crypter,
    log::{
        content,
        file::{EventKind, LogFile},
        record::Records,
    },
};
use br_rt::{CancellationToken, Phase, Rt};
use br_sst::{EntryKind, SstError, Table};
use br_storage::{Storage, read_again};
use br_types::{Cf, TimeStamp};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{
    error::PointError,
    parts::Parts,
    rewrite::KeyRewrite,
    sort::{Buffer, Sorter, Version},
    versions::Window,
};
use crate::read::{LogObject, LogReadError};

/// Files closer together than this are read in one go: a request costs as much as so many bytes.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Bytes that are read in one go, unless one file has more.
const READ_BYTES_MAX: u64 = 32 << 20;
/// Requests to the storage at once.
const READS_IN_FLIGHT_MAX: usize = 8;
/// MiB of records and stored bytes that are held at once, all files together.
const HELD_MIB_MAX: u32 = 192;

/// Which keys are taken, and what they become.
pub(crate) enum KeyChoice {
    /// Rows and indexes of some tables.
    Tables(KeyRewrite),
    /// Schemas, as they are.
    Schemas,
}

impl KeyChoice {
    /// Puts the key of the cluster into `out`; `false`: the key is not wanted.
    fn apply(&self, encoded: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            KeyChoice::Tables(rewrite) => rewrite.apply(encoded, out),
            KeyChoice::Schemas => {
                out.clear();
                out.extend_from_slice(encoded);
                encoded.first() == Some(&b'm')
            }
        }
    }

    /// Whether a file can have wanted keys.
    fn wants(&self, file: &LogFile) -> bool {
        match self {
            // Files of the first layout may not say which table.
            KeyChoice::Tables(rewrite) => {
                let id = &file.identity;
                !id.is_schema && (id.table.0 == 0 || rewrite.wants_table(id.table))
            }
            KeyChoice::Schemas => file.identity.is_schema,
        }
    }
}

/// Puts events into a sorter.
pub(crate) struct Loader {
    pub(crate) rt: Rt,
    pub(crate) cancel: CancellationToken,
    pub(crate) storage: Storage,
    pub(crate) crypter: Crypter,
    pub(crate) choice: Arc<KeyChoice>,
    /// What is in the cluster already.
    pub(crate) done: Option<Arc<Parts>>,
    pub(crate) window: Window,
    pub(crate) sorter: Arc<Sorter>,
    /// Bytes of one buffer, which is sorted at once.
    pub(crate) buffer_bytes: usize,
    /// Files being worked on at once: as many as there are cores for it.
    pub(crate) workers: usize,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoadTotals {
    /// Files.
    pub(crate) files: u64,
    /// Bytes of their records.
    pub(crate) record_bytes: u64,
    /// Records.
    pub(crate) records: u64,
}

impl Loader {
    /// Reads files of the log and SSTs of compactions.
    ///
    /// # Errors
    /// The storage did not help, something is damaged, or the local disk is full.
    pub(crate) async fn run(
        &self,
        objects: BoxStream<'_, Result<LogObject, LogReadError>>,
        compacted: Vec<DataFile>,
        phase: &Phase,
    ) -> Result<LoadTotals, PointError> {
        let held = Semaphore::new(HELD_MIB_MAX as usize);
        let busy = Semaphore::new(self.workers.max(1));
        let pool = Pool::default();
        let reads = objects.err_into::<PointError>().map_ok(|object| {
            let reads = reads(object, |file| self.wants(file));
            stream::iter(reads.into_iter().map(Ok::<_, PointError>))
        });
        let (held, busy, pool) = (&held, &busy, &pool);
        let logs = reads
            .try_flatten()
            .map(|read| async move { self.read(read?, held, busy, pool, phase).await })
            .buffer_unordered(READS_IN_FLIGHT_MAX)
            .boxed_local();
        let ssts = stream::iter(compacted)
            .map(|file| self.read_sst(file, held, busy, pool, phase))
            .buffer_unordered(READS_IN_FLIGHT_MAX)
            .boxed_local();
        let totals = logs
            .chain(ssts)
            .try_fold(LoadTotals::default(), async |mut sum, one| {
                sum.files += one.files;
                sum.record_bytes += one.record_bytes;
                sum.records += one.records;
                Ok(sum)
            });
        let totals = tokio::select! {
            biased;
            totals = totals => totals?,
            () = self.cancel.cancelled() => return Err(PointError::Cancelled),
        };
        for buffer in pool.take_all() {
            let sorter = self.sorter.clone();
            self.rt.blocking(move || sorter.add(buffer)).await?;
        }
        Ok(totals)
    }

    async fn read(
        &self,
        read: Read,
        held: &Semaphore,
        busy: &Semaphore,
        pool: &Pool,
        phase: &Phase,
    ) -> Result<LoadTotals, PointError> {
        let held_bytes = read.files.iter().map(|file| file.length).max();
        let _held = hold(held, read.len() + held_bytes.unwrap_or(0)).await?;
        let totals = LoadTotals {
            files: read.files.len() as u64,
            record_bytes: read.record_bytes(),
            records: 0,
        };
        let (read, mut progress) = (Arc::new(read), Progress::default());
        read_again(async || {
            let stored = match read.len() {
                // The first layout: an object is a file.
                0 => self.storage.read(&read.object).await?,
                _ => {
                    let range = read.start..read.end;
                    self.storage.read_range(&read.object, range).await?
                }
            };
            let _busy = busy.acquire().await.map_err(|_| PointError::Cancelled)?;
            let mut work = self.work(pool.take());
            let (crypter, read, mut now) = (self.crypter.clone(), read.clone(), progress);
            let done;
            (work, now, done) = self
                .rt
                .blocking(move || {
                    let done = work.log_files(&read, &stored, &crypter, &mut now);
                    (work, now, done)
                })
                .await;
            pool.give(work.buffer);
            progress = now;
            done
        })
        .await?;
        phase.advance(totals.record_bytes, totals.record_bytes);
        Ok(LoadTotals {
            records: progress.records,
            ..totals
        })
    }

    async fn read_sst(
        &self,
        file: DataFile,
        held: &Semaphore,
        busy: &Semaphore,
        pool: &Pool,
        phase: &Phase,
    ) -> Result<LoadTotals, PointError> {
        let _held = hold(held, file.size_bytes).await?;
        let file = Arc::new(file);
        let stored = read_again(async || {
            let stored = self.storage.read(&file.name).await?;
            let file = file.clone();
            let checked = self.rt.blocking(move || check_sum(&file, stored));
            checked.await
        })
        .await?;
        let _busy = busy.acquire().await.map_err(|_| PointError::Cancelled)?;
        let mut work = self.work(pool.take());
        let bytes = file.stats.total_bytes;
        let (work, done) = self
            .rt
            .blocking(move || {
                let done = work.sst_file(&file, stored);
                (work, done)
            })
            .await;
        let records = done?;
        pool.give(work.buffer);
        phase.advance(bytes, bytes);
        Ok(LoadTotals {
            files: 1,
            record_bytes: bytes,
            records,
        })
    }

    /// Whether a file can have keys that are wanted and not in the cluster yet.
    fn wants(&self, file: &LogFile) -> bool {
        if !self.choice.wants(file) {
            return false;
        }
        let (Some(done), KeyChoice::Tables(rewrite)) = (&self.done, &*self.choice) else {
            return true;
        };
        let span = rewrite.move_span(&file.first_key, &file.last_key);
        !span.is_some_and(|(first, last)| done.has_all(&first, &last))
    }

    fn work(&self, buffer: Buffer) -> Work {
        Work {
            choice: self.choice.clone(),
            done: self.done.clone(),
            window: self.window,
            sorter: self.sorter.clone(),
            buffer_bytes: self.buffer_bytes,
            buffer,
            key: Vec::new(),
        }
    }
}

async fn hold(
    held: &Semaphore,
    bytes: u64,
) -> Result<tokio::sync::SemaphorePermit<'_>, PointError> {
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    let permits = held.acquire_many(mib.clamp(1, HELD_MIB_MAX)).await;
    permits.map_err(|_| PointError::Cancelled)
}

/// Buffers that are not full yet, for whoever goes on.
#[derive(Default)]
struct Pool(Mutex<Vec<Buffer>>);

impl Pool {
    fn take(&self) -> Buffer {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop().unwrap_or_default()
    }

    fn give(&self, buffer: Buffer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }

    fn take_all(&self) -> Vec<Buffer> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stretch of an object that is read in one go.
struct Read {
    object: String,
    start: u64,
    end: u64,
    files: Vec<LogFile>,
}

impl Read {
    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn record_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }
}

/// How far a read has come.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Files of it that are sorted.
    files: usize,
    records: u64,
}

/// The bytes of an SST, if they have the sum that was noted.
fn check_sum(file: &DataFile, stored: Bytes) -> Result<Bytes, PointError> {
    let sum: [u8; 32] = Sha256::digest(&stored).into();
    if sum == file.sha256 {
        return Ok(stored);
    }
    Err(PointError::Compacted {
        file: file.name.clone(),
        source: SstError::Corrupt {
            offset: 0,
            reason: "its SHA-256 is not the one that was noted",
        },
    })
}

/// The reads that an object takes.
fn reads(object: LogObject, wants: impl Fn(&LogFile) -> bool) -> Vec<Read> {
    let mut files = object.files;
    files.retain(|file| file.identity.kind == EventKind::Put && wants(file));
    files.sort_by_key(|file| file.span.offset);
    let mut reads: Vec<Read> = Vec::new();
    for file in files {
        let (start, end) = (file.span.offset, file.span.end().unwrap_or(u64::MAX));
        match reads.last_mut() {
            Some(read)
                if start >= read.end
                    && start - read.end <= GAP_BYTES_MAX
                    && end - read.start <= READ_BYTES_MAX =>
            {
                read.end = end;
                read.files.push(file);
            }
            _ => reads.push(Read {
                object: object.name.clone(),
                start,
                end,
                files: vec![file],
            }),
        }
    }
    reads
}

/// The part of loading that computes.
struct Work {
    choice: Arc<KeyChoice>,
    done: Option<Arc<Parts>>,
    window: Window,
    sorter: Arc<Sorter>,
    buffer_bytes: usize,
    buffer: Buffer,
    /// Room for a rewritten key.
    key: Vec<u8>,
}

impl Work {
    fn log_files(
        &mut self,
        read: &Read,
        stored: &Bytes,
        crypter: &Crypter,
        progress: &mut Progress,
    ) -> Result<(), PointError> {
        for file in read.files.iter().skip(progress.files) {
            let bytes = match read.len() {
                0 => stored.clone(),
                _ => {
                    let place = |at: u64| usize::try_from(at - read.start).unwrap_or(usize::MAX);
                    let start = place(file.span.offset).min(stored.len());
                    let end = place(file.span.end().unwrap_or(u64::MAX)).min(stored.len());
                    stored.slice(start..end)
                }
            };
            let records = content::open(&read.object, file, bytes, crypter)?;
            for record in Records::new(&records) {
                let record = record.map_err(|source| PointError::Key { source })?;
                let (encoded, ts) = record
                    .split_key()
                    .map_err(|source| PointError::Key { source })?;
                self.take(file.identity.cf, encoded, ts, record.value)?;
                progress.records += 1;
            }
            progress.files += 1;
        }
        Ok(())
    }

    fn sst_file(&mut self, file: &DataFile, stored: Bytes) -> Result<u64, PointError> {
        let compacted = |source| PointError::Compacted {
            file: file.name.clone(),
            source,
        };
        let damaged = |reason| compacted(SstError::Corrupt { offset: 0, reason });
        let table = Table::open(stored).map_err(compacted)?;
        let mut entries = table.iter();
        entries.seek(&[]).map_err(compacted)?;
        let mut count = 0;
        while let Some(entry) = entries.next().map_err(compacted)? {
            if entry.kind != EntryKind::Put {
                return Err(damaged("it removes keys, which no compaction does"));
            }
            let (encoded, ts) =
                key::split_data_key(entry.user_key).map_err(|source| PointError::Key { source })?;
            self.take(file.cf, encoded, ts, entry.value)?;
            count += 1;
        }
        Ok(count)
    }

    fn take(
        &mut self,
        cf: Cf,
        encoded: &[u8],
        ts: TimeStamp,
        value: &[u8],
    ) -> Result<(), PointError> {
        // A put without a value would be one of a damaged log; stores skip them as well.
        if value.is_empty() || !self.choice.apply(encoded, &mut self.key) {
            return Ok(());
        }
        if self.done.as_ref().is_some_and(|done| done.has(&self.key)) {
            return Ok(());
        }
        let wanted = self.window.wants(cf, ts, value);
        let wanted = wanted.map_err(|source| PointError::Record {
            key: key::decode(encoded).unwrap_or_default(),
            source,
        })?;
        if !wanted {
            return Ok(());
        }
        let version = Version {
            key: &self.key,
            cf,
            ts,
            value,
        };
        if self.buffer.is_full(&version, self.buffer_bytes) {
            self.sorter.add(std::mem::take(&mut self.buffer))?;
        }
        self.buffer.push(&version);
        Ok(())
    }
}
