use std::sync::Arc;

/// What a phase counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Key ranges or regions.
    Ranges,
    /// Files on external storage.
    Files,
    /// Tables.
    Tables,
    /// Bytes.
    Bytes,
}

/// Names one phase between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PhaseId(pub u64);

/// Where operations report how far they are; the command draws it.
///
/// Calls are cheap and never block: they come from hot loops.
pub trait Progress: Send + Sync {
    /// A phase begins. `total` is 0 when it is not known.
    fn start(&self, title: &str, unit: Unit, total: u64) -> PhaseId;
    /// More is done.
    fn advance(&self, phase: PhaseId, units: u64, bytes: u64);
    /// The total is another one than was thought.
    fn set_total(&self, phase: PhaseId, total: u64);
    /// The phase has ended, well or not.
    fn finish(&self, phase: PhaseId);
}

/// Reports to nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _title: &str, _unit: Unit, _total: u64) -> PhaseId {
        PhaseId(0)
    }
    fn advance(&self, _phase: PhaseId, _units: u64, _bytes: u64) {}
    fn set_total(&self, _phase: PhaseId, _total: u64) {}
    fn finish(&self, _phase: PhaseId) {}
}

/// A phase under way; it ends when this is dropped.
pub struct Phase {
    progress: Arc<dyn Progress>,
    id: PhaseId,
}

impl Phase {
    /// Begins a phase of `total` units (0: not known).
    pub fn start(progress: &Arc<dyn Progress>, title: &str, unit: Unit, total: u64) -> Phase {
        Phase {
            progress: progress.clone(),
            id: progress.start(title, unit, total),
        }
    }

    /// More is done: units of the phase, and the bytes that they hold.
    pub fn advance(&self, units: u64, bytes: u64) {
        self.progress.advance(self.id, units, bytes);
    }

    /// The total is another one than was thought.
    pub fn set_total(&self, total: u64) {
        self.progress.set_total(self.id, total);
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.progress.finish(self.id);
    }
}
