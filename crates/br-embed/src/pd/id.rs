//! Ids of regions, peers and stores: unique over the cluster's whole life.
//!
//! # Objects it reads and writes
//! The key `id`: an id that was not given out yet. A crash loses at most [`STEP`] ids.

use std::sync::{Arc, Mutex, PoisonError};

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_u64};

/// Ids that one write to the store makes ready.
const STEP: u64 = 1000;
const KEY: &[u8] = b"id";

/// Gives out ids, from 1.
pub struct IdAllocator {
    kv: Arc<dyn MetaKv>,
    /// The last id given out, and the last one that may be before the next write.
    state: Mutex<(u64, u64)>,
}

impl IdAllocator {
    /// Goes on after every id that was ever given out of this store.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(kv: Arc<dyn MetaKv>) -> Result<IdAllocator, MetaError> {
        let stored = get_u64(kv.as_ref(), KEY)?;
        Ok(IdAllocator {
            kv,
            state: Mutex::new((stored, stored)),
        })
    }

    /// The last of `count` successive new ids (at least one).
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn alloc(&self, count: u32) -> Result<u64, MetaError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let last = state.0.saturating_add(u64::from(count.max(1)));
        if last > state.1 {
            let bound = last.saturating_add(STEP);
            let mut batch = MetaBatch::default();
            batch.put(KEY, bound.to_be_bytes());
            self.kv.write(batch)?;
            state.1 = bound;
        }
        state.0 = last;
        Ok(last)
    }

    /// Makes every further id greater than `id`.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn raise(&self, id: u64) -> Result<(), MetaError> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = state.0.max(id);
        }
        self.alloc(1).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::pd::meta_kv::MemoryKv;

    #[test]
    fn ids_are_never_given_out_twice() {
        let kv: Arc<MemoryKv> = Arc::default();
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let ids = IdAllocator::open(kv.clone()).unwrap();
            for count in [1, 5, 999, 2_000] {
                let last = ids.alloc(count).unwrap();
                for id in last + 1 - u64::from(count)..=last {
                    assert!(seen.insert(id), "{id} twice");
                }
            }
        }
        assert!(!seen.contains(&0));
    }
}
