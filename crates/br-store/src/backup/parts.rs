//! Cuts what lies in a large region into parts, so that all workers scan and not only one.

use br_codec::key;
use br_types::{Cf, DataKey, EncodedKey, KeyRange};

use crate::engine::{Engine, EngineError, Snapshot};

/// Bytes of keys and values from which on a part is cut in two. A part becomes one pair of files;
/// with a quarter of a default region, every worker has its share and files stay large.
const PART_BYTES_MAX: u64 = 64 << 20;

/// Parts of one piece: those of a region that is far too large.
const PARTS_MAX: usize = 64;

/// Steps of the search for a key in the middle: each halves the distance.
const SEARCH_STEPS: usize = 12;

/// Bytes behind the common beginning of two keys that are taken for a number: those in which the
/// handles or index values of a table differ.
const NUMBER_BYTES: usize = 8;

/// Keys at which a range of transactional data is cut into parts of about the same size, ascending;
/// none if it is small.
///
/// Sizes are the engine's estimates, so parts can be of very different sizes, and nothing but speed
/// depends on it.
pub(super) fn boundaries(
    engine: &dyn Engine,
    range: &KeyRange<EncodedKey>,
) -> Result<Vec<EncodedKey>, EngineError> {
    let snapshot = engine.snapshot();
    let mut found = Vec::new();
    let mut rest = vec![range.clone()];
    while let Some(part) = rest.pop() {
        if found.len() + rest.len() >= PARTS_MAX {
            break;
        }
        let size = engine.approximate_size(&key::data_range(&part)).bytes;
        if size <= PART_BYTES_MAX {
            continue;
        }
        let Some(middle) = middle(engine, &*snapshot, &part, size)? else {
            continue;
        };
        rest.push(KeyRange {
            start: part.start,
            end: middle.clone(),
        });
        rest.push(KeyRange {
            start: middle.clone(),
            end: part.end,
        });
        found.push(middle);
    }
    found.sort_unstable();
    Ok(found)
}

/// A key with about half of the range before it, strictly inside.
fn middle(
    engine: &dyn Engine,
    snapshot: &dyn Snapshot,
    range: &KeyRange<EncodedKey>,
    size: u64,
) -> Result<Option<EncodedKey>, EngineError> {
    let mut cursor = snapshot.iter(Cf::Write, key::data_range(range));
    if !cursor.seek_to_first()? {
        return Ok(None);
    }
    let first = cursor.key().to_vec();
    cursor.seek_to_last()?;
    let last = cursor.key().to_vec();
    let common = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
    let prefix = first.get(..common).unwrap_or_default();
    let number = |key: &[u8]| {
        let mut bytes = [0; NUMBER_BYTES];
        for (byte, source) in bytes.iter_mut().zip(key.get(common..).unwrap_or_default()) {
            *byte = *source;
        }
        u64::from_be_bytes(bytes)
    };
    let start = key::data_range(range).start;
    let (mut low, mut high) = (number(&first), number(&last));
    for _ in 0..SEARCH_STEPS {
        let guess = low + (high - low) / 2;
        let guessed = DataKey::new([prefix, &guess.to_be_bytes()].concat());
        let before = KeyRange {
            start: start.clone(),
            end: guessed,
        };
        match engine.approximate_size(&before).bytes < size / 2 {
            true => low = guess,
            false => high = guess,
        }
    }
    if !cursor.seek(&[prefix, &low.to_be_bytes()].concat())? {
        return Ok(None);
    }
    // Versions of one key belong together.
    let found = key::split_data_key(cursor.key())
        .ok()
        .map(|(found, _)| EncodedKey::from(found));
    Ok(found.filter(|found| *found > range.start && range.is_before_end(found)))
}
