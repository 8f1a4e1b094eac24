//! Everything that lies in a storage, and what of it is named.

use std::collections::HashMap;

use br_storage::{Storage, StorageError};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::error::MISSING;

/// Objects that are named in a note; more are counted.
const NAMES_MAX: usize = 1_000;

/// Sizes of all objects. There may be millions, so that names are kept as hashes of 128 bits.
pub(super) struct Listing {
    objects: HashMap<u128, Listed>,
}

struct Listed {
    size_bytes: u64,
    is_named: bool,
}

/// Objects that nothing names.
#[derive(Default)]
pub(super) struct Unnamed {
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// Some of them.
    pub(super) names: Vec<String>,
}

fn hash(name: &str) -> u128 {
    let digest = Sha256::digest(name);
    let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    u128::from_be_bytes(*head)
}

impl Listing {
    pub(super) async fn read(storage: &Storage) -> Result<Listing, StorageError> {
        let mut objects = HashMap::new();
        let mut listed = storage.list("");
        while let Some(entry) = listed.try_next().await? {
            let listed = Listed {
                size_bytes: entry.size_bytes,
                is_named: false,
            };
            objects.insert(hash(&entry.name), listed);
        }
        Ok(Listing { objects })
    }

    /// Notes that an object is named; gives its size.
    pub(super) fn name(&mut self, name: &str) -> Option<u64> {
        let listed = self.objects.get_mut(&hash(name))?;
        listed.is_named = true;
        Some(listed.size_bytes)
    }

    /// Notes that an object is named; says what is wrong with it if it should have `expected` bytes
    /// (`None`: nobody knows).
    pub(super) fn problem(&mut self, name: &str, expected: Option<u64>) -> Option<String> {
        match (self.name(name), expected) {
            (None, _) => Some(MISSING.to_owned()),
            (Some(found), Some(expected)) if found != expected => {
                Some(format!("it has {found} bytes, and {expected} were written"))
            }
            (Some(_), _) => None,
        }
    }

    /// What nothing named; the storage is listed again only if there is such.
    pub(super) async fn unnamed(
        &self,
        storage: &Storage,
        is_expected: impl Fn(&str) -> bool,
    ) -> Result<Unnamed, StorageError> {
        let mut unnamed = Unnamed::default();
        if self.objects.values().all(|listed| listed.is_named) {
            return Ok(unnamed);
        }
        let mut listed = storage.list("");
        while let Some(entry) = listed.try_next().await? {
            let known = self.objects.get(&hash(&entry.name));
            if known.is_none_or(|listed| listed.is_named) || is_expected(&entry.name) {
                continue;
            }
            unnamed.count += 1;
            unnamed.bytes = unnamed.bytes.saturating_add(entry.size_bytes);
            if unnamed.names.len() < NAMES_MAX {
                unnamed.names.push(entry.name);
            }
        }
        unnamed.names.sort_unstable();
        Ok(unnamed)
    }
}
