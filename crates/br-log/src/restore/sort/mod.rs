//! # What it does
//! Sorts versions of keys, as many as a log has, within a fixed amount of memory: versions are
//! collected in buffers; a full buffer is sorted and becomes a run on the local disk; runs are
//! merged when they are read.
//!
//! # Objects it reads and writes
//! Files in one folder that is removed with the last user of the sorted data. They hold what the
//! log holds, in plain text.
//!
//! # Ordering and invariants
//! By encoded key; of one key the records of `write` before the values of `default`; of those the
//! newest first. The same version twice (a store that rescans a region logs again what it had
//! logged) comes out once.
//!
//! # After a crash
//! The folder stays and is of no use; the next process that sorts there removes it.

mod block;
mod buffer;
mod merge;
mod run;
mod version;

#[cfg(test)]
mod tests;

pub(crate) use buffer::Buffer;
pub(crate) use merge::Merge;
pub(crate) use run::{Run, RunError};
pub(crate) use version::Version;

use std::sync::{Arc, Mutex, PoisonError};

use crate::scratch::ScratchDir;

/// Runs that are merged into a longer one when so many have come together: each open run costs
/// [`block::BLOCK_BYTES`] while it is read, and each comparison takes one more step when they double.
const RUNS_OF_LEVEL_MAX: usize = 64;

/// Collects sorted buffers from several threads, and bounds what of them stays in memory.
pub(crate) struct Sorter {
    scratch: Arc<ScratchDir>,
    /// Bytes of sorted buffers that may stay in memory.
    memory_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_memory: Vec<Arc<Buffer>>,
    in_memory_bytes: usize,
    /// Runs on disk by how often their content was merged.
    levels: Vec<Vec<Arc<Run>>>,
}

impl Sorter {
    /// A sorter with its files in `scratch`, that keeps up to `memory_bytes_max` in memory.
    pub(crate) fn new(scratch: Arc<ScratchDir>, memory_bytes_max: usize) -> Sorter {
        Sorter {
            scratch,
            memory_bytes_max,
            state: Mutex::default(),
        }
    }

    /// Takes a filled buffer. Blocks: sorts it, and writes to disk what no longer fits.
    ///
    /// # Errors
    /// A local file cannot be written or read.
    pub(crate) fn add(&self, mut buffer: Buffer) -> Result<(), RunError> {
        if buffer.is_empty() {
            return Ok(());
        }
        buffer.sort();
        let spilled = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = buffer.memory_bytes();
            if state.in_memory_bytes + bytes <= self.memory_bytes_max {
                state.in_memory_bytes += bytes;
                state.in_memory.push(Arc::new(buffer));
                return Ok(());
            }
            buffer
        };
        let run = Run::write(&self.scratch, Merge::of_buffer(Arc::new(spilled)))?;
        self.add_run(run, 0)
    }

    /// Adds a run to its level; a full level becomes one run of the next.
    fn add_run(&self, run: Run, level: usize) -> Result<(), RunError> {
        let (mut run, mut level) = (run, level);
        loop {
            let full = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                while state.levels.len() <= level {
                    state.levels.push(Vec::new());
                }
                match state.levels.get_mut(level) {
                    Some(runs) => {
                        runs.push(Arc::new(run));
                        match runs.len() >= RUNS_OF_LEVEL_MAX {
                            true => std::mem::take(runs),
                            false => return Ok(()),
                        }
                    }
                    None => return Ok(()),
                }
            };
            let merge = Merge::new(&[], &full, &[])?;
            run = Run::write(&self.scratch, merge)?;
            level += 1;
        }
    }

    /// Everything that was added.
    pub(crate) fn finish(self) -> Sorted {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Sorted {
            buffers: state.in_memory,
            runs: state.levels.into_iter().flatten().collect(),
            _scratch: self.scratch,
        }
    }
}

/// Sorted versions, to be read in parts, each as often as needed.
#[derive(Clone)]
pub(crate) struct Sorted {
    buffers: Vec<Arc<Buffer>>,
    runs: Vec<Arc<Run>>,
    /// The files live as long as somebody reads them.
    _scratch: Arc<ScratchDir>,
}

impl Sorted {
    /// The versions from an encoded key on.
    ///
    /// # Errors
    /// A local file cannot be read.
    pub(crate) fn from(&self, encoded_key: &[u8]) -> Result<Merge, RunError> {
        Merge::new(&self.buffers, &self.runs, encoded_key)
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        let buffers = self.buffers.iter().map(|buffer| buffer.data_bytes());
        let runs = self.runs.iter().map(|run| run.data_bytes());
        buffers.chain(runs).sum()
    }

    /// Encoded keys that cut the data into parts of about `bytes` each; duplicates among what was
    /// added count in full, so that parts may be smaller.
    pub(crate) fn cuts(&self, bytes: u64) -> Vec<Vec<u8>> {
        let mut samples: Vec<(&[u8], u64)> = Vec::new();
        for buffer in &self.buffers {
            buffer.samples(|key, bytes| samples.push((key, bytes)));
        }
        for run in &self.runs {
            run.samples(|key, bytes| samples.push((key, bytes)));
        }
        samples.sort_unstable();
        let mut cuts: Vec<Vec<u8>> = Vec::new();
        let mut before = 0;
        for (key, weight) in samples {
            // The weight of a sample lies behind its key.
            if before >= bytes.max(1) && cuts.last().is_none_or(|last| last.as_slice() < key) {
                cuts.push(key.to_vec());
                before = 0;
            }
            before += weight;
        }
        cuts
    }
}
