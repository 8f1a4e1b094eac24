//! Splits regions that have grown too large.
//!
//! # What it does
//! Looks at the engine's estimate for each region now and then; where it is above the limit, reads
//! through the region and splits it into parts of the wanted size.
//!
//! # Ordering and invariants
//! A split key is an encoded key without timestamp, so that the versions of a key stay together.
//! Keys are counted as TiKV counts them: committed versions only, the entries of the write column
//! family. A region of raw keys is split by its size alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use br_codec::{bytes, key};
use br_rt::Rt;
use br_store::{
    engine::{Cursor, Engine, EngineError, Snapshot},
    topology::RegionState,
};
use br_types::{Cf, DataKey, EncodedKey, KeyRange, RegionId};

use crate::pd::Pd;

/// Time between rounds.
const ROUND: Duration = Duration::from_secs(1);
/// Bounds that one pass gives a region, as TiKV's `batch-split-limit`; the rest of it is left for
/// the next pass. Clients have to learn of each, so they come a few at a time.
const KEYS_MAX: usize = 10;
/// Bytes of a timestamp at the end of an engine key.
const TS_LEN: usize = 8;

/// When regions are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitLimits {
    /// Bytes of a part; a region is split when it holds half as much again.
    pub(crate) size_bytes: u64,
    /// Committed versions in a part; likewise.
    pub(crate) keys: u64,
}

impl SplitLimits {
    fn exceeded_by(self, size_bytes: u64, keys: u64) -> bool {
        size_bytes > self.size_bytes.saturating_add(self.size_bytes / 2)
            || keys > self.keys.saturating_add(self.keys / 2)
    }
}

/// The background task.
pub(crate) struct Splitter {
    pub(crate) rt: Rt,
    pub(crate) pd: Arc<Pd>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) limits: SplitLimits,
    /// Regions that turned out smaller than estimated: version, and the estimate then.
    pub(crate) smaller: BTreeMap<RegionId, (u64, u64)>,
}

impl Splitter {
    /// Splits for ever.
    pub(crate) async fn run(mut self) {
        loop {
            self.rt.sleep(ROUND).await;
            self.round().await;
        }
    }

    /// Looks at every region once; gives the number of new regions.
    pub(crate) async fn round(&mut self) -> usize {
        let (pd, engine, limits) = (self.pd.clone(), self.engine.clone(), self.limits);
        let large = move || {
            let mut large = pd.regions.all();
            large.retain(|state| {
                let size = engine.approximate_size(&key::data_range(&state.range()));
                limits.exceeded_by(size.bytes, size.keys)
            });
            large
        };
        let large = self.rt.blocking(large).await;
        self.smaller
            .retain(|id, _| large.iter().any(|state| state.id() == *id));
        let mut made = 0;
        for state in large {
            made += self.split(state).await;
        }
        made
    }

    async fn split(&mut self, state: RegionState) -> usize {
        let version = state.region.region_epoch.unwrap_or_default().version;
        let range = state.range();
        let size = self.engine.approximate_size(&key::data_range(&range));
        let estimate = size.bytes.saturating_add(size.keys);
        if let Some((known_version, known)) = self.smaller.get(&state.id())
            && *known_version == version
            && estimate < known.saturating_add(known / 4)
        {
            return 0;
        }
        let (engine, limits) = (self.engine.clone(), self.limits);
        let keys = self
            .rt
            .blocking(move || split_keys(&*engine.snapshot(), &range, limits))
            .await;
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(region = state.region.id, %error, "cannot read a region to split it");
                return 0;
            }
        };
        if keys.is_empty() {
            self.smaller.insert(state.id(), (version, estimate));
            return 0;
        }
        let (pd, id) = (self.pd.clone(), state.id());
        match self
            .rt
            .blocking(move || pd.split_and_spread(id, version, &keys))
            .await
        {
            Ok(parts) => {
                tracing::info!(region = id.0, parts = parts.len(), "split a region by size");
                parts.len() - 1
            }
            Err(error) => {
                tracing::debug!(
                    region = id.0,
                    error = error.message,
                    "a region changed meanwhile"
                );
                0
            }
        }
    }
}

/// Keys that cut a range into parts within the limits. The last part may be half as large again,
/// so that no tiny one is left over.
pub(crate) fn split_keys(
    snapshot: &dyn Snapshot,
    range: &KeyRange<EncodedKey>,
    limits: SplitLimits,
) -> Result<Vec<EncodedKey>, EngineError> {
    let data_range = key::data_range(range);
    let mut entries = Entries::new(snapshot, &data_range)?;
    let mut keys: Vec<EncodedKey> = Vec::new();
    let (mut size_bytes, mut count) = (0_u64, 0_u64);
    while let Some((cf, data_key, len)) = entries.current() {
        let is_version = cf == Cf::Write;
        if (size_bytes >= limits.size_bytes || (is_version && count >= limits.keys))
            && let Some(cut) = boundary(data_key)
            && cut > *keys.last().unwrap_or(&range.start)
            && range.is_before_end(&cut)
        {
            keys.push(cut);
            (size_bytes, count) = (0, 0);
            if keys.len() == KEYS_MAX {
                return Ok(keys);
            }
        }
        size_bytes = size_bytes.saturating_add(len);
        count += u64::from(is_version);
        entries.advance()?;
    }
    if size_bytes < limits.size_bytes / 2 && count < limits.keys / 2 {
        keys.pop();
    }
    Ok(keys)
}

/// The key of a region's bound at a data key: without prefix and timestamp.
fn boundary(data_key: &[u8]) -> Option<EncodedKey> {
    let engine_key = key::strip_data_prefix(data_key).ok()?;
    match bytes::encoded_prefix_len(engine_key) {
        // Anything is a fit bound among raw keys, also those that look like this by chance.
        Ok(len) if len + TS_LEN == engine_key.len() => engine_key.get(..len).map(EncodedKey::from),
        _ => Some(EncodedKey::from(engine_key)),
    }
}

/// The entries of the column families of data, merged by key.
struct Entries<'a>(Vec<(Cf, Box<dyn Cursor + 'a>)>);

impl<'a> Entries<'a> {
    fn new(snapshot: &'a dyn Snapshot, range: &KeyRange<DataKey>) -> Result<Self, EngineError> {
        let mut cursors = Vec::new();
        for cf in [Cf::Write, Cf::Default] {
            let mut cursor = snapshot.iter(cf, range.clone());
            if cursor.seek_to_first()? {
                cursors.push((cf, cursor));
            }
        }
        Ok(Entries(cursors))
    }

    fn least(&self) -> Option<usize> {
        let keyed = self.0.iter().enumerate();
        keyed
            .min_by(|(_, (_, a)), (_, (_, b))| a.key().cmp(b.key()))
            .map(|(at, _)| at)
    }

    /// Where the entry here belongs, its data key, and the bytes of key and value.
    fn current(&self) -> Option<(Cf, &[u8], u64)> {
        let (cf, cursor) = self.0.get(self.least()?)?;
        let len = cursor.key().len() + cursor.value().len();
        Some((*cf, cursor.key(), u64::try_from(len).unwrap_or(u64::MAX)))
    }

    fn advance(&mut self) -> Result<(), EngineError> {
        if let Some(at) = self.least()
            && let Some((_, cursor)) = self.0.get_mut(at)
            && !cursor.next()?
        {
            self.0.swap_remove(at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use br_store::engine::{Batch, memory::MemoryEngine};
    use br_types::TimeStamp;

    use super::*;

    /// Ten keys of two committed versions each: one of them has its value in the default column
    /// family.
    fn committed(engine: &MemoryEngine) {
        let mut batch = Batch::default();
        for number in 0..10_u8 {
            for (ts, value) in [(20, None), (10, Some(vec![number; 300]))] {
                let encoded = key::encode(&[number]);
                let key = key::data_key_at(encoded.as_bytes(), TimeStamp(ts)).into_bytes();
                if let Some(value) = value {
                    batch.put(Cf::Default, key.clone(), value);
                }
                batch.put(Cf::Write, key, b"w".to_vec());
            }
        }
        engine.write(&batch).unwrap();
    }

    fn cuts(engine: &MemoryEngine, size_bytes: u64, keys: u64) -> Vec<EncodedKey> {
        let limits = SplitLimits { size_bytes, keys };
        split_keys(&*engine.snapshot(), &KeyRange::default(), limits).unwrap()
    }

    #[test]
    fn committed_versions_are_counted() {
        let scratch = tempfile::tempdir().unwrap();
        let engine = MemoryEngine::new(scratch.path());
        committed(&engine);
        let size = engine.approximate_size(&key::data_range(&KeyRange::default()));
        assert_eq!(size.keys, 20);
        let expected = [2, 4, 6, 8].map(|number| key::encode(&[number]));
        assert_eq!(cuts(&engine, u64::MAX, 4), expected);
    }

    #[test]
    fn raw_keys_are_split_by_size_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let engine = MemoryEngine::new(scratch.path());
        let mut batch = Batch::default();
        for number in 0..100_u8 {
            let key = key::data_key(&[b'r', number]).into_bytes();
            batch.put(Cf::Default, key, vec![0; 97]);
        }
        engine.write(&batch).unwrap();
        let size = engine.approximate_size(&key::data_range(&KeyRange::default()));
        assert_eq!((size.bytes, size.keys), (10_000, 0));
        assert_eq!(cuts(&engine, u64::MAX, 7), []);
        let expected = [30, 60].map(|number| EncodedKey::from(&[b'r', number][..]));
        assert_eq!(cuts(&engine, 3_000, 7), expected);
    }
}
