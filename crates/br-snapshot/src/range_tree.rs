//! # What it does
//! Keeps the books of a backup: which of the wanted ranges have been answered, and by what.
//!
//! Stores answer in pieces, in any order, for their own leaders only, and now and then twice: a
//! leader moved, a region split or merged while two stores scanned it. An error names no range, so
//! what is missing is found by subtraction.
//!
//! # Ordering and invariants
//! - The wanted ranges are sorted, disjoint and not empty.
//! - The finished pieces are disjoint, and each lies within one wanted range.
//! - A piece is taken whole or not at all: its files hold exactly its range, so a part of it cannot
//!   be used. A new piece that covers everything it overlaps takes the place of that; every other
//!   overlapping piece is refused, and the part of it that is still missing is asked for again.
//! - What has been taken out with [`RangeTree::take_finished`] stays finished for ever.
//!
//! So when [`RangeTree::is_complete`], the pieces that were accepted and not replaced hold each
//! wanted key exactly once.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use br_types::{KeyRange, RawKey};

#[cfg(test)]
mod tests;

/// Wanted ranges that cannot be kept books of.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WantedError {
    /// A range holds no key.
    #[error("the range {0} holds no key")]
    Empty(KeyRange<RawKey>),
    /// Two ranges have keys in common.
    #[error("the ranges {0} and {1} overlap")]
    Overlap(KeyRange<RawKey>, KeyRange<RawKey>),
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Insert<P> {
    /// It counts; so many wanted ranges became complete by it (0 or 1).
    Added {
        /// Wanted ranges that became complete.
        completed: usize,
    },
    /// It counts, and what these older pieces brought does not any more.
    Replaced {
        /// What the older pieces brought.
        superseded: Vec<P>,
        /// Wanted ranges that became complete.
        completed: usize,
    },
    /// It does not count: finished pieces overlap it.
    Refused(P),
    /// It does not count: no wanted range holds it, or it is empty.
    NotWanted(P),
}

#[derive(Debug)]
struct Piece<P> {
    end: RawKey,
    /// `None` once taken out.
    payload: Option<P>,
}

/// Wanted ranges and the pieces that finished them, each with what it brought.
#[derive(Debug)]
pub struct RangeTree<P> {
    wanted: Vec<KeyRange<RawKey>>,
    /// Finished pieces by their start.
    pieces: BTreeMap<RawKey, Piece<P>>,
    /// All that the pieces hold, start to end, neighbours joined: what is missing is found without
    /// a walk over the pieces.
    finished: BTreeMap<RawKey, RawKey>,
    /// Pieces that have not been taken out.
    held: usize,
    /// Wanted ranges that are finished.
    complete: usize,
}

impl<P> RangeTree<P> {
    /// Nothing finished yet. `wanted` may come in any order.
    ///
    /// # Errors
    /// [`WantedError`] when a range is empty or two overlap.
    pub fn new(mut wanted: Vec<KeyRange<RawKey>>) -> Result<Self, WantedError> {
        wanted.sort_by(|a, b| a.start.cmp(&b.start));
        if let Some(empty) = wanted.iter().find(|range| range.is_empty()) {
            return Err(WantedError::Empty(empty.clone()));
        }
        if let Some((left, right)) = wanted
            .iter()
            .zip(wanted.iter().skip(1))
            .find(|(left, right)| left.overlaps(right))
        {
            return Err(WantedError::Overlap(left.clone(), right.clone()));
        }
        Ok(Self {
            wanted,
            pieces: BTreeMap::new(),
            finished: BTreeMap::new(),
            held: 0,
            complete: 0,
        })
    }

    /// The wanted ranges, sorted.
    pub fn wanted(&self) -> &[KeyRange<RawKey>] {
        &self.wanted
    }

    /// Wanted ranges that are finished.
    pub fn complete(&self) -> usize {
        self.complete
    }

    /// Whether every wanted range is finished.
    pub fn is_complete(&self) -> bool {
        self.complete == self.wanted.len()
    }

    /// Pieces whose payload has not been taken out.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes a finished piece, or refuses it.
    pub fn insert(&mut self, range: &KeyRange<RawKey>, payload: P) -> Insert<P> {
        let Some(home) = self.home_of(range) else {
            return Insert::NotWanted(payload);
        };
        let overlapped = self.overlapped(range);
        let replaceable = overlapped.iter().all(|start| {
            self.pieces.get(start).is_some_and(|piece| {
                let old = KeyRange {
                    start: start.clone(),
                    end: piece.end.clone(),
                };
                piece.payload.is_some() && range.covers(&old)
            })
        });
        if !replaceable {
            return Insert::Refused(payload);
        }
        let was_complete = self.is_finished(&home);
        let superseded: Vec<P> = overlapped
            .iter()
            .filter_map(|start| self.pieces.remove(start).and_then(|piece| piece.payload))
            .collect();
        self.held -= superseded.len();
        self.held += 1;
        let piece = Piece {
            end: range.end.clone(),
            payload: Some(payload),
        };
        self.pieces.insert(range.start.clone(), piece);
        self.mark_finished(range);
        let completed = usize::from(!was_complete && self.is_finished(&home));
        self.complete += completed;
        if superseded.is_empty() {
            Insert::Added { completed }
        } else {
            Insert::Replaced {
                superseded,
                completed,
            }
        }
    }

    /// The parts of the wanted ranges that no piece holds, sorted.
    pub fn missing(&self) -> Vec<KeyRange<RawKey>> {
        self.wanted
            .iter()
            .flat_map(|range| Gaps {
                finished: &self.finished,
                rest: Some(range.clone()),
            })
            .collect()
    }

    /// Takes out what the finished pieces brought, by their start keys. Their ranges stay
    /// finished, and no later piece can replace them. Neighbours are joined, so that the memory
    /// held afterwards is that of the gaps.
    pub fn take_finished(&mut self) -> Vec<P> {
        let pieces = std::mem::take(&mut self.pieces);
        let mut taken = Vec::with_capacity(self.held);
        let mut last: Option<(RawKey, RawKey)> = None;
        for (start, piece) in pieces {
            taken.extend(piece.payload);
            last = Some(match last.take() {
                Some((first, end)) if end == start => (first, piece.end),
                other => {
                    if let Some((first, end)) = other {
                        self.pieces.insert(first, Piece { end, payload: None });
                    }
                    (start, piece.end)
                }
            });
        }
        if let Some((first, end)) = last {
            self.pieces.insert(first, Piece { end, payload: None });
        }
        self.held = 0;
        taken
    }

    /// The wanted range that holds `range`.
    fn home_of(&self, range: &KeyRange<RawKey>) -> Option<KeyRange<RawKey>> {
        if range.is_empty() {
            return None;
        }
        let after = self
            .wanted
            .partition_point(|wanted| wanted.start <= range.start);
        let home = self.wanted.get(after.checked_sub(1)?)?;
        home.covers(range).then(|| home.clone())
    }

    /// The last piece that starts at or before `key`, if it reaches beyond it.
    fn piece_at(&self, key: &RawKey) -> Option<(&RawKey, &Piece<P>)> {
        let (start, piece) = self.pieces.range(..=key).next_back()?;
        (piece.end.is_empty() || piece.end > *key).then_some((start, piece))
    }

    /// Starts of the pieces that have keys in common with `range`.
    fn overlapped(&self, range: &KeyRange<RawKey>) -> Vec<RawKey> {
        let first = self.piece_at(&range.start).map(|(start, _)| start.clone());
        let others = self
            .pieces
            .range((Excluded(&range.start), Unbounded))
            .map(|(start, _)| start)
            .take_while(|start| range.is_before_end(start))
            .cloned();
        first.into_iter().chain(others).collect()
    }

    fn is_finished(&self, wanted: &KeyRange<RawKey>) -> bool {
        span_at(&self.finished, &wanted.start).is_some_and(|span| span.covers(wanted))
    }

    /// Joins `range` with what is finished beside it and in it.
    fn mark_finished(&mut self, range: &KeyRange<RawKey>) {
        let mut joined = range.clone();
        if let Some((start, end)) = self.finished.range(..&range.start).next_back()
            && (end.is_empty() || *end >= range.start)
        {
            joined.start = start.clone();
        }
        loop {
            let next = self.finished.range(&joined.start..).next();
            let Some((start, end)) = next else { break };
            if !joined.end.is_empty() && *start > joined.end {
                break;
            }
            if end.is_empty() || (!joined.end.is_empty() && *end > joined.end) {
                joined.end = end.clone();
            }
            let start = start.clone();
            self.finished.remove(&start);
        }
        self.finished.insert(joined.start, joined.end);
    }
}

/// The span that holds `key`.
fn span_at(spans: &BTreeMap<RawKey, RawKey>, key: &RawKey) -> Option<KeyRange<RawKey>> {
    let (start, end) = spans.range(..=key).next_back()?;
    let span = KeyRange {
        start: start.clone(),
        end: end.clone(),
    };
    span.contains(key).then_some(span)
}

/// The parts of a range that no span holds.
struct Gaps<'a> {
    finished: &'a BTreeMap<RawKey, RawKey>,
    rest: Option<KeyRange<RawKey>>,
}

impl Iterator for Gaps<'_> {
    type Item = KeyRange<RawKey>;

    fn next(&mut self) -> Option<KeyRange<RawKey>> {
        let mut rest = self.rest.take()?;
        if let Some(span) = span_at(self.finished, &rest.start) {
            if span.end.is_empty() {
                return None;
            }
            rest.start = span.end;
            if rest.is_empty() {
                return None;
            }
        }
        let next = self
            .finished
            .range((Excluded(&rest.start), Unbounded))
            .next();
        match next
            .map(|(start, _)| start)
            .filter(|start| rest.is_before_end(start))
        {
            Some(start) => {
                let gap = KeyRange {
                    start: rest.start,
                    end: start.clone(),
                };
                self.rest = Some(KeyRange {
                    start: start.clone(),
                    end: rest.end,
                });
                Some(gap)
            }
            None => Some(rest),
        }
    }
}
