use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use br_types::{Cf, DataKey, KeyRange};

use crate::engine::{
    Batch, Engine, EngineError, RangeSize, Snapshot, SstOptions, SstWriter, memory::MemoryEngine,
};

/// How often a write lets other threads go first, before and after it can be seen.
const YIELDS: usize = 100;

/// An engine whose writes take their time: what may happen meanwhile does happen.
pub(super) struct HesitantEngine {
    pub(super) inner: MemoryEngine,
    pub(super) gate: Arc<Gate>,
}

/// Holds writes up while it is closed.
#[derive(Default)]
pub(super) struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn close(&self) {
        *self.is_closed() = true;
    }

    pub(super) fn open(&self) {
        *self.is_closed() = false;
        self.opened.notify_all();
    }

    fn is_closed(&self) -> MutexGuard<'_, bool> {
        self.is_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) {
        let closed = self.opened.wait_while(self.is_closed(), |closed| *closed);
        drop(closed.unwrap_or_else(PoisonError::into_inner));
    }
}

fn hesitate() {
    for _ in 0..YIELDS {
        std::thread::yield_now();
    }
}

impl Engine for HesitantEngine {
    fn snapshot(&self) -> Box<dyn Snapshot> {
        self.inner.snapshot()
    }

    fn write(&self, batch: &Batch) -> Result<(), EngineError> {
        hesitate();
        self.gate.pass();
        self.inner.write(batch)?;
        hesitate();
        Ok(())
    }

    fn sst_writer(
        &self,
        path: &Path,
        options: SstOptions,
    ) -> Result<Box<dyn SstWriter>, EngineError> {
        self.inner.sst_writer(path, options)
    }

    fn ingest(&self, files: &[(Cf, PathBuf)]) -> Result<(), EngineError> {
        self.inner.ingest(files)
    }

    fn delete_range(&self, cf: Cf, range: &KeyRange<DataKey>) -> Result<(), EngineError> {
        self.inner.delete_range(cf, range)
    }

    fn approximate_size(&self, range: &KeyRange<DataKey>) -> RangeSize {
        self.inner.approximate_size(range)
    }

    fn scratch_dir(&self) -> &Path {
        self.inner.scratch_dir()
    }

    fn disk_space(&self) -> (u64, u64) {
        self.inner.disk_space()
    }
}
