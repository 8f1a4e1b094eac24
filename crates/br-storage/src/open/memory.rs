use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use object_store::{ObjectStore, memory::InMemory};

use crate::Faults;

/// One memory backend.
#[derive(Clone, Default)]
struct Memory {
    objects: Arc<InMemory>,
    faults: Faults,
}

/// The memory backends of this process by name. Process-wide, because the coordinator and the
/// stores of an embedded cluster open the same one from a request that can only carry its name.
static STORES: Mutex<BTreeMap<String, Memory>> = Mutex::new(BTreeMap::new());

fn stores() -> MutexGuard<'static, BTreeMap<String, Memory>> {
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn open(name: &str) -> (Arc<dyn ObjectStore>, Faults) {
    let memory = stores().entry(name.to_owned()).or_default().clone();
    (memory.objects, memory.faults)
}

/// The objects of `memory://NAME` as they lie there, sealed or not; for tests.
pub fn memory_objects(name: &str) -> Arc<dyn ObjectStore> {
    open(name).0
}

/// Whoever opens `memory://NAME` from now on meets these faults; for tests.
pub fn set_memory_faults(name: &str, faults: Faults) {
    stores().entry(name.to_owned()).or_default().faults = faults;
}

/// Drops the objects of `memory://NAME`, once those who have it open are done.
pub fn forget_memory(name: &str) {
    stores().remove(name);
}
