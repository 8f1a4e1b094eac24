use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering, fence},
};

use br_types::{EncodedKey, KeyRange};

use crate::engine::Batch;

/// Whoever wants to know of the writes of transactions.
pub(crate) trait WriteObserver: Send + Sync {
    /// A batch that the engine shows now; its writer holds the latches of its keys and has not
    /// been answered yet. Must be short, and must not wait.
    fn applied(&self, batch: &Arc<Batch>);

    /// All keys of a range were removed physically, locks too.
    fn removed(&self, range: &KeyRange<EncodedKey>);
}

/// The observers of an engine's writes.
///
/// # Ordering and invariants
/// A writer makes its batch visible, then looks for observers; an observer is added, then takes
/// its snapshot. With a full fence between both steps on both sides, each write is in the
/// snapshot, or told to the observer, or both, and no writer waits for that.
#[derive(Default)]
pub(crate) struct Observers {
    any: AtomicBool,
    list: RwLock<Vec<Arc<dyn WriteObserver>>>,
}

impl Observers {
    pub(crate) fn add(&self, observer: Arc<dyn WriteObserver>) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.push(observer);
        self.any.store(true, Ordering::SeqCst);
    }

    pub(crate) fn remove(&self, observer: &Arc<dyn WriteObserver>) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|known| !Arc::ptr_eq(known, observer));
        self.any.store(!list.is_empty(), Ordering::SeqCst);
    }

    /// Tells of a batch that the engine shows. Without observers this is a fence and a load.
    pub(crate) fn applied(&self, batch: Batch) {
        fence(Ordering::SeqCst);
        if self.any.load(Ordering::Relaxed) {
            let batch = Arc::new(batch);
            self.each(|observer| observer.applied(&batch));
        }
    }

    /// Tells of a range that was removed.
    pub(crate) fn removed(&self, range: &KeyRange<EncodedKey>) {
        fence(Ordering::SeqCst);
        if self.any.load(Ordering::Relaxed) {
            self.each(|observer| observer.removed(range));
        }
    }

    fn each(&self, tell: impl Fn(&dyn WriteObserver)) {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        for observer in list.iter() {
            tell(&**observer);
        }
    }
}
