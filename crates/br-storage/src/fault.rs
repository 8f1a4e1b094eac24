use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_rt::Rt;
use bytes::Bytes;

use crate::Failure;

/// Faults that a [`crate::Storage`] is given in tests; drawn from the `Rt`'s randomness, so that
/// a seed gives one run. All rates are in thousandths of the attempts.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Attempts that fail as if the storage were busy, before they do anything.
    pub errors_per_mille: u32,
    /// Writes and deletes that are done and then fail as if the answer were lost.
    pub lost_answers_per_mille: u32,
    /// Each attempt waits for a time drawn below this one.
    pub latency_max: Duration,
    /// Reads whose body breaks off; a retry follows.
    pub truncated_reads_per_mille: u32,
    /// Reads with one flipped bit. Nothing here can see that: checksums above have to.
    pub corrupted_reads_per_mille: u32,
    /// The process dies after so many more changes: none is done afterwards, and all fail in a way
    /// that is not tried again.
    pub crash: Option<CrashPoint>,
    /// What is out of reach now.
    pub outage: Outage,
}

/// Takes a storage, or some of its objects, out of reach for a while. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<Mutex<Option<String>>>);

impl Outage {
    /// From now on attempts fail whose object's name contains this text; with none, all do.
    pub fn begin(&self, name_part: &str) {
        *self.lock() = Some(name_part.to_owned());
    }

    /// All is well again.
    pub fn end(&self) {
        *self.lock() = None;
    }

    fn covers(&self, name: &str) -> bool {
        let lost = self.lock();
        lost.as_ref().is_some_and(|part| name.contains(part))
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many changes are done before everything ends. Clones share the count.
#[derive(Clone, Debug)]
pub struct CrashPoint(Arc<AtomicU64>);

impl CrashPoint {
    /// So many changes are done.
    pub fn after(changes: u64) -> CrashPoint {
        CrashPoint(Arc::new(AtomicU64::new(changes)))
    }

    /// Whether another change is done.
    fn allows(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

impl Faults {
    fn strikes(rt: &Rt, per_mille: u32) -> bool {
        per_mille > 0 && rt.random_below(1000) < u64::from(per_mille)
    }

    /// What an attempt meets on its way to the storage.
    pub(crate) async fn before(&self, rt: &Rt, name: &str) -> Result<(), Failure> {
        if self.outage.covers(name) {
            return Err(Failure::Unavailable("injected: out of reach".to_owned()));
        }
        if !self.latency_max.is_zero() {
            let micros = u64::try_from(self.latency_max.as_micros()).unwrap_or(u64::MAX);
            rt.sleep(Duration::from_micros(rt.random_below(micros)))
                .await;
        }
        Self::fail(rt, self.errors_per_mille, "injected: busy")
    }

    /// What an attempt to change something meets at the storage.
    pub(crate) fn before_change(&self) -> Result<(), Failure> {
        match &self.crash {
            Some(crash) if !crash.allows() => {
                Err(Failure::Refused("injected: the process is dead".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// What an attempt that changed something meets on its way back.
    pub(crate) fn after_change(&self, rt: &Rt) -> Result<(), Failure> {
        Self::fail(
            rt,
            self.lost_answers_per_mille,
            "injected: the answer was lost",
        )
    }

    /// What happens to bytes on the way back.
    pub(crate) fn body(&self, rt: &Rt, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let at = usize::try_from(rt.random_below(bytes.len() as u64)).unwrap_or(0);
        if Self::strikes(rt, self.truncated_reads_per_mille) {
            return bytes.slice(..at);
        }
        if Self::strikes(rt, self.corrupted_reads_per_mille) {
            let mut bytes = Vec::from(bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rt.random_below(8);
            }
            return bytes.into();
        }
        bytes
    }

    fn fail(rt: &Rt, per_mille: u32, text: &str) -> Result<(), Failure> {
        match Self::strikes(rt, per_mille) {
            true => Err(Failure::Unavailable(text.to_owned())),
            false => Ok(()),
        }
    }
}
