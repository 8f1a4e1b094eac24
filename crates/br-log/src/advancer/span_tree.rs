//! # What it does
//! Knows for every key of a task up to which timestamp its changes are on storage.
//!
//! # Ordering and invariants
//! Every key of the ranges that it was made of has one value, at every time. A value never
//! decreases: what was once uploaded stays uploaded, whoever leads the region afterwards and
//! whatever little the new leader knows of it. Neighbours with one value are one span.

use std::collections::BTreeMap;

use br_types::{EncodedKey, KeyRange, TimeStamp};

/// A piece of the key space and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The keys.
    pub range: KeyRange<EncodedKey>,
    /// Everything committed up to here is on storage.
    pub checkpoint: TimeStamp,
}

/// The checkpoints of a task's keys.
#[derive(Clone, Debug, Default)]
pub struct SpanTree {
    /// By start key.
    spans: BTreeMap<EncodedKey, Tail>,
}

/// A span without its start.
#[derive(Clone, Debug)]
struct Tail {
    end: EncodedKey,
    checkpoint: TimeStamp,
}

impl SpanTree {
    /// The keys of `ranges`, all with one value.
    pub fn new(
        ranges: impl IntoIterator<Item = KeyRange<EncodedKey>>,
        checkpoint: TimeStamp,
    ) -> SpanTree {
        let mut tree = SpanTree::default();
        for range in ranges {
            tree.add(range, checkpoint);
        }
        tree
    }

    /// Adds keys, those that are missing yet.
    fn add(&mut self, range: KeyRange<EncodedKey>, checkpoint: TimeStamp) {
        let mut rest = range;
        while !rest.is_empty() {
            // What is there already up to `rest.start`, or the next span behind it.
            if let Some(covering) = self.covering(&rest.start) {
                match covering.end.is_empty() || !rest.is_before_end(&covering.end) {
                    true => break,
                    false => rest.start = covering.end,
                }
                continue;
            }
            let next = self.spans.range(rest.start.clone()..).next();
            let end = match next {
                Some((start, _)) if rest.is_before_end(start) => start.clone(),
                _ => rest.end.clone(),
            };
            let tail = Tail {
                end: end.clone(),
                checkpoint,
            };
            self.spans.insert(rest.start.clone(), tail);
            if end.is_empty() || end == rest.end {
                break;
            }
            rest.start = end;
        }
        self.join(&KeyRange::default());
    }

    /// The span that holds `key`.
    fn covering(&self, key: &EncodedKey) -> Option<KeyRange<EncodedKey>> {
        let (start, tail) = self.spans.range(..=key.clone()).next_back()?;
        let range = range(start, tail);
        range.contains(key).then_some(range)
    }

    /// Raises the value of the keys that are in `range` and in the tree to `checkpoint`, where it
    /// is less. Whether any was.
    pub fn raise(&mut self, range: &KeyRange<EncodedKey>, checkpoint: TimeStamp) -> bool {
        let lower: Vec<Span> = self
            .overlapping(range)
            .filter(|span| span.checkpoint < checkpoint)
            .collect();
        for span in &lower {
            self.spans.remove(&span.range.start);
            let Some(raised) = span.range.intersect(range) else {
                continue;
            };
            let before = KeyRange::new(span.range.start.clone(), raised.start.clone());
            if before.start < before.end {
                self.put(before, span.checkpoint);
            }
            if !raised.end.is_empty() && span.range.is_before_end(&raised.end) {
                let after = KeyRange::new(raised.end.clone(), span.range.end.clone());
                self.put(after, span.checkpoint);
            }
            self.put(raised, checkpoint);
        }
        if !lower.is_empty() {
            self.join(range);
        }
        !lower.is_empty()
    }

    fn put(&mut self, range: KeyRange<EncodedKey>, checkpoint: TimeStamp) {
        let tail = Tail {
            end: range.end,
            checkpoint,
        };
        self.spans.insert(range.start, tail);
    }

    fn overlapping(&self, wanted: &KeyRange<EncodedKey>) -> impl Iterator<Item = Span> + '_ {
        let before = self.spans.range(..wanted.start.clone()).next_back();
        let wanted = wanted.clone();
        before
            .into_iter()
            .chain(self.spans.range(wanted.start.clone()..))
            .map(|(start, tail)| Span {
                range: range(start, tail),
                checkpoint: tail.checkpoint,
            })
            .take_while({
                let wanted = wanted.clone();
                move |span| wanted.is_before_end(&span.range.start)
            })
            .filter(move |span| span.range.overlaps(&wanted))
    }

    /// Makes one span of neighbours with one value, in `around` and at its edges.
    fn join(&mut self, around: &KeyRange<EncodedKey>) {
        let from = self
            .spans
            .range(..around.start.clone())
            .next_back()
            .map_or_else(|| around.start.clone(), |(start, _)| start.clone());
        let mut joined: Vec<(EncodedKey, EncodedKey)> = Vec::new();
        let mut run: Option<(&EncodedKey, &Tail)> = None;
        for (start, tail) in self.spans.range(from..) {
            match run {
                Some((first, last)) if last.end == *start && last.checkpoint == tail.checkpoint => {
                    joined.push((first.clone(), start.clone()));
                    run = Some((first, tail));
                }
                _ => run = Some((start, tail)),
            }
            if !around.is_before_end(start) {
                break;
            }
        }
        for (first, absorbed) in joined {
            let Some(tail) = self.spans.remove(&absorbed) else {
                continue;
            };
            if let Some(kept) = self.spans.get_mut(&first) {
                kept.end = tail.end;
            }
        }
    }

    /// All spans, in key order.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().map(|(start, tail)| Span {
            range: range(start, tail),
            checkpoint: tail.checkpoint,
        })
    }

    /// The least value: everything committed up to it is on storage, for all keys. `None` without
    /// keys.
    pub fn min(&self) -> Option<TimeStamp> {
        self.spans.values().map(|tail| tail.checkpoint).min()
    }

    /// The spans with a value below `checkpoint`; neighbours are joined whatever their values.
    pub fn below(&self, checkpoint: TimeStamp) -> Vec<KeyRange<EncodedKey>> {
        let mut found: Vec<KeyRange<EncodedKey>> = Vec::new();
        for span in self.spans().filter(|span| span.checkpoint < checkpoint) {
            match found.last_mut() {
                Some(last) if !last.end.is_empty() && last.end == span.range.start => {
                    last.end = span.range.end;
                }
                _ => found.push(span.range),
            }
        }
        found
    }

    /// The number of spans.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

fn range(start: &EncodedKey, tail: &Tail) -> KeyRange<EncodedKey> {
    KeyRange {
        start: start.clone(),
        end: tail.end.clone(),
    }
}

#[cfg(test)]
mod tests;
