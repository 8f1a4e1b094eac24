//! # What it does
//! Credentials that end by themselves: asked for when they are first needed, and anew while the old
//! ones are still good, so that a run of many hours goes on.
//!
//! # Ordering and invariants
//! One asks at a time. As long as the old ones are good nobody waits for that but who asks, and that
//! the new ones are not to be had is no error.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use br_rt::Rt;
use object_store::CredentialProvider;

use crate::Failure;

/// Asked for anew this long before they end; those that live shorter, after half of that.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// After an attempt in vain, while the old ones are good, the next one comes so much later.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// Who gives credentials.
#[async_trait]
pub(crate) trait Giver: Send + Sync + 'static {
    /// What it gives.
    type Credential: Send + Sync;

    /// Asks for new ones.
    async fn ask(&self) -> Result<Fresh<Self::Credential>, Failure>;

    /// What they are, without secrets, for logs.
    fn what(&self) -> String;
}

/// Credentials that were just given.
#[derive(Debug)]
pub(crate) struct Fresh<C> {
    pub(crate) credential: C,
    /// When they end; `None`: never.
    pub(crate) ends_unix_seconds: Option<u64>,
}

/// Credentials from somebody who gives them for a while.
pub(crate) struct Renewed<G: Giver> {
    rt: Rt,
    giver: G,
    held: Mutex<Option<Held<G::Credential>>>,
    asking: tokio::sync::Mutex<()>,
}

struct Held<C> {
    credential: Arc<C>,
    renew_unix_seconds: u64,
    ends_unix_seconds: u64,
}

impl<G: Giver> Renewed<G> {
    pub(crate) fn new(rt: &Rt, giver: G) -> Renewed<G> {
        Renewed {
            rt: rt.clone(),
            giver,
            held: Mutex::new(None),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// Credentials that are good now.
    pub(crate) async fn credential(&self) -> Result<Arc<G::Credential>, Failure> {
        if let Some(credential) = self.until(|held| held.renew_unix_seconds) {
            return Ok(credential);
        }
        let _asking = match (self.asking.try_lock(), self.good()) {
            (Ok(asking), _) => asking,
            (Err(_), Some(old)) => return Ok(old),
            (Err(_), None) => self.asking.lock().await,
        };
        // Somebody else may have asked meanwhile.
        if let Some(credential) = self.until(|held| held.renew_unix_seconds) {
            return Ok(credential);
        }
        match (self.giver.ask().await, self.good()) {
            (Ok(fresh), _) => Ok(self.hold(fresh)),
            (Err(failure), None) => Err(failure),
            (Err(failure), Some(old)) => {
                tracing::warn!(what = self.giver.what(), %failure, "credentials are not renewed yet");
                if let Some(held) = &mut *self.held() {
                    held.renew_unix_seconds = self.now() + RENEW_AGAIN.as_secs();
                }
                Ok(old)
            }
        }
    }

    fn good(&self) -> Option<Arc<G::Credential>> {
        self.until(|held| held.ends_unix_seconds)
    }

    fn until(&self, end: impl Fn(&Held<G::Credential>) -> u64) -> Option<Arc<G::Credential>> {
        let now = self.now();
        let held = self.held();
        let held = held.as_ref().filter(|held| end(held) > now)?;
        Some(held.credential.clone())
    }

    fn hold(&self, fresh: Fresh<G::Credential>) -> Arc<G::Credential> {
        let ends = fresh.ends_unix_seconds.unwrap_or(u64::MAX);
        let left = ends.saturating_sub(self.now());
        let credential = Arc::new(fresh.credential);
        *self.held() = Some(Held {
            credential: credential.clone(),
            renew_unix_seconds: ends - RENEW_BEFORE.as_secs().min(left / 2),
            ends_unix_seconds: ends,
        });
        credential
    }

    fn held(&self) -> MutexGuard<'_, Option<Held<G::Credential>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.rt.wall().0 / 1000
    }
}

impl<G: Giver> fmt::Debug for Renewed<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewed({})", self.giver.what())
    }
}

#[async_trait]
impl<G: Giver> CredentialProvider for Renewed<G> {
    type Credential = G::Credential;

    async fn get_credential(&self) -> object_store::Result<Arc<G::Credential>> {
        let credential = self.credential().await;
        credential.map_err(|failure| object_store::Error::Generic {
            store: "credentials",
            source: Box::new(failure),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use br_rt::UnixMillis;

    use super::*;

    /// Gives numbers that are good for so long, unless it is out of reach.
    struct Counter {
        rt: Rt,
        given: AtomicU64,
        lives_seconds: u64,
        is_gone: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl Giver for Arc<Counter> {
        type Credential = u64;

        async fn ask(&self) -> Result<Fresh<u64>, Failure> {
            self.rt.sleep(Duration::from_secs(1)).await;
            if self.is_gone.load(Ordering::Relaxed) {
                return Err(Failure::Unavailable("gone".to_owned()));
            }
            Ok(Fresh {
                credential: self.given.fetch_add(1, Ordering::Relaxed),
                ends_unix_seconds: Some(self.rt.wall().0 / 1000 + self.lives_seconds),
            })
        }

        fn what(&self) -> String {
            "numbers".to_owned()
        }
    }

    fn counter(lives_seconds: u64) -> (Rt, Arc<Counter>, Renewed<Arc<Counter>>) {
        let rt = Rt::simulated(1, UnixMillis(1_000_000_000_000));
        let counter = Arc::new(Counter {
            rt: rt.clone(),
            given: AtomicU64::new(0),
            lives_seconds,
            is_gone: false.into(),
        });
        (rt.clone(), counter.clone(), Renewed::new(&rt, counter))
    }

    #[tokio::test(start_paused = true)]
    async fn new_ones_come_before_the_old_ones_end() {
        let (rt, counter, renewed) = counter(3600);
        for _ in 0..3 {
            assert_eq!(*renewed.credential().await.unwrap(), 0);
        }
        rt.sleep(Duration::from_secs(3290)).await;
        assert_eq!(*renewed.credential().await.unwrap(), 0);
        rt.sleep(Duration::from_secs(10)).await;
        // One asks, and the others do not wait for that.
        let all = [(); 4].map(|()| renewed.credential());
        let all = futures::future::join_all(all).await;
        let all: Vec<u64> = all.into_iter().map(|one| *one.unwrap()).collect();
        assert_eq!(all, [1, 0, 0, 0]);

        counter.is_gone.store(true, Ordering::Relaxed);
        rt.sleep(Duration::from_secs(3400)).await;
        for _ in 0..2 {
            let before = rt.now();
            assert_eq!(*renewed.credential().await.unwrap(), 1);
            // The second does not try again at once.
            assert!(rt.now().since(before) <= Duration::from_secs(1));
        }
        rt.sleep(Duration::from_secs(200)).await;
        let failure = renewed.credential().await.unwrap_err();
        assert_eq!(failure, Failure::Unavailable("gone".to_owned()));
        counter.is_gone.store(false, Ordering::Relaxed);
        let all = [(); 4].map(|()| renewed.credential());
        for one in futures::future::join_all(all).await {
            assert_eq!(*one.unwrap(), 2, "all wait for the one who asks");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_live_shortly_are_not_asked_for_all_the_time() {
        let (rt, _counter, renewed) = counter(60);
        for _ in 0..10 {
            assert_eq!(*renewed.credential().await.unwrap(), 0);
            rt.sleep(Duration::from_secs(2)).await;
        }
        rt.sleep(Duration::from_secs(15)).await;
        assert_eq!(*renewed.credential().await.unwrap(), 1);
    }
}
