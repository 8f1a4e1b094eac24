//! # What it does
//! The ranges of keys in which sorted data comes into the cluster, and which of them are in. They are
//! cut once and written down; whoever goes on takes the same, for other cuts would be other ranges.
//!
//! # Ordering and invariants
//! A part is marked when all of it was ingested. Keys are those of the cluster, whose ids a resumed
//! restore keeps. What lies in parts that are in is neither read nor sorted again.

use br_snapshot::restore::DoneSteps;
use br_types::{EncodedKey, KeyRange};
use sha2::{Digest, Sha256};

use super::{error::PointError, sort::Sorted};

/// The name of the steps, and of the note with the cuts.
const LOG: &str = "log";

/// Bytes of the digest of the cuts.
const DIGEST_LEN: usize = 8;

/// See the module.
pub(crate) struct Parts {
    /// Where one part ends and the next begins.
    cuts: Vec<Vec<u8>>,
    missing: Vec<bool>,
}

impl Parts {
    /// The parts that an interrupted restore has cut.
    ///
    /// # Errors
    /// What is kept of it cannot be read.
    pub(super) async fn resumed(done: Option<&DoneSteps>) -> Result<Option<Parts>, PointError> {
        let Some(done) = done else { return Ok(None) };
        let Some(note) = done.note(LOG).await? else {
            return Ok(None);
        };
        // Damaged or not in order: they are cut anew.
        let cuts = decode(&note).filter(|cuts| cuts.is_sorted());
        Ok(cuts.map(|cuts| {
            let missing = done.missing(LOG, cuts.len() + 1, &digest_of(&note));
            Parts { cuts, missing }
        }))
    }

    /// Parts of about `bytes`, written down if there is something to write to.
    ///
    /// # Errors
    /// They cannot be written down.
    pub(super) async fn cut(
        sorted: &Sorted,
        bytes: u64,
        done: Option<&DoneSteps>,
    ) -> Result<Parts, PointError> {
        let cuts = sorted.cuts(bytes);
        let missing = match done {
            None => vec![true; cuts.len() + 1],
            Some(done) => {
                let note = encode(&cuts);
                done.keep_note(LOG, &note).await?;
                done.missing(LOG, cuts.len() + 1, &digest_of(&note))
            }
        };
        Ok(Parts { cuts, missing })
    }

    /// Where parts end.
    pub(super) fn cuts(&self) -> &[Vec<u8>] {
        &self.cuts
    }

    /// How many are in.
    pub(super) fn done(&self) -> usize {
        self.missing.iter().filter(|missing| !**missing).count()
    }

    /// Whether all are in.
    pub(super) fn all_done(&self) -> bool {
        !self.missing.contains(&true)
    }

    /// Those that are not in, with their numbers.
    pub(super) fn missing(&self) -> Vec<(usize, KeyRange<EncodedKey>)> {
        let numbers = 0..self.missing.len();
        numbers
            .filter(|number| self.missing.get(*number) == Some(&true))
            .map(|number| {
                let cut = |at: Option<usize>| {
                    let cut = at.and_then(|at| self.cuts.get(at));
                    cut.map_or_else(EncodedKey::default, |cut| EncodedKey::from(cut.clone()))
                };
                let range = KeyRange {
                    start: cut(number.checked_sub(1)),
                    end: cut(Some(number)),
                };
                (number, range)
            })
            .collect()
    }

    /// Notes that a part is in.
    pub(super) fn mark(done: &DoneSteps, part: usize) {
        done.mark(LOG, part);
    }

    /// Whether a key lies in a part that is in.
    pub(super) fn has(&self, encoded: &[u8]) -> bool {
        self.missing.get(self.part_of(encoded)) == Some(&false)
    }

    /// Whether all keys from `first` to `last`, both included, lie in parts that are in.
    pub(super) fn has_all(&self, first: &[u8], last: &[u8]) -> bool {
        let parts = self.part_of(first)..=self.part_of(last);
        first <= last
            && self
                .missing
                .get(parts)
                .is_some_and(|of| !of.contains(&true))
    }

    fn part_of(&self, encoded: &[u8]) -> usize {
        self.cuts.partition_point(|cut| cut.as_slice() <= encoded)
    }
}

/// Each with its length before it.
fn encode(cuts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cut in cuts {
        bytes.extend_from_slice(&(cut.len() as u32).to_le_bytes());
        bytes.extend_from_slice(cut);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut cuts = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (cut, rest) = rest.split_at_checked(len)?;
        cuts.push(cut.to_vec());
        bytes = rest;
    }
    Some(cuts)
}

fn digest_of(note: &[u8]) -> String {
    let digest = Sha256::digest(note);
    hex::encode(digest.get(..DIGEST_LEN).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_parts_that_are_in() {
        let parts = Parts {
            cuts: vec![b"d".to_vec(), b"h".to_vec(), b"p".to_vec()],
            missing: vec![false, false, true, false],
        };
        for (key, is_in) in [("", true), ("c", true), ("d", true), ("h", false)] {
            assert_eq!(parts.has(key.as_bytes()), is_in, "{key}");
        }
        assert!(parts.has(b"p") && !parts.has(b"oz"));
        assert!(parts.has_all(b"a", b"g") && !parts.has_all(b"a", b"h"));
        assert!(!parts.has_all(b"a", b"z") && parts.has_all(b"p", b"z"));
        assert!(!parts.has_all(b"g", b"a"), "out of order");
        let missing = parts.missing();
        assert_eq!(
            missing,
            [(2, KeyRange::new(b"h".as_slice(), b"p".as_slice()))]
        );
        assert_eq!((parts.done(), parts.all_done()), (3, false));
        let ends = Parts {
            missing: vec![true, false, false, true],
            ..parts
        };
        let open = |start: &[u8], end: &[u8]| KeyRange::new(start, end);
        let expected = [(0, open(b"", b"d")), (3, open(b"p", b""))];
        assert_eq!(ends.missing(), expected);
    }

    proptest! {
        #[test]
        fn cuts_are_read_as_they_were_written(
            cuts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..9),
        ) {
            let note = encode(&cuts);
            prop_assert_eq!(decode(&note), Some(cuts));
            for len in 0..note.len() {
                // Whatever comes of a part of it, it does not panic.
                let _ = decode(note.get(..len).unwrap_or_default());
            }
        }
    }
}
