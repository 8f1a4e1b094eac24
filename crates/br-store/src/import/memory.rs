//! Memory for what requests hold at the same time.

use std::time::Duration;

use br_rt::Rt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ImportError;

/// A request that waits longer is turned away, as TiKV does at once: its client comes again, here or at
/// another store, and does not hold a place in the queue meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What is counted; a semaphore has fewer places than a file may have bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// A budget in bytes.
pub(super) struct Memory {
    rt: Rt,
    units: Semaphore,
    units_max: u32,
}

impl Memory {
    pub(super) fn new(rt: Rt, bytes_max: u64) -> Memory {
        let units_max = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX);
        let units_max =
            units_max.clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Memory {
            rt,
            units: Semaphore::new(units_max as usize),
            units_max,
        }
    }

    /// Room for so many bytes, until it is dropped. What is larger than all gets all.
    ///
    /// # Errors
    /// There was none for a while.
    pub(super) async fn room(&self, bytes: u64) -> Result<SemaphorePermit<'_>, ImportError> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let room = self.units.acquire_many(units.min(self.units_max));
        match self.rt.timeout(WAIT_MAX, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(ImportError::OutOfMemory),
        }
    }
}

#[cfg(test)]
mod tests {
    use br_rt::UnixMillis;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_so_much_and_no_more() {
        let memory = Memory::new(Rt::simulated(1, UnixMillis(0)), 10 << 10);
        let most = memory.room(9 << 10).await.unwrap();
        assert!(matches!(
            memory.room(2 << 10).await,
            Err(ImportError::OutOfMemory)
        ));
        let rest = memory.room(1).await.unwrap();
        drop((most, rest));
        let all = memory.room(1 << 40).await.unwrap();
        let waits = async {
            memory.rt.sleep(WAIT_MAX / 2).await;
            drop(all);
        };
        let (room, ()) = futures::join!(memory.room(1), waits);
        assert!(room.is_ok());
    }
}
