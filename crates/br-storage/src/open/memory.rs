use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use object_store::{ObjectStore, memory::InMemory};

/// The memory backends of this process by name. Process-wide, because the coordinator and the
/// stores of an embedded cluster open the same one from a request that can only carry its name.
static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

fn stores() -> MutexGuard<'static, HashMap<String, Arc<InMemory>>> {
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn open(name: &str) -> Arc<dyn ObjectStore> {
    stores().entry(name.to_owned()).or_default().clone()
}

/// Drops the objects of `memory://NAME`, once those who have it open are done.
pub fn forget_memory(name: &str) {
    stores().remove(name);
}
