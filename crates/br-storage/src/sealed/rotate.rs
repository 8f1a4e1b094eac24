//! # What it does
//! Puts the data keys of a sealed storage under other master keys; no object is written anew.
//!
//! # Ordering and invariants
//! The next generation of the keyring is created, which fails if somebody else created it; it is read
//! back and opened with the new master keys; then the older generations are deleted. So at every
//! moment there is a keyring with all data keys.
//!
//! # After a crash
//! Either the old generation is the newest, and nothing has happened; or the new one is, and older
//! ones may be left, which the old master keys still open: running it again deletes them.

use br_format::sealed::keyring::{Generation, Keyring};
use br_rt::{Rt, kill_point};

use super::{
    SealKeys,
    ring::{draw, fail, generations, load, open_master_keys, unwrap, wrap},
};
use crate::{Backend, Failure, MasterKeys, Storage, StorageError};

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The number of the keyring that holds now.
    pub generation: u32,
    /// The master keys that open it, as text for people.
    pub master_keys: Vec<String>,
    /// Its data keys.
    pub data_keys: usize,
    /// Whether one of them is new, for objects from now on.
    pub has_new_data_key: bool,
    /// Whether the keyring was under the new master keys already, by a rotation that was interrupted.
    pub was_done: bool,
    /// Older keyrings that were deleted.
    pub removed: usize,
}

/// Puts the data keys of the sealed storage `backend` under the master keys `to`, and under no other;
/// with `add_data_key`, objects from now on get a new data key.
///
/// # Errors
/// The storage is not sealed, its master keys do not open it, one of the new ones does not work,
/// somebody else rotates; the keyring is as it was then. Or an older keyring cannot be deleted.
pub async fn rotate_seal_keys(
    rt: &Rt,
    backend: &Backend,
    to: &SealKeys,
    add_data_key: bool,
) -> Result<Rotation, StorageError> {
    let plain = Storage::open(rt, backend.unsealed()).await?;
    let Backend::Sealed { keys, .. } = backend else {
        return Err(fail(&plain, Failure::IsSealed));
    };
    let from = open_master_keys(&plain, keys).await?;
    let to = open_master_keys(&plain, to).await?;
    let absent = || fail(&plain, Failure::NoKeyring { is_empty: false });
    let found = match load(&plain, &from).await {
        Err(error) if is_wrong_key(&error) => match load(&plain, &to).await {
            // The rotation that was interrupted has made its data key, if it was to.
            Ok(Some(done)) => return finish(&plain, &done, &to, Before::WasDone).await,
            _ => return Err(error),
        },
        found => found?.ok_or_else(absent)?,
    };
    let next = found.next(add_data_key.then(|| draw(rt)));
    let bytes = wrap(&plain, &to, &next).await?;
    let name = next.generation().name();
    if let Err(error) = plain.create(&name, bytes).await {
        return Err(match error.is_already_exists() {
            true => fail(&plain, Failure::KeyringChanged),
            false => error,
        });
    }
    kill_point("seal.rotate.created");
    let written = plain.read(&name).await?;
    unwrap(&plain, &to, next.generation(), &written).await?;
    finish(&plain, &next, &to, Before::Added(add_data_key)).await
}

enum Before {
    WasDone,
    Added(bool),
}

/// Deletes the generations before this one.
async fn finish(
    plain: &Storage,
    keyring: &Keyring,
    to: &MasterKeys,
    before: Before,
) -> Result<Rotation, StorageError> {
    let mut older: Vec<Generation> = generations(plain).await?;
    older.retain(|generation| *generation < keyring.generation());
    for generation in &older {
        plain.delete(&generation.name()).await?;
        kill_point("seal.rotate.deleted");
    }
    Ok(Rotation {
        generation: keyring.generation().0,
        master_keys: to.places(),
        data_keys: keyring.keys().len(),
        has_new_data_key: matches!(before, Before::Added(true)),
        was_done: matches!(before, Before::WasDone),
        removed: older.len(),
    })
}

fn is_wrong_key(error: &StorageError) -> bool {
    matches!(error.failure, Failure::MasterKeys { .. })
}
