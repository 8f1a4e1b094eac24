//! # What it does
//! Sealed storages: every object is encrypted and authenticated on its way out, and checked on its way
//! in; names, sizes and ranges are those of the plain content, so that nothing above notices.
//!
//! # Objects it reads and writes
//! All, in the form of [`br_format::sealed`], and the keyring, which only this module sees.
//!
//! # Ordering and invariants
//! A storage is sealed as a whole: it gets its keyring while it is empty, and an object that is not
//! sealed is refused as damage from then on.

mod body;
mod keeping;
mod ring;
mod rotate;
mod store;
mod upload;

use std::{fmt, sync::Arc};

use br_proto::{
    backup::SealedStorage,
    encryptionpb::{MasterKey, master_key},
};

use crate::SendCredentials;

pub(crate) use ring::{Absent, Ring, has_keyring};
pub use rotate::{Rotation, rotate_seal_keys};
pub(crate) use store::SealedStore;

/// The master keys of a sealed storage, any of which opens it. `Debug` hides them.
#[derive(Clone, Default, PartialEq)]
pub struct SealKeys(Arc<[MasterKey]>);

// Messages without floating-point numbers.
impl Eq for SealKeys {}

impl SealKeys {
    /// These, as [`crate::parse_master_key`] reads them.
    pub fn new(keys: Vec<MasterKey>) -> SealKeys {
        SealKeys(keys.into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has credentials of its service among its settings.
    pub fn have_credentials(&self) -> bool {
        self.0.iter().any(|key| match &key.backend {
            Some(master_key::Backend::Kms(kms)) => kms.aws_kms.is_some(),
            _ => false,
        })
    }

    /// These and those.
    #[must_use]
    pub fn and(&self, others: &SealKeys) -> SealKeys {
        SealKeys([&self.0[..], &others.0].concat().into())
    }

    pub(crate) fn master_keys(&self) -> &[MasterKey] {
        &self.0
    }

    pub(crate) fn from_proto(proto: &SealedStorage) -> SealKeys {
        SealKeys::new(proto.master_keys.clone())
    }

    /// As requests and tasks carry them.
    pub fn to_proto(&self, send: SendCredentials) -> SealedStorage {
        let mut master_keys = self.0.to_vec();
        if send == SendCredentials::No {
            for key in &mut master_keys {
                if let Some(master_key::Backend::Kms(kms)) = &mut key.backend {
                    kms.aws_kms = None;
                }
            }
        }
        SealedStorage { master_keys }
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests;
