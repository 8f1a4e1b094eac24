//! # What it does
//! Reads and writes the objects of one backend by names relative to it.
//!
//! # Ordering and invariants
//! An object is there whole or not at all: a directory writes to a temporary file that is synced
//! and renamed, other backends do so by themselves. A read gives all the bytes asked for or an
//! error.
//!
//! # Retries
//! HTTP requests are tried again by the store; above that each operation here is tried again
//! under one [`RetryPolicy`]. All operations can be repeated: creating an object anew accepts, on
//! a repeated attempt, the object with the same bytes that the first one left.
//!
//! # Cancellation
//! Dropping a future stops the operation; nothing half-written becomes visible.
//!
//! # After a crash
//! A directory can have temporary files `name#N`, which no listing shows.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use br_format::sealed::object::looks_sealed;
use br_rt::{CancellationToken, RetryPolicy, Rt};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use object_store::{
    Attributes, GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, local::LocalFileSystem, path::Path,
};

use crate::{
    Backend, Failure, Faults, MasterKeys, NameLayout, Operation, StorageError, Writer, open,
    sealed::{self, Absent, Ring, SealedStore},
};

#[cfg(test)]
mod tests;

/// The largest object that [`Storage::read`] takes into memory: protobuf messages, which are what
/// is read whole, end at 2 GiB.
pub const READ_BYTES_MAX: u64 = 2 << 30;

/// Retries above those of HTTP: enough for a restart of the storage, and for one that refuses every
/// other request over hours of work; short enough that a wrong
/// address is noticed within a minute.
const RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(5),
    attempts_max: 10,
    elapsed_max: Duration::from_secs(60),
};

/// Deletions of one [`Storage::delete_many`] under way at once; S3 takes 1000 names in each.
const DELETES_IN_FLIGHT_MAX: usize = 16;

/// External storage, opened. Cheap to clone.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    rt: Rt,
    store: Arc<dyn ObjectStore>,
    /// Sends each request once, for what must be new.
    once: Arc<dyn ObjectStore>,
    local: Option<Arc<LocalFileSystem>>,
    attributes: Attributes,
    sorted: bool,
    layout: NameLayout,
    noop: bool,
    place: Arc<str>,
    retry: RetryPolicy,
    faults: Faults,
    master_keys: Option<MasterKeys>,
    /// What its objects are sealed with, if they are.
    ring: Option<Arc<Ring>>,
}

impl Storage {
    /// Opens a backend. A directory has to exist, and so has the keyring of a sealed storage; other
    /// buckets are not asked.
    ///
    /// # Errors
    /// The directory is missing or not accessible; settings that are wrong or not supported; no key
    /// opens the keyring, or there is none.
    pub async fn open(rt: &Rt, backend: &Backend) -> Result<Storage, StorageError> {
        let plain = Storage::open_plain(rt, backend.unsealed()).await?;
        plain.sealed_as(backend, Absent::Refuse).await
    }

    async fn open_plain(rt: &Rt, backend: &Backend) -> Result<Storage, StorageError> {
        let place: Arc<str> = backend.to_string().into();
        let opened = open::open(rt, backend)
            .await
            .map_err(|failure| StorageError {
                operation: Operation::Open,
                name: String::new(),
                storage: place.clone(),
                failure,
            })?;
        Ok(Storage(Arc::new(Inner {
            rt: rt.clone(),
            store: opened.store,
            once: opened.once,
            local: opened.local,
            attributes: opened.attributes,
            sorted: opened.sorted,
            layout: backend.layout(),
            noop: backend.is_noop(),
            place,
            retry: RETRY,
            faults: opened.faults,
            master_keys: None,
            ring: None,
        })))
    }

    /// The same storage with its objects sealed, if the backend says so.
    async fn sealed_as(self, backend: &Backend, absent: Absent) -> Result<Storage, StorageError> {
        let Backend::Sealed { keys, .. } = backend else {
            // Plain objects beside sealed ones would be damage to who has the keys.
            return match absent == Absent::Create && sealed::has_keyring(&self).await? {
                true => Err(self.error(Operation::Open, "", Failure::IsSealed)),
                false => Ok(self),
            };
        };
        let ring = Arc::new(Ring::open(self.clone(), keys, absent).await?);
        let sealed = |store: &Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            Arc::new(SealedStore::new(store.clone(), ring.clone()))
        };
        Ok(Storage(Arc::new(Inner {
            store: sealed(&self.0.store),
            once: sealed(&self.0.once),
            ring: Some(ring.clone()),
            ..(*self.0).clone()
        })))
    }

    /// Makes the directory of a local backend (mode 0777 under the umask), and the keyring of a
    /// sealed one where nothing is yet, and opens it; the side of the command only. Other backends are
    /// just opened.
    ///
    /// # Errors
    /// As [`Storage::open`]; what is to be sealed has objects that are not, or what is not, a keyring.
    pub async fn create_base(rt: &Rt, backend: &Backend) -> Result<Storage, StorageError> {
        if let Backend::Local { path } = backend.unsealed() {
            let path = path.clone();
            rt.blocking(move || open::create_base(&path))
                .await
                .map_err(|failure| StorageError {
                    operation: Operation::Open,
                    name: String::new(),
                    storage: backend.to_string().into(),
                    failure,
                })?;
        }
        let plain = Storage::open_plain(rt, backend.unsealed()).await?;
        plain.sealed_as(backend, Absent::Create).await
    }

    /// The same storage with another policy of retries.
    #[must_use]
    pub fn with_retry(&self, retry: RetryPolicy) -> Storage {
        Storage(Arc::new(Inner {
            retry,
            ..(*self.0).clone()
        }))
    }

    /// The same storage with faults, for tests.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Storage {
        Storage(Arc::new(Inner {
            faults,
            ..(*self.0).clone()
        }))
    }

    /// The same storage with the master keys of the log that lies there.
    #[must_use]
    pub fn with_master_keys(&self, master_keys: MasterKeys) -> Storage {
        Storage(Arc::new(Inner {
            master_keys: Some(master_keys),
            ..(*self.0).clone()
        }))
    }

    /// The master keys of the log that lies there, if they were given.
    pub fn master_keys(&self) -> Option<&MasterKeys> {
        self.0.master_keys.as_ref()
    }

    /// Whether its objects are sealed.
    pub fn is_sealed(&self) -> bool {
        self.0.ring.is_some()
    }

    /// How stores name their files there.
    pub fn layout(&self) -> NameLayout {
        self.0.layout
    }

    /// Whether nothing that is written there can be read.
    pub fn is_noop(&self) -> bool {
        self.0.noop
    }

    /// The whole object, at most [`READ_BYTES_MAX`] of it.
    ///
    /// # Errors
    /// Not found; too large; the storage's own.
    pub async fn read(&self, name: &str) -> Result<Bytes, StorageError> {
        self.read_at_most(name, READ_BYTES_MAX).await
    }

    /// The whole object, if it has at most `size_bytes_max`.
    ///
    /// # Errors
    /// Not found; too large; the storage's own.
    pub async fn read_at_most(
        &self,
        name: &str,
        size_bytes_max: u64,
    ) -> Result<Bytes, StorageError> {
        let path = self.path(Operation::Read, name)?;
        self.retry(Operation::Read, name, || async {
            let result = self.0.store.get(&path).await?;
            let size = result.meta.size;
            if size > size_bytes_max {
                return Err(Failure::TooLarge {
                    size,
                    max: size_bytes_max,
                });
            }
            let bytes = self.body(result, size).await?;
            self.check_readable(&bytes)?;
            Ok(bytes)
        })
        .await
    }

    /// The bytes of `range`, all of them.
    ///
    /// # Errors
    /// Not found; [`Failure::Truncated`] if the object ends before the range does.
    pub async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let path = self.path(Operation::Read, name)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.retry(Operation::Read, name, || async {
            let options = GetOptions::new().with_range(Some(range.clone()));
            let result = match self.0.store.get_opts(&path, options).await {
                Ok(result) => result,
                Err(error) => return Err(self.range_failure(&path, range.end, error).await),
            };
            if result.meta.size < range.end {
                let found = result.meta.size;
                return Err(Failure::Truncated {
                    expected: range.end,
                    found,
                });
            }
            let bytes = self.body(result, range.end - range.start).await?;
            if range.start == 0 {
                self.check_readable(&bytes)?;
            }
            Ok(bytes)
        })
        .await
    }

    /// Who has no keys is told so, before the bytes of a sealed object are taken for another format.
    fn check_readable(&self, start: &[u8]) -> Result<(), Failure> {
        match !self.is_sealed() && looks_sealed(start) {
            true => Err(Failure::IsSealed),
            false => Ok(()),
        }
    }

    /// A range beyond the end is refused in a different way by each backend.
    async fn range_failure(&self, path: &Path, end: u64, error: object_store::Error) -> Failure {
        let failure = Failure::from(error);
        if !matches!(failure, Failure::Refused(_)) {
            return failure;
        }
        match self.0.store.head(path).await {
            Ok(meta) if meta.size < end => Failure::Truncated {
                expected: end,
                found: meta.size,
            },
            _ => failure,
        }
    }

    /// The body of an answer; less than `expected` bytes is a broken connection.
    async fn body(&self, result: GetResult, expected: u64) -> Result<Bytes, Failure> {
        let bytes = self.0.faults.body(&self.0.rt, result.bytes().await?);
        match bytes.len() as u64 == expected {
            true => Ok(bytes),
            false => Err(Failure::Unavailable(format!(
                "the answer broke off after {} of {expected} bytes",
                bytes.len()
            ))),
        }
    }

    /// The object's size in bytes.
    ///
    /// # Errors
    /// Not found; the storage's own.
    pub async fn size(&self, name: &str) -> Result<u64, StorageError> {
        let path = self.path(Operation::Stat, name)?;
        self.retry(Operation::Stat, name, || async {
            Ok(self.0.store.head(&path).await?.size)
        })
        .await
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// The storage's own.
    pub async fn exists(&self, name: &str) -> Result<bool, StorageError> {
        match self.size(name).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes an object, in the place of one that may be there.
    ///
    /// # Errors
    /// No permission, no space, the storage's own.
    pub async fn write(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        self.put(name, bytes.into(), PutMode::Overwrite).await
    }

    /// Writes an object unless there is one of this name.
    ///
    /// # Errors
    /// It exists ([`StorageError::is_already_exists`]); else as [`Storage::write`].
    pub async fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        self.put(name, bytes.into(), PutMode::Create).await
    }

    async fn put(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let path = self.path(Operation::Write, name)?;
        let mut repeated = false;
        self.retry(Operation::Write, name, || {
            let first = !std::mem::replace(&mut repeated, true);
            let (path, bytes, mode) = (&path, bytes.clone(), mode.clone());
            async move {
                match self.put_once(path, bytes.clone(), mode).await {
                    // An attempt whose answer was lost may have written it.
                    Err(Failure::AlreadyExists) if !first && self.holds(path, &bytes).await => {
                        Ok(())
                    }
                    result => result,
                }
            }
        })
        .await
    }

    async fn put_once(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<(), Failure> {
        if self.0.noop {
            return Ok(());
        }
        self.0.faults.before_change()?;
        let options = |mode| PutOptions {
            mode,
            attributes: self.0.attributes.clone(),
            ..PutOptions::default()
        };
        let payload = PutPayload::from(bytes);
        let store = match mode {
            PutMode::Create => &self.0.once,
            _ => &self.0.store,
        };
        match store.put_opts(path, payload.clone(), options(mode)).await {
            Err(object_store::Error::NotImplemented { .. }) => {
                // S3 look-alikes without conditional writes: as good as it gets there.
                tracing::warn!(name = %path, "the storage cannot create atomically");
                if self.0.store.head(path).await.is_ok() {
                    return Err(Failure::AlreadyExists);
                }
                self.0
                    .store
                    .put_opts(path, payload, options(PutMode::Overwrite))
                    .await?;
            }
            result => {
                result?;
            }
        }
        self.0.faults.after_change(&self.0.rt)
    }

    async fn holds(&self, path: &Path, bytes: &Bytes) -> bool {
        let Ok(result) = self.0.store.get(path).await else {
            return false;
        };
        result.meta.size == bytes.len() as u64 && result.bytes().await.is_ok_and(|b| b == bytes)
    }

    /// A writer of a large object, in parts; nothing is visible before [`Writer::finish`].
    ///
    /// # Errors
    /// The name is no name.
    pub fn writer(&self, name: &str) -> Result<Writer, StorageError> {
        let path = self.path(Operation::Write, name)?;
        Ok(Writer::new(self.clone(), name.to_owned(), path))
    }

    /// Deletes an object; fine if there is none.
    ///
    /// # Errors
    /// The storage's own.
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(Operation::Delete, name)?;
        self.retry(Operation::Delete, name, || async {
            self.0.faults.before_change()?;
            match self.0.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                    self.0.faults.after_change(&self.0.rt)
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Deletes objects, many at once; fine if some do not exist. Ends at the first error.
    ///
    /// # Errors
    /// The storage's own.
    pub async fn delete_many<I>(&self, names: I) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = String>,
        I::IntoIter: Send,
    {
        stream::iter(names.into_iter().map(Ok))
            .try_for_each_concurrent(DELETES_IN_FLIGHT_MAX, |name| async move {
                self.delete(&name).await
            })
            .await
    }

    /// Removes a folder of a directory, and those around it, as far as they are empty; other backends
    /// have no folders. Fine if there is none. Temporary files that crashes left in the folder are
    /// removed too, so nobody may be writing to it.
    pub async fn remove_empty_folders(&self, folder: &str) {
        let Some(local) = self.local_store() else {
            return;
        };
        let mut paths = Vec::new();
        let mut rest = Some(folder);
        while let Some(name) = rest.filter(|name| !name.is_empty()) {
            let path = self.path(Operation::Delete, name).ok();
            paths.extend(path.and_then(|path| local.path_to_filesystem(&path).ok()));
            rest = name.rsplit_once('/').map(|(above, _)| above);
        }
        let removal = move || {
            if let Some(folder) = paths.first() {
                remove_temporary(folder);
            }
            for path in paths {
                // Not empty, or not there: either is as it should be.
                if std::fs::remove_dir(path).is_err() {
                    return;
                }
            }
        };
        self.0.rt.blocking(removal).await;
    }

    pub(crate) fn ring(&self) -> Option<&Ring> {
        self.0.ring.as_deref()
    }

    pub(crate) fn rt(&self) -> &Rt {
        &self.0.rt
    }

    pub(crate) fn object_store(&self) -> &dyn ObjectStore {
        &*self.0.store
    }

    /// The store, if it is a directory.
    pub(crate) fn local_store(&self) -> Option<&LocalFileSystem> {
        self.0.local.as_deref()
    }

    /// Whether listings come in the order of names.
    pub(crate) fn is_sorted(&self) -> bool {
        self.0.sorted
    }

    pub(crate) fn attributes(&self) -> Attributes {
        self.0.attributes.clone()
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(crate) fn error(&self, operation: Operation, name: &str, failure: Failure) -> StorageError {
        StorageError {
            operation,
            name: name.to_owned(),
            storage: self.0.place.clone(),
            failure,
        }
    }

    /// Runs attempts under the policy, each with its faults.
    pub(crate) async fn retry<T, F>(
        &self,
        operation: Operation,
        name: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let run = |_| {
            let attempt = attempt();
            async {
                let result = match self.0.faults.before(&self.0.rt, name).await {
                    Ok(()) => attempt.await,
                    Err(failure) => Err(failure),
                };
                result.map_err(|failure| self.error(operation, name, failure))
            }
        };
        self.0
            .retry
            .run(&self.0.rt, &CancellationToken::new(), run)
            .await
    }

    pub(crate) fn path(&self, operation: Operation, name: &str) -> Result<Path, StorageError> {
        let bad = |text: String| self.error(operation, name, Failure::BadName(text));
        if name.is_empty() || name.starts_with('/') || name.ends_with('/') {
            return Err(bad("it is empty, or has a slash at an end".into()));
        }
        Path::parse(name).map_err(|error| bad(error.to_string()))
    }
}

/// Removes what writes that were broken off left in a folder: `name#N`.
fn remove_temporary(folder: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.rsplit_once('#'));
        let is_temporary = number.is_some_and(|(_, number)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if is_temporary && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(%error, "a temporary file was left behind");
        }
    }
}

/// The place, without secrets.
impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.place)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.0.place)
    }
}
