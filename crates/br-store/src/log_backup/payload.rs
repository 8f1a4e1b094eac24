//! What was observed since the last seal: logical files in memory, spilled to disk when it is much.
//!
//! # Ordering and invariants
//! A payload is filled by the collector alone. Sealing it gives its files together with the
//! progress of all regions at that very point of the event queue; both stay together until they
//! are on the storage, however often that fails. So no progress is published whose events are not
//! in this payload or an earlier one.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use br_codec::DecodeError;
use br_format::log::{
    content::Tally,
    file::{EventKind, FileIdentity, LogFile},
    record::Record,
};
use br_rt::{Monotonic, Rt};
use br_types::{Cf, EncodedKey, KeyRange, RegionEpoch, TableId, TimeStamp};

use super::{
    spill::{Extent, SpillFile},
    subscription::SubscriptionSpec,
};

/// A buffer of this size is worth a write of its own; smaller ones are spilled only when there is
/// nothing larger.
const SPILL_BYTES_MIN: usize = 1 << 20;
/// Spilling goes on until this part of the quota is in use, so that it is not done for each event.
const SPILL_TO_PERCENT: usize = 50;

/// Bytes that payloads of a store have in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryUse(AtomicUsize);

impl MemoryUse {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A change of a key as it goes into a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'e> {
    pub(crate) cf: Cf,
    /// Memcomparable, with its timestamp, without `z`.
    pub(crate) engine_key: &'e [u8],
    /// `None`: the key is removed from the column family.
    pub(crate) value: Option<&'e [u8]>,
}

/// The logical files that are being filled.
pub(crate) struct Payload {
    rt: Rt,
    dir: PathBuf,
    memory: Arc<MemoryUse>,
    memory_bytes_max: usize,
    files: BTreeMap<FileIdentity, OpenFile>,
    spill: Option<SpillFile>,
    own_memory: usize,
    bytes: u64,
    first_at: Option<Monotonic>,
}

struct OpenFile {
    tally: Tally,
    buffer: Vec<u8>,
    extents: Vec<Extent>,
    resolved_ts: TimeStamp,
    region_range: KeyRange<EncodedKey>,
    epochs: Vec<RegionEpoch>,
}

/// The files of a sealed payload.
pub(crate) struct SealedFiles {
    /// By identity, so that neighbours in an object are neighbours in the key space.
    pub(crate) files: Vec<SealedFile>,
    spill: Option<Arc<SpillFile>>,
    memory: Arc<MemoryUse>,
    memory_bytes: usize,
}

/// A logical file with its records.
pub(crate) struct SealedFile {
    pub(crate) file: LogFile,
    extents: Vec<Extent>,
    buffer: Arc<Vec<u8>>,
}

/// The records of a file, to be read piece by piece on another thread.
pub(crate) struct RecordSource {
    extents: VecDeque<Extent>,
    spill: Option<Arc<SpillFile>>,
    buffer: Arc<Vec<u8>>,
    /// Of the next byte in the buffer, which comes after the extents.
    position: usize,
}

impl Payload {
    pub(crate) fn new(
        rt: Rt,
        dir: &Path,
        memory: Arc<MemoryUse>,
        memory_bytes_max: usize,
    ) -> Payload {
        Payload {
            rt,
            dir: dir.to_owned(),
            memory,
            memory_bytes_max,
            files: BTreeMap::new(),
            spill: None,
            own_memory: 0,
            bytes: 0,
            first_at: None,
        }
    }

    /// Bytes of records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first record came.
    pub(crate) fn first_at(&self) -> Option<Monotonic> {
        self.first_at
    }

    /// Adds an event of a region.
    pub(crate) fn append(
        &mut self,
        region: &SubscriptionSpec,
        resolved_ts: TimeStamp,
        event: Event<'_>,
    ) -> Result<(), DecodeError> {
        let identity = identity_of(region, event);
        let file = self
            .files
            .entry(identity)
            .or_insert_with(|| OpenFile::new(event.cf, region));
        let room = file.buffer.capacity();
        let length = file.tally.length();
        let record = Record {
            key: event.engine_key,
            value: event.value.unwrap_or_default(),
        };
        file.tally.append(record, &mut file.buffer)?;
        file.resolved_ts = file.resolved_ts.max(resolved_ts);
        file.note_region(region);
        let grown = file.buffer.capacity() - room;
        self.bytes += file.tally.length() - length;
        self.own_memory += grown;
        self.memory.0.fetch_add(grown, Ordering::Relaxed);
        if self.first_at.is_none() {
            self.first_at = Some(self.rt.now());
        }
        Ok(())
    }

    /// Whether [`Payload::spill`] has something to do.
    pub(crate) fn is_over_quota(&self) -> bool {
        self.memory.bytes() > self.memory_bytes_max && self.own_memory > 0
    }

    /// Writes records to disk until half of the quota is free, the largest files first. Blocking.
    ///
    /// # Errors
    /// Of the file system; the records are not complete any more then.
    pub(crate) fn spill(&mut self) -> io::Result<()> {
        let goal = self.memory_bytes_max / 100 * SPILL_TO_PERCENT;
        let mut order: Vec<_> = self.files.values_mut().collect();
        order.sort_by_key(|file| std::cmp::Reverse(file.buffer.len()));
        for file in order {
            let is_small = file.buffer.len() < SPILL_BYTES_MIN;
            let limit = if is_small {
                self.memory_bytes_max
            } else {
                goal
            };
            if file.buffer.is_empty() || self.memory.bytes() <= limit {
                break;
            }
            let spill = match &mut self.spill {
                Some(spill) => spill,
                none => none.insert(SpillFile::create(&self.rt, &self.dir)?),
            };
            let buffer = std::mem::take(&mut file.buffer);
            file.extents.push(spill.append(&buffer)?);
            self.own_memory -= buffer.capacity();
            self.memory
                .0
                .fetch_sub(buffer.capacity(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes the files; an empty payload is left.
    pub(crate) fn seal(&mut self) -> SealedFiles {
        let mut files: Vec<_> = std::mem::take(&mut self.files)
            .into_iter()
            .filter_map(|(identity, open)| open.seal(identity))
            .collect();
        files.sort_by_key(|file| file.file.identity);
        self.bytes = 0;
        self.first_at = None;
        SealedFiles {
            files,
            spill: self.spill.take().map(Arc::new),
            memory: self.memory.clone(),
            memory_bytes: std::mem::take(&mut self.own_memory),
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.own_memory, Ordering::Relaxed);
    }
}

impl OpenFile {
    fn new(cf: Cf, region: &SubscriptionSpec) -> OpenFile {
        OpenFile {
            tally: Tally::new(cf),
            buffer: Vec::new(),
            extents: Vec::new(),
            resolved_ts: TimeStamp::ZERO,
            region_range: KeyRange::new(
                region.region.start_key.clone(),
                region.region.end_key.clone(),
            ),
            epochs: Vec::new(),
        }
    }

    fn note_region(&mut self, region: &SubscriptionSpec) {
        let epoch = region.region.region_epoch.unwrap_or_default();
        let epoch = RegionEpoch {
            conf_ver: epoch.conf_ver,
            version: epoch.version,
        };
        if self.epochs.last() == Some(&epoch) || self.epochs.contains(&epoch) {
            return;
        }
        self.epochs.push(epoch);
        let (start, end) = (&region.region.start_key, &region.region.end_key);
        let range = &mut self.region_range;
        if start.as_slice() < range.start.as_bytes() {
            range.start = EncodedKey::from(start.as_slice());
        }
        if !range.end.is_empty() && (end.is_empty() || end.as_slice() > range.end.as_bytes()) {
            range.end = EncodedKey::from(end.as_slice());
        }
    }

    fn seal(self, identity: FileIdentity) -> Option<SealedFile> {
        let mut file = self.tally.finish(identity)?;
        file.resolved_ts = self.resolved_ts;
        file.region_range = self.region_range;
        file.region_epochs = self.epochs;
        Some(SealedFile {
            file,
            extents: self.extents,
            buffer: Arc::new(self.buffer),
        })
    }
}

/// The file that an event belongs to.
fn identity_of(region: &SubscriptionSpec, event: Event<'_>) -> FileIdentity {
    let is_schema = event.engine_key.first() == Some(&b'm');
    let table = if is_schema {
        None
    } else {
        table_of(event.engine_key)
    };
    FileIdentity {
        is_schema,
        table: table.unwrap_or(TableId(0)),
        region: region.region_id(),
        cf: event.cf,
        kind: match event.value {
            Some(_) => EventKind::Put,
            None => EventKind::Delete,
        },
    }
}

/// The table of a memcomparable key: `t` and eight bytes of id lie in its first two groups of
/// eight bytes and a marker.
fn table_of(engine_key: &[u8]) -> Option<TableId> {
    let first = engine_key.get(..8)?;
    let last = engine_key.get(9)?;
    let mut raw = [0; 9];
    let (head, tail) = raw.split_at_mut(8);
    head.copy_from_slice(first);
    tail.copy_from_slice(std::slice::from_ref(last));
    br_tidb::table_key::table_id(&raw)
}

impl SealedFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Where the records of a file are.
    pub(crate) fn source(&self, index: usize) -> Option<RecordSource> {
        let file = self.files.get(index)?;
        Some(RecordSource {
            extents: file.extents.iter().copied().collect(),
            spill: self.spill.clone(),
            buffer: file.buffer.clone(),
            position: 0,
        })
    }

    /// Forgets the records of a file that is on the storage.
    pub(crate) fn release(&mut self, index: usize) {
        if let Some(file) = self.files.get_mut(index) {
            let bytes = std::mem::take(&mut file.buffer).capacity();
            self.memory_bytes -= bytes;
            self.memory.0.fetch_sub(bytes, Ordering::Relaxed);
            file.extents.clear();
        }
    }
}

impl Drop for SealedFiles {
    fn drop(&mut self) {
        self.memory
            .0
            .fetch_sub(self.memory_bytes, Ordering::Relaxed);
    }
}

impl RecordSource {
    /// The next bytes, at most about `bytes_max`; none at the end. Blocking.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn next(&mut self, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        if let (Some(extent), Some(spill)) = (self.extents.front_mut(), &self.spill) {
            let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
            let mut piece = vec![0; len.min(bytes_max)];
            spill.read(extent.offset, &mut piece)?;
            extent.offset += piece.len() as u64;
            extent.len -= piece.len() as u64;
            if extent.len == 0 {
                self.extents.pop_front();
            }
            return Ok(Some(piece));
        }
        let rest = self.buffer.get(self.position..).unwrap_or_default();
        let piece = rest.get(..bytes_max).unwrap_or(rest);
        self.position += piece.len();
        Ok((!piece.is_empty()).then(|| piece.to_vec()))
    }
}

#[cfg(test)]
mod tests;
