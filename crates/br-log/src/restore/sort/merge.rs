use std::sync::Arc;

use super::{
    buffer::Buffer,
    run::{Run, RunCursor, RunError},
    version::Version,
};

/// Versions of several sorted sources as one, in order, each entry once.
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// A binary heap of places in `sources`, the least version first; without those that ended.
    heap: Vec<usize>,
}

enum Source {
    Buffer { buffer: Arc<Buffer>, at: usize },
    Run(RunCursor),
}

impl Source {
    fn peek(&self) -> Option<Version<'_>> {
        match self {
            Source::Buffer { buffer, at } => buffer.get(*at),
            Source::Run(cursor) => cursor.peek(),
        }
    }

    fn advance(&mut self) -> Result<(), RunError> {
        match self {
            Source::Buffer { at, .. } => {
                *at += 1;
                Ok(())
            }
            Source::Run(cursor) => cursor.advance(),
        }
    }
}

impl Merge {
    /// The versions from an encoded key on.
    pub(super) fn new(
        buffers: &[Arc<Buffer>],
        runs: &[Arc<Run>],
        encoded_key: &[u8],
    ) -> Result<Merge, RunError> {
        let mut sources = Vec::with_capacity(buffers.len() + runs.len());
        for buffer in buffers {
            sources.push(Source::Buffer {
                at: buffer.lower_bound(encoded_key),
                buffer: buffer.clone(),
            });
        }
        for run in runs {
            sources.push(Source::Run(RunCursor::seek(run.clone(), encoded_key)?));
        }
        Ok(Merge::over(sources))
    }

    /// All versions of one buffer.
    pub(super) fn of_buffer(buffer: Arc<Buffer>) -> Merge {
        Merge::over(vec![Source::Buffer { buffer, at: 0 }])
    }

    fn over(sources: Vec<Source>) -> Merge {
        let live = |place: &usize| sources.get(*place).is_some_and(|s| s.peek().is_some());
        let heap = (0..sources.len()).filter(live).collect();
        let mut merge = Merge { sources, heap };
        for place in (0..merge.heap.len() / 2).rev() {
            merge.sink(place);
        }
        merge
    }

    /// The least version; `None` at the end.
    pub(crate) fn peek(&self) -> Option<Version<'_>> {
        self.sources.get(*self.heap.first()?)?.peek()
    }

    /// Goes to the next version, past all that stand for the same entry.
    ///
    /// # Errors
    /// A local file cannot be read.
    pub(crate) fn advance(&mut self) -> Result<(), RunError> {
        let Some(&first) = self.heap.first() else {
            return Ok(());
        };
        // Other sources with the same entry move first, while the version is still there to compare.
        while let Some(other) = self.same_as_first() {
            if let Some(source) = self
                .heap
                .get(other)
                .and_then(|at| self.sources.get_mut(*at))
            {
                source.advance()?;
            }
            self.settle(other);
        }
        let Some(source) = self.sources.get_mut(first) else {
            return Ok(());
        };
        loop {
            // A source may have an entry twice itself.
            let is_repeated = match source {
                Source::Buffer { buffer, at } => {
                    let pair = (buffer.get(*at), buffer.get(*at + 1));
                    matches!(pair, (Some(a), Some(b)) if a.is_same_entry(&b))
                }
                Source::Run(_) => false,
            };
            source.advance()?;
            if !is_repeated {
                break;
            }
        }
        self.settle(0);
        Ok(())
    }

    /// The place in the heap of another source that stands at the same entry as the first: in a
    /// heap it is a child of the first.
    fn same_as_first(&self) -> Option<usize> {
        let version = |place: usize| self.sources.get(*self.heap.get(place)?)?.peek();
        let first = version(0)?;
        [1, 2]
            .into_iter()
            .find(|place| version(*place).is_some_and(|other| other.is_same_entry(&first)))
    }

    /// Puts a source that moved on to its place, or takes it out at its end.
    fn settle(&mut self, place: usize) {
        let ended = self
            .heap
            .get(place)
            .and_then(|at| self.sources.get(*at))
            .is_none_or(|source| source.peek().is_none());
        if ended {
            self.heap.swap_remove(place);
        }
        self.sink(place);
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if self.is_before(child, least) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let version = |place: usize| self.sources.get(*self.heap.get(place)?)?.peek();
        match (version(a), version(b)) {
            (Some(a), Some(b)) => a.compare(&b).is_lt(),
            _ => false,
        }
    }
}
