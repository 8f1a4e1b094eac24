//! The keyring of a sealed storage: its data keys, each wrapped under every master key.
//!
//! # Objects it reads and writes
//! `holdfast.keys/` and a number of eight digits: one generation of the keyring, JSON. It is never
//! changed: a change makes the next number, which must be new, and then deletes the older ones. The
//! highest number holds.
//!
//! # Ordering and invariants
//! - Data keys are only added, so that every object that was ever sealed can be opened.
//! - A sum over everything, keyed with all data keys, shows that no key was taken out, added, renamed or
//!   made the one for new objects by somebody who does not know them.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use br_proto::encryptionpb::{EncryptedContent, MasterKeyBased};
use bytes::Bytes;
use prost::Message;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{DataKey, DataKeyId, SealedError};

/// The folder of keyrings, in the storage's root.
pub const FOLDER: &str = "holdfast.keys/";
/// A keyring has a few hundred bytes for each data key; more than this is none.
pub const SIZE_BYTES_MAX: u64 = 4 << 20;
/// Data keys of a keyring: one for each rotation that asked for one.
const DATA_KEYS_MAX: usize = 4096;

const FORMAT: u32 = 1;
const DIGITS: usize = 8;

/// Counts the keyrings that a storage had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl Generation {
    /// That of a new storage.
    pub const FIRST: Generation = Generation(1);

    /// The name of its object.
    pub fn name(self) -> String {
        format!("{FOLDER}{:0width$}", self.0, width = DIGITS)
    }

    /// The generation that an object has the name of.
    pub fn of_name(name: &str) -> Option<Generation> {
        let digits = name.strip_prefix(FOLDER)?;
        let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok().map(Generation))?
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

/// Whether an object is none that the formats above know of.
pub fn is_of_keyring(name: &str) -> bool {
    name.starts_with(FOLDER)
}

/// A data key under master keys.
#[derive(Clone, Debug, PartialEq)]
pub struct WrappedKey {
    /// Its name.
    pub id: DataKeyId,
    /// The key, once for each master key; any of them opens it.
    pub wrapped: MasterKeyBased,
}

/// A keyring as it lies on the storage: its data keys are wrapped.
#[derive(Clone, Debug, PartialEq)]
pub struct WrappedKeyring {
    /// Which generation it says that it is.
    pub generation: Generation,
    /// The key for new objects.
    pub active: DataKeyId,
    /// All data keys.
    pub keys: Vec<WrappedKey>,
    /// The master keys that open it, as text for people.
    pub master_keys: Vec<String>,
    sum: [u8; SUM_BYTES],
}

const SUM_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct Form {
    format: u32,
    generation: u32,
    active: String,
    keys: Vec<FormKey>,
    master_keys: Vec<String>,
    sum: String,
}

#[derive(Serialize, Deserialize)]
struct FormKey {
    id: String,
    /// `EncryptedContent`, one for each master key.
    wrapped: Vec<String>,
}

/// A keyring with its data keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    generation: Generation,
    active: DataKeyId,
    keys: Vec<DataKey>,
}

impl Keyring {
    /// That of a new storage.
    pub fn new(key: DataKey) -> Keyring {
        Keyring {
            generation: Generation::FIRST,
            active: key.id,
            keys: vec![key],
        }
    }

    /// The next generation, with one more data key, for new objects, if one is given.
    #[must_use]
    pub fn next(&self, new: Option<DataKey>) -> Keyring {
        Keyring {
            generation: self.generation.next(),
            active: new.as_ref().map_or(self.active, |key| key.id),
            keys: self.keys.iter().cloned().chain(new).collect(),
        }
    }

    /// Which generation it is.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The key for new objects.
    pub fn active(&self) -> &DataKey {
        self.key(self.active)
            .expect("the constructors put it among the keys")
    }

    /// All data keys, the oldest first.
    pub fn keys(&self) -> &[DataKey] {
        &self.keys
    }

    /// The key of this name.
    ///
    /// # Errors
    /// [`SealedError::UnknownKey`].
    pub fn key(&self, id: DataKeyId) -> Result<&DataKey, SealedError> {
        let found = self.keys.iter().find(|key| key.id == id);
        found.ok_or(SealedError::UnknownKey(id))
    }

    /// The bytes of its object; `wrapped` has the data keys in their order.
    pub fn encode(&self, wrapped: &[MasterKeyBased], master_keys: Vec<String>) -> Bytes {
        let keys = self.keys.iter().zip(wrapped);
        let mut keyring = WrappedKeyring {
            generation: self.generation,
            active: self.active,
            keys: keys
                .map(|(key, wrapped)| WrappedKey {
                    id: key.id,
                    wrapped: wrapped.clone(),
                })
                .collect(),
            master_keys,
            sum: [0; SUM_BYTES],
        };
        keyring.sum = sum(&keyring, &self.keys);
        keyring.encode()
    }
}

impl WrappedKeyring {
    /// Reads the object of a generation; what it says is not proven before [`WrappedKeyring::open`].
    ///
    /// # Errors
    /// [`SealedError::Keyring`], [`SealedError::KeyringVersion`].
    pub fn decode(generation: Generation, bytes: &[u8]) -> Result<WrappedKeyring, SealedError> {
        let form: Form = serde_json::from_slice(bytes)
            .map_err(|_| SealedError::Keyring("it is not in its form"))?;
        if form.format != FORMAT {
            return Err(SealedError::KeyringVersion(form.format));
        }
        if form.generation != generation.0 {
            return Err(SealedError::Keyring("it is one of another number"));
        }
        if form.keys.len() > DATA_KEYS_MAX {
            return Err(SealedError::Keyring("it has too many keys"));
        }
        let keys: Option<Vec<WrappedKey>> = form.keys.iter().map(FormKey::read).collect();
        let keys = keys.ok_or(SealedError::Keyring("a key is not in its form"))?;
        let ids: BTreeSet<DataKeyId> = keys.iter().map(|key| key.id).collect();
        let active = id_of(&form.active).filter(|active| ids.contains(active));
        let active = active.ok_or(SealedError::Keyring("it lacks the key for new objects"))?;
        if ids.len() != keys.len() {
            return Err(SealedError::Keyring("two keys have one name"));
        }
        let sum = hex::decode(&form.sum).ok();
        let sum = sum.and_then(|sum| sum.as_slice().try_into().ok());
        Ok(WrappedKeyring {
            generation,
            active,
            keys,
            master_keys: form.master_keys,
            sum: sum.ok_or(SealedError::Keyring("its sum is not in its form"))?,
        })
    }

    /// The keyring, with its data keys unwrapped, in their order.
    ///
    /// # Errors
    /// [`SealedError::Keyring`]: a key has another length, or the sum shows a change.
    pub fn open(&self, secrets: &[Vec<u8>]) -> Result<Keyring, SealedError> {
        let mut keys = Vec::new();
        for (wrapped, secret) in self.keys.iter().zip(secrets) {
            let secret = secret.as_slice().try_into();
            let secret = secret.map_err(|_| SealedError::Keyring("a key has another length"))?;
            keys.push(DataKey::new(wrapped.id, secret));
        }
        if keys.len() != self.keys.len() || sum(self, &keys) != self.sum {
            return Err(SealedError::Keyring("it was changed since it was written"));
        }
        Ok(Keyring {
            generation: self.generation,
            active: self.active,
            keys,
        })
    }

    fn encode(&self) -> Bytes {
        let form = Form {
            format: FORMAT,
            generation: self.generation.0,
            active: self.active.to_string(),
            keys: self.keys.iter().map(FormKey::of).collect(),
            master_keys: self.master_keys.clone(),
            sum: hex::encode(self.sum),
        };
        let mut bytes = serde_json::to_vec_pretty(&form).expect("plain structs have a JSON form");
        bytes.push(b'\n');
        bytes.into()
    }
}

impl FormKey {
    fn of(key: &WrappedKey) -> FormKey {
        let contents = key.wrapped.data_key_encrypted_content.iter();
        FormKey {
            id: key.id.to_string(),
            wrapped: contents
                .map(|content| BASE64_STANDARD.encode(content.encode_to_vec()))
                .collect(),
        }
    }

    fn read(&self) -> Option<WrappedKey> {
        let contents = self.wrapped.iter().map(|text| {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            EncryptedContent::decode(bytes.as_slice()).ok()
        });
        Some(WrappedKey {
            id: id_of(&self.id)?,
            wrapped: MasterKeyBased {
                data_key_encrypted_content: contents.collect::<Option<_>>()?,
            },
        })
    }
}

fn id_of(text: &str) -> Option<DataKeyId> {
    let bytes = hex::decode(text).ok()?;
    Some(DataKeyId(bytes.try_into().ok()?))
}

/// HMAC-SHA256 of what the keyring says, keyed with all data keys. How they are wrapped is not part
/// of it: a wrapped key proves itself, and a wrong one changes the sum.
fn sum(keyring: &WrappedKeyring, keys: &[DataKey]) -> [u8; SUM_BYTES] {
    let secrets: Vec<u8> = keys.iter().flat_map(|key| *key.secret()).collect();
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secrets));
    context.update(b"holdfast keyring");
    context.update(&FORMAT.to_be_bytes());
    context.update(&keyring.generation.0.to_be_bytes());
    context.update(&keyring.active.0);
    for key in keys {
        context.update(&key.id.0);
    }
    for place in &keyring.master_keys {
        context.update(&(place.len() as u64).to_be_bytes());
        context.update(place.as_bytes());
    }
    let sum = context.sign();
    *sum.as_ref().first_chunk().expect("SHA-256 makes 32 bytes")
}
