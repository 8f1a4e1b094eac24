//! External storage in memory, one per purpose.

use anyhow::{Context as _, Result};
use br_rt::Rt;
use br_storage::{Backend, Faults, Storage};
use futures::TryStreamExt as _;

/// One storage; its objects go with it.
pub(crate) struct Place {
    name: String,
    pub(crate) backend: Backend,
}

impl Place {
    /// An empty one. Runs of one process side by side do not share any.
    pub(crate) fn new(rt: &Rt, purpose: &str) -> Place {
        let name = format!("{purpose}-{}", rt.uuid());
        let backend = Backend::Memory {
            name: name.clone(),
            prefix: String::new(),
        };
        Place { name, backend }
    }

    /// What whoever opens it from now on meets.
    pub(crate) fn set_faults(&self, faults: &Faults) {
        br_storage::set_memory_faults(&self.name, faults.clone());
    }

    pub(crate) async fn open(&self, rt: &Rt) -> Result<Storage> {
        Ok(Storage::open(rt, &self.backend).await?)
    }

    /// The same without faults: for the oracle.
    pub(crate) async fn look(&self, rt: &Rt) -> Result<Storage> {
        Ok(self.open(rt).await?.with_faults(Faults::default()))
    }

    /// All that is there now, in another place. Takes no time.
    pub(crate) async fn copy(&self, rt: &Rt, purpose: &str) -> Result<Place> {
        let copy = Place::new(rt, purpose);
        let (from, to) = (self.look(rt).await?, copy.look(rt).await?);
        for name in self.names(rt).await? {
            let bytes = from.read(&name).await.context("copying")?;
            to.write(&name, bytes).await.context("copying")?;
        }
        Ok(copy)
    }

    /// Names of all objects, in order.
    pub(crate) async fn names(&self, rt: &Rt) -> Result<Vec<String>> {
        let entries: Vec<_> = self.look(rt).await?.list("").try_collect().await?;
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        br_storage::forget_memory(&self.name);
    }
}
