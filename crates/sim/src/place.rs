//! External storage in memory, one per purpose.

use std::{io::Write as _, sync::Arc};

use anyhow::Result;
use br_rt::Rt;
use br_storage::{Backend, Faults, SealKeys, Storage};
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};
use tempfile::NamedTempFile;

/// Master keys lie in files; this one's content is a key for nothing but tests.
const MASTER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What seals the storages of a story: the file with the master key.
#[derive(Clone)]
pub(crate) struct Seal(Arc<NamedTempFile>);

impl Seal {
    pub(crate) fn new() -> Result<Seal> {
        let mut file = NamedTempFile::new()?;
        writeln!(file, "{MASTER_KEY}")?;
        Ok(Seal(Arc::new(file)))
    }

    fn keys(&self) -> Result<SealKeys> {
        let key = br_storage::parse_master_key(&format!("local://{}", self.0.path().display()))?;
        Ok(SealKeys::new(vec![key]))
    }
}

/// One storage; its objects go with it.
pub(crate) struct Place {
    name: String,
    pub(crate) backend: Backend,
    seal: Option<Seal>,
}

impl Place {
    /// An empty one. Runs of one process side by side do not share any.
    pub(crate) async fn new(rt: &Rt, purpose: &str, seal: Option<&Seal>) -> Result<Place> {
        let place = Place::bare(rt, purpose, seal)?;
        Storage::create_base(rt, &place.backend).await?;
        Ok(place)
    }

    /// The same, without the keyring of a sealed one.
    fn bare(rt: &Rt, purpose: &str, seal: Option<&Seal>) -> Result<Place> {
        let name = format!("{purpose}-{}", rt.uuid());
        let mut backend = Backend::Memory {
            name: name.clone(),
            prefix: String::new(),
        };
        if let Some(seal) = seal {
            backend = Backend::Sealed {
                inner: Box::new(backend),
                keys: seal.keys()?,
            };
        }
        Ok(Place {
            name,
            backend,
            seal: seal.cloned(),
        })
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

    /// The objects as they lie there, sealed or not, without faults.
    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        br_storage::memory_objects(&self.name)
    }

    /// All that is there now, in another place. Takes no time.
    pub(crate) async fn copy(&self, rt: &Rt, purpose: &str) -> Result<Place> {
        let copy = Place::bare(rt, purpose, self.seal.as_ref())?;
        let (from, to) = (self.objects(), copy.objects());
        for path in self.paths().await? {
            let bytes = from.get(&path).await?.bytes().await?;
            to.put(&path, bytes.into()).await?;
        }
        Ok(copy)
    }

    /// Names of all objects, in order.
    pub(crate) async fn paths(&self) -> Result<Vec<Path>> {
        let objects = self.objects();
        let found = objects.list(None).map_ok(|object| object.location);
        let mut paths: Vec<_> = found.try_collect().await?;
        paths.sort();
        Ok(paths)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        br_storage::forget_memory(&self.name);
    }
}
