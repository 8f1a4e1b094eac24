//! Sealed objects: each encrypted and authenticated under its name, so that who can write to the
//! storage can neither read nor change what is there without being noticed.
//!
//! A layer below all other formats: what they write and read is the plain content of a sealed
//! object, with its plain size. `docs/formats/sealed.md` has the layout byte by byte and the reasons.
//!
//! - [`object`]: one object, chunk by chunk;
//! - [`keyring`]: the data keys of a storage, under master keys.

pub mod keyring;
pub mod object;

use std::fmt;

use thiserror::Error;

/// Names a data key within its keyring; drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyId(pub [u8; DataKeyId::BYTES]);

impl DataKeyId {
    /// Its length.
    pub const BYTES: usize = 8;
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyId({self})")
    }
}

/// A key that objects are sealed under. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Its name.
    pub id: DataKeyId,
    secret: [u8; DataKey::BYTES],
}

impl DataKey {
    /// Length of the secret.
    pub const BYTES: usize = 32;

    /// A key of random bytes.
    pub const fn new(id: DataKeyId, secret: [u8; DataKey::BYTES]) -> DataKey {
        DataKey { id, secret }
    }

    /// The secret, to be wrapped under a master key.
    pub const fn secret(&self) -> &[u8; DataKey::BYTES] {
        &self.secret
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.id)
    }
}

/// Why a sealed object, or a keyring, is not what was written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SealedError {
    /// It does not begin as a sealed object does.
    #[error("it is not sealed, and everything else here is: somebody else put it there")]
    NotSealed,
    /// A newer tool wrote it.
    #[error("it is sealed in the form {0}, which only newer versions know")]
    Version(u8),
    /// No sealed object has this size.
    #[error("it was cut: no sealed object has {0} bytes")]
    Size(u64),
    /// Its data key is none of the keyring's.
    #[error("it is sealed under the data key {0}, which the keyring does not have")]
    UnknownKey(DataKeyId),
    /// Its header is not the one that was written under this name.
    #[error("it was changed, or put in the place of the object that was written under this name")]
    Header,
    /// A chunk does not have its bytes.
    #[error("it was changed or cut at byte {plain_offset} or within the 64 KiB after it")]
    Chunk {
        /// Where the chunk begins in the plain content.
        plain_offset: u64,
    },
    /// The keyring is not as it was written.
    #[error("the keyring is damaged: {0}")]
    Keyring(&'static str),
    /// A newer tool wrote the keyring.
    #[error("the keyring has the form {0}, which only newer versions know")]
    KeyringVersion(u32),
}

#[cfg(test)]
mod tests;
