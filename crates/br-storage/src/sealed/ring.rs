use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_format::sealed::{
    DataKey, DataKeyId, SealedError,
    keyring::{FOLDER, Generation, Keyring, SIZE_BYTES_MAX, WrappedKeyring},
};
use br_rt::{Monotonic, Rt};
use br_types::Classify;
use bytes::Bytes;
use futures::TryStreamExt;

use crate::{Failure, MasterKeys, MasterKeysError, Operation, SealKeys, Storage, StorageError};

/// Writers that live for months, as those of a log, look so often whether there is another key for
/// new objects.
const AGE_MAX: Duration = Duration::from_secs(600);

/// How often a keyring is looked for that is replaced, or damaged on the way, at the same moment.
const READS_MAX: usize = 5;

/// What to do about a storage without a keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is not sealed: refuse it.
    Refuse,
    /// Make one, if nothing else is there.
    Create,
}

/// The keyring of a sealed storage, opened.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The same storage, not sealed.
    plain: Storage,
    master: MasterKeys,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    keyring: Arc<Keyring>,
    loaded: Monotonic,
}

impl Ring {
    /// Opens the keyring of the storage.
    pub(crate) async fn open(
        plain: Storage,
        keys: &SealKeys,
        absent: Absent,
    ) -> Result<Ring, StorageError> {
        let master = open_master_keys(&plain, keys).await?;
        let keyring = match (load(&plain, &master).await?, absent) {
            (Some(keyring), _) => keyring,
            (None, Absent::Create) => create(&plain, &master).await?,
            (None, Absent::Refuse) => {
                let is_empty = is_empty(&plain).await?;
                return Err(fail(&plain, Failure::NoKeyring { is_empty }));
            }
        };
        let loaded = plain.rt().now();
        Ok(Ring {
            plain,
            master,
            held: Mutex::new(Held {
                keyring: Arc::new(keyring),
                loaded,
            }),
        })
    }

    /// The same storage, not sealed.
    pub(crate) fn plain(&self) -> &Storage {
        &self.plain
    }

    /// Whether the storage's keyring has the key that new objects are sealed with.
    pub(crate) async fn still_holds(&self) -> Result<bool, StorageError> {
        let active = self.held().keyring.active().id;
        let there = load(&self.plain, &self.master).await?;
        Ok(there.is_some_and(|keyring| keyring.key(active).is_ok()))
    }

    pub(crate) fn rt(&self) -> &Rt {
        self.plain.rt()
    }

    /// The key of this name; the keyring is read anew if it lacks it.
    pub(crate) async fn key(&self, id: DataKeyId) -> Result<DataKey, Failure> {
        let held = self.held().keyring.clone();
        match held.key(id) {
            Ok(key) => Ok(key.clone()),
            Err(_) => {
                let keyring = self.reload().await?;
                keyring.key(id).cloned().map_err(Failure::Damaged)
            }
        }
    }

    /// The key for new objects.
    pub(crate) async fn active(&self) -> DataKey {
        let is_old = {
            let held = self.held();
            self.rt().now().since(held.loaded) > AGE_MAX
        };
        if is_old && let Err(failure) = self.reload().await {
            tracing::warn!(
                storage = %self.plain,
                %failure,
                "cannot look for newer keys; those that are known stay in use"
            );
            // And are until the next look.
            self.held().loaded = self.rt().now();
        }
        self.held().keyring.active().clone()
    }

    async fn reload(&self) -> Result<Arc<Keyring>, Failure> {
        let loaded = load(&self.plain, &self.master).await;
        let keyring = match loaded.map_err(|error| error.failure)? {
            Some(keyring) => Arc::new(keyring),
            None => return Err(Failure::NoKeyring { is_empty: false }),
        };
        *self.held() = Held {
            keyring: keyring.clone(),
            loaded: self.rt().now(),
        };
        Ok(keyring)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens master keys; asks no service yet.
pub(super) async fn open_master_keys(
    plain: &Storage,
    keys: &SealKeys,
) -> Result<MasterKeys, StorageError> {
    let opened = MasterKeys::open(plain.rt(), keys.master_keys()).await;
    opened.map_err(|error| fail(plain, of_master_keys(&error, &[])))
}

/// The newest keyring; `None` if there is none.
pub(super) async fn load(
    plain: &Storage,
    master: &MasterKeys,
) -> Result<Option<Keyring>, StorageError> {
    let mut reads = 0;
    let mut useless = None;
    loop {
        let Some(newest) = generations(plain).await?.into_iter().max() else {
            return Ok(None);
        };
        reads += 1;
        let bytes = match plain.read_at_most(&newest.name(), SIZE_BYTES_MAX).await {
            // Replaced since it was listed.
            Err(error) if error.is_not_found() && reads < READS_MAX => continue,
            bytes => bytes?,
        };
        match unwrap(plain, master, newest, &bytes).await {
            // Perhaps it was damaged on the way: no key opens it then, or it is none.
            Err(error) if useless.as_ref() != Some(&bytes) && reads < READS_MAX => {
                tracing::warn!(%error, "the keyring is read again");
                useless = Some(bytes);
            }
            keyring => return keyring.map(Some),
        }
    }
}

/// All generations that there are.
pub(super) async fn generations(plain: &Storage) -> Result<Vec<Generation>, StorageError> {
    let listed = plain.list(FOLDER).try_filter_map(async |entry| {
        // Others are strays, which the owner of the storage can remove.
        Ok(Generation::of_name(&entry.name))
    });
    listed.try_collect().await
}

/// Opens the bytes of a keyring.
pub(super) async fn unwrap(
    plain: &Storage,
    master: &MasterKeys,
    generation: Generation,
    bytes: &[u8],
) -> Result<Keyring, StorageError> {
    let damaged = |error: SealedError| fail(plain, Failure::Damaged(error));
    let wrapped = WrappedKeyring::decode(generation, bytes).map_err(damaged)?;
    let mut secrets = Vec::new();
    for key in &wrapped.keys {
        let secret = master.unwrap(&key.wrapped).await;
        secrets.push(
            secret.map_err(|error| fail(plain, of_master_keys(&error, &wrapped.master_keys)))?,
        );
    }
    wrapped.open(&secrets).map_err(damaged)
}

/// The bytes of a keyring, under all master keys.
pub(super) async fn wrap(
    plain: &Storage,
    master: &MasterKeys,
    keyring: &Keyring,
) -> Result<Bytes, StorageError> {
    let mut wrapped = Vec::new();
    for key in keyring.keys() {
        let under_all = master.wrap_under_all(key.secret()).await;
        wrapped.push(under_all.map_err(|error| fail(plain, of_master_keys(&error, &[])))?);
    }
    Ok(keyring.encode(&wrapped, master.places()))
}

/// A data key of random bytes.
pub(super) fn draw(rt: &Rt) -> DataKey {
    DataKey::new(DataKeyId(rt.random_bytes()), rt.random_bytes())
}

/// Makes the first keyring, or finds that somebody else just did.
async fn create(plain: &Storage, master: &MasterKeys) -> Result<Keyring, StorageError> {
    if !is_empty(plain).await? {
        return Err(fail(plain, Failure::NotEmpty));
    }
    let keyring = Keyring::new(draw(plain.rt()));
    let bytes = wrap(plain, master, &keyring).await?;
    match plain.create(&Generation::FIRST.name(), bytes).await {
        Err(error) if error.is_already_exists() => {
            let found = load(plain, master).await?;
            found.ok_or_else(|| fail(plain, Failure::KeyringChanged))
        }
        created => created.map(|()| keyring),
    }
}

/// Whether the storage is a sealed one.
pub(crate) async fn has_keyring(plain: &Storage) -> Result<bool, StorageError> {
    Ok(!generations(plain).await?.is_empty())
}

async fn is_empty(plain: &Storage) -> Result<bool, StorageError> {
    Ok(plain.list("").try_next().await?.is_none())
}

pub(super) fn fail(plain: &Storage, failure: Failure) -> StorageError {
    plain.error(Operation::Open, "", failure)
}

/// Why no master key opens a keyring that is under `places`.
fn of_master_keys(error: &MasterKeysError, places: &[String]) -> Failure {
    let text = match places {
        [] => error.to_string(),
        places => format!("{error}; its keyring is under {}", places.join(", ")),
    };
    Failure::MasterKeys {
        text,
        kind: error.kind(),
    }
}
