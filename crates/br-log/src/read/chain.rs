//! Flushes that are gone with their index: others name them ([`br_format::log::seal`]).
//!
//! All names of metadata are noted first; then metadata and copies of the checkpoint are added, and
//! what they name and is not there is missing. It is lost if nobody truncated or compacted it away.

use std::collections::{BTreeMap, BTreeSet};

use br_format::log::migration::Compaction;
use br_format::log::names::{self, MetaName};
use br_format::log::seal::{FlushMark, Seal};
use br_types::{StoreId, TimeStamp};
use futures::TryStreamExt;

use super::{LogBounds, LogReadError, LogStorage, StoredCheckpoint};

/// For how long after a window flushes are read for what they name. A store that took regions over
/// may bring records of the window in a later flush; `br verify` looks however late it came.
const LATE_MS: u64 = 10 * 60 * 1000;

/// A flush that another object names, and whose metadata is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostFlush {
    /// Of which store.
    pub store: StoreId,
    /// When.
    pub flush_ts: TimeStamp,
    /// The flush after it, or the store's copy of the checkpoint.
    pub named_by: String,
    /// The least and the greatest timestamp that its records may have, and those of other flushes
    /// which may be lost with it; `None`: it was without records.
    pub window: Option<(TimeStamp, TimeStamp)>,
}

impl LostFlush {
    /// How the name of its metadata began.
    pub fn object(&self) -> String {
        names::meta_prefix(self.store, self.flush_ts)
    }

    pub(super) fn next_step(&self) -> String {
        let object = self.object();
        let upto = self
            .window
            .map_or(TimeStamp::ZERO, |(min_ts, _)| min_ts.prev());
        format!(
            "Put the object whose name begins with {object} back, or choose a point up to {upto}; \
             `br show` lists the ranges."
        )
    }

    /// Whether a restore of commits up to `restored_ts`, and of values from `shift_ts` on, may need
    /// what it had.
    pub fn is_needed(&self, shift_ts: TimeStamp, restored_ts: TimeStamp) -> bool {
        self.window
            .is_some_and(|(min_ts, max_ts)| max_ts >= shift_ts && min_ts <= restored_ts)
    }
}

/// A flush of a store.
type Flush = (StoreId, TimeStamp);

/// What the seals of a log say. Memory: some 50 bytes for each metadata object of the log.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    there: BTreeSet<Flush>,
    /// The numbers of those that were added; none without a seal.
    added: BTreeMap<Flush, Option<u64>>,
    missing: BTreeMap<Flush, (FlushMark, String)>,
}

impl Chain {
    /// Metadata of that name is there. All that is there has to be noted before anything is added.
    pub fn note(&mut self, name: &MetaName) {
        self.there.extend(flush_of(name));
    }

    /// Takes in what metadata says.
    pub fn add(&mut self, name: &str, seal: Option<Seal>) {
        let Some(flush) = MetaName::parse(name).and_then(|name| flush_of(&name)) else {
            return;
        };
        self.added.insert(flush, seal.map(Seal::number));
        if let Some(Seal { previous }) = seal {
            self.expect(flush.0, previous, name);
        }
    }

    /// Takes in what copies of the checkpoint say.
    pub fn add_copies(&mut self, copies: &[StoredCheckpoint]) {
        for copy in copies {
            let store = names::store_of_global_checkpoint(&copy.name);
            if let (Some(store), Some(mark)) = (store, copy.last_flush) {
                self.expect(store, mark, &copy.name);
            }
        }
    }

    fn expect(&mut self, store: StoreId, mark: FlushMark, named_by: &str) {
        let flush = (store, mark.flush_ts);
        if !mark.flush_ts.is_zero() && !self.there.contains(&flush) {
            let missing = self.missing.entry(flush);
            missing.or_insert_with(|| (mark, named_by.to_owned()));
        }
    }

    /// Between which flushes of each store a restore of a window has to know what they name: the
    /// last one before it and the first one that came well after it.
    pub(super) fn witnesses(&self, shift_ts: TimeStamp, restored_ts: TimeStamp) -> Witnesses {
        let late_ms = restored_ts.physical_ms().saturating_add(LATE_MS);
        let late_ts = TimeStamp::compose(late_ms, 0);
        let mut of_stores = Witnesses::default();
        for &(store, flush_ts) in &self.there {
            let (first, last) = of_stores.entry(store).or_insert((flush_ts, flush_ts));
            if flush_ts < shift_ts {
                *first = flush_ts;
            }
            if *last <= late_ts {
                *last = flush_ts;
            }
        }
        of_stores
    }

    fn lost(&self, bounds: &LogBounds, compactions: &[Compaction]) -> Vec<LostFlush> {
        let is_removed = |mark: &FlushMark| {
            // Beyond the range that was asked for: files are compacted as a whole.
            let is_in =
                |it: &Compaction| mark.min_ts >= it.input_min_ts && mark.max_ts <= it.input_max_ts;
            mark.max_ts < bounds.truncated_to || compactions.iter().any(is_in)
        };
        let missing = self.missing.iter();
        missing
            .filter(|(_, (mark, _))| !is_removed(mark))
            .map(|(&(store, flush_ts), (mark, named_by))| LostFlush {
                store,
                flush_ts,
                named_by: named_by.clone(),
                window: self.window(store, *mark, bounds),
            })
            .collect()
    }

    /// What may be lost with a flush. Those before it are, too, if it does not follow the last one
    /// that is there.
    fn window(
        &self,
        store: StoreId,
        mark: FlushMark,
        bounds: &LogBounds,
    ) -> Option<(TimeStamp, TimeStamp)> {
        let before = self.there.range(..(store, mark.flush_ts)).next_back();
        let before = before.filter(|(other, _)| *other == store);
        let number = before.and_then(|flush| self.added.get(flush).copied().flatten());
        let is_alone = match before {
            Some(_) => number.is_some_and(|number| number.checked_add(1) == Some(mark.number)),
            None => mark.number == 1,
        };
        if is_alone {
            return (!mark.min_ts.is_zero()).then_some((mark.min_ts, mark.max_ts));
        }
        let from_ts = before.map_or(bounds.min_ts, |(_, flush_ts)| flush_ts.next());
        let of_mark = Some(mark.min_ts).filter(|ts| !ts.is_zero());
        let from_ts = of_mark.map_or(from_ts, |ts| ts.min(from_ts));
        Some((from_ts, mark.max_ts.max(mark.flush_ts)))
    }

    /// Copies of the checkpoint that have lost their seal: the last flush of the store has one.
    pub fn bare<'c>(
        &'c self,
        copies: &'c [StoredCheckpoint],
    ) -> impl Iterator<Item = &'c StoredCheckpoint> {
        copies.iter().filter(|copy| {
            let store = names::store_of_global_checkpoint(&copy.name);
            let of_store = store.map(|store| (store, TimeStamp::ZERO)..=(store, TimeStamp::MAX));
            let last = of_store.and_then(|range| self.added.range(range).next_back());
            copy.last_flush.is_none() && last.is_some_and(|(_, number)| number.is_some())
        })
    }
}

/// The first and the last flush of each store that are to be read.
pub(super) type Witnesses = BTreeMap<StoreId, (TimeStamp, TimeStamp)>;

/// Whether metadata of that name is to be read for what it names.
pub(super) fn is_witness(witnesses: &Witnesses, name: &MetaName) -> bool {
    flush_of(name).is_some_and(|(store, flush_ts)| {
        let of_store = witnesses.get(&store);
        of_store.is_some_and(|(first, last)| (*first..=*last).contains(&flush_ts))
    })
}

fn flush_of(name: &MetaName) -> Option<Flush> {
    Some((name.store()?, name.flush_ts()?))
}

impl LogStorage {
    /// Flushes that are gone though nobody has truncated or compacted them away. What was written
    /// while names were listed is not among them.
    ///
    /// # Errors
    /// The storage did not help.
    pub async fn lost_flushes(
        &self,
        chain: &Chain,
        bounds: &LogBounds,
        compactions: &[Compaction],
    ) -> Result<Vec<LostFlush>, LogReadError> {
        let mut lost = Vec::new();
        for flush in chain.lost(bounds, compactions) {
            let mut listed = self.storage().list(&flush.object());
            if listed.try_next().await?.is_none() {
                lost.push(flush);
            }
        }
        Ok(lost)
    }
}
