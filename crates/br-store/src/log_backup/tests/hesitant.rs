use std::path::{Path, PathBuf};

use br_types::{Cf, DataKey, KeyRange};

use crate::engine::{
    Batch, Engine, EngineError, RangeSize, Snapshot, SstOptions, SstWriter, memory::MemoryEngine,
};

/// How often a write lets other threads go first, before and after it can be seen.
const YIELDS: usize = 100;

/// An engine whose writes take their time: what may happen meanwhile does happen.
pub(super) struct HesitantEngine(pub(super) MemoryEngine);

fn hesitate() {
    for _ in 0..YIELDS {
        std::thread::yield_now();
    }
}

impl Engine for HesitantEngine {
    fn snapshot(&self) -> Box<dyn Snapshot> {
        self.0.snapshot()
    }

    fn write(&self, batch: &Batch) -> Result<(), EngineError> {
        hesitate();
        self.0.write(batch)?;
        hesitate();
        Ok(())
    }

    fn sst_writer(
        &self,
        path: &Path,
        options: SstOptions,
    ) -> Result<Box<dyn SstWriter>, EngineError> {
        self.0.sst_writer(path, options)
    }

    fn ingest(&self, files: &[(Cf, PathBuf)]) -> Result<(), EngineError> {
        self.0.ingest(files)
    }

    fn delete_range(&self, cf: Cf, range: &KeyRange<DataKey>) -> Result<(), EngineError> {
        self.0.delete_range(cf, range)
    }

    fn approximate_size(&self, range: &KeyRange<DataKey>) -> RangeSize {
        self.0.approximate_size(range)
    }

    fn scratch_dir(&self) -> &Path {
        self.0.scratch_dir()
    }

    fn disk_space(&self) -> (u64, u64) {
        self.0.disk_space()
    }
}
