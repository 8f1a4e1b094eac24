use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{Monotonic, Rt};

/// A token bucket over bytes that several tasks share.
///
/// A request larger than the bucket is granted at once and paid for by those after it, so that
/// the mean rate holds for every size of request.
#[derive(Debug)]
pub struct RateLimit {
    rt: Rt,
    bytes_per_s: u64,
    /// The time at which all that was granted so far has been paid for.
    paid_at: Mutex<Monotonic>,
}

impl RateLimit {
    /// A limit; `None` for 0, which means unlimited.
    pub fn new(rt: Rt, bytes_per_s: u64) -> Option<RateLimit> {
        let paid_at = Mutex::new(rt.now());
        (bytes_per_s > 0).then_some(RateLimit {
            rt,
            bytes_per_s,
            paid_at,
        })
    }

    /// Waits until `bytes` may be spent.
    pub async fn take(&self, bytes: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let wait = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.rt.now();
            let start = (*paid_at).max(now);
            *paid_at = start.plus(cost);
            start.since(now)
        };
        if !wait.is_zero() {
            self.rt.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnixMillis;

    #[test]
    fn the_mean_rate_holds_for_every_size() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let rt = Rt::simulated(1, UnixMillis(0));
            let limit = RateLimit::new(rt.clone(), 1000).expect("a limit");
            for bytes in [10, 500, 2000, 490, 1000] {
                limit.take(bytes).await;
            }
            // The last request starts when the 3000 bytes before it have been paid for.
            assert_eq!(rt.wall().0, 3000);
            assert!(RateLimit::new(rt, 0).is_none());
        });
    }
}
