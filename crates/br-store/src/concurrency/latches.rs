use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use br_types::EncodedKey;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Latches in all. Two keys that share one wait for each other without need: with some hundred
/// commands at a time, each with a handful of keys, that is rare.
const SLOTS: usize = 2048;

/// One writer at a time for each key.
///
/// Keys are hashed to slots, slots are taken in ascending order and each serves its waiters in the
/// order in which they came: nobody starves, and no two commands wait for each other.
pub(crate) struct Latches {
    slots: Vec<Arc<Mutex<()>>>,
}

/// Latches that a command holds; dropping it frees them.
pub(crate) struct LatchGuard {
    _slots: Vec<OwnedMutexGuard<()>>,
}

impl Default for Latches {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Arc::default()).collect(),
        }
    }
}

impl Latches {
    /// Waits until all keys are free and takes them.
    pub(crate) async fn acquire(&self, keys: &[EncodedKey]) -> LatchGuard {
        let mut wanted: Vec<usize> = keys.iter().map(slot_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut held = Vec::with_capacity(wanted.len());
        for slot in wanted.into_iter().filter_map(|slot| self.slots.get(slot)) {
            held.push(slot.clone().lock_owned().await);
        }
        LatchGuard { _slots: held }
    }

    /// Waits until no command works and keeps all out: for the short while in which whole files
    /// are taken into the engine.
    pub(crate) async fn acquire_all(&self) -> LatchGuard {
        let mut held = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            held.push(slot.clone().lock_owned().await);
        }
        LatchGuard { _slots: held }
    }
}

fn slot_of(key: &EncodedKey) -> usize {
    // The same in each run, so that a simulation with the same seed takes the same way.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use br_rt::{Rt, UnixMillis};

    use super::*;

    #[test]
    fn one_holder_at_a_time_whatever_the_order_of_keys() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let rt = Rt::simulated(1, UnixMillis(0));
            let latches = Arc::new(Latches::default());
            let busy = Arc::new(AtomicBool::new(false));
            let keys: Vec<_> = (0..50_u8).map(|n| EncodedKey::from(vec![n])).collect();
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    let (latches, busy, rt2) = (latches.clone(), busy.clone(), rt.clone());
                    let mut keys = keys.clone();
                    keys.rotate_left(n * 7 % 50);
                    rt.spawn(async move {
                        let _held = latches.acquire(&keys).await;
                        assert!(!busy.swap(true, Ordering::SeqCst));
                        rt2.sleep(std::time::Duration::from_millis(1)).await;
                        busy.store(false, Ordering::SeqCst);
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        });
    }
}
