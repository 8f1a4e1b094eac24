//! Data keys under a master key: AES-256 in Galois/counter mode, so that a wrong master key is told
//! from a right one.
//!
//! # Source
//! `encryptionpb.EncryptedContent`, and the form of a master key's file that TiKV reads: 64
//! hexadecimal digits and a newline.

use std::collections::HashMap;
use std::fmt;

use br_proto::encryptionpb::EncryptedContent;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

/// Length of a master key in bytes.
pub const MASTER_KEY_BYTES: usize = 32;

/// Length of the vector that a seal is made with, in bytes.
pub const SEAL_IV_BYTES: usize = NONCE_LEN;

/// The length of the file of a master key.
const FILE_BYTES: usize = 2 * MASTER_KEY_BYTES + 1;

const METHOD: &str = "method";
const METHOD_NAME: &[u8] = b"aes256-gcm";
const IV: &str = "iv";
const TAG: &str = "aes_gcm_tag";

/// Why a master key is of no use.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MasterKeyError {
    /// The file does not have its form.
    #[error("the file of a master key has 64 hexadecimal digits and a newline, this one does not")]
    File,
    /// The key has another length.
    #[error("a master key has 32 bytes, this one has {found}")]
    Length {
        /// Bytes that it has.
        found: usize,
    },
    /// What it should open does not say how it was made.
    #[error("an encrypted data key is damaged: its {field} is missing or wrong")]
    Damaged {
        /// The field.
        field: &'static str,
    },
    /// It was sealed by another master key, or changed since.
    #[error("the data key is under another master key")]
    WrongKey,
}

/// A master key. `Debug` hides it.
#[derive(Clone)]
pub struct MasterKey(LessSafeKey);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// The master key with these bytes.
    ///
    /// # Errors
    /// [`MasterKeyError::Length`].
    pub fn new(key: &[u8]) -> Result<MasterKey, MasterKeyError> {
        let found = key.len();
        let key = UnboundKey::new(&AES_256_GCM, key);
        let key = key.map_err(|_| MasterKeyError::Length { found })?;
        Ok(MasterKey(LessSafeKey::new(key)))
    }

    /// The master key in the text of a file.
    ///
    /// # Errors
    /// [`MasterKeyError::File`].
    pub fn from_file(text: &[u8]) -> Result<MasterKey, MasterKeyError> {
        if text.len() != FILE_BYTES {
            return Err(MasterKeyError::File);
        }
        let digits = text.strip_suffix(b"\n").ok_or(MasterKeyError::File)?;
        MasterKey::new(&hex::decode(digits).map_err(|_| MasterKeyError::File)?)
    }

    /// Encrypts a data key; `iv` is drawn at random for each and never used twice.
    pub fn seal(&self, data_key: &[u8], iv: [u8; SEAL_IV_BYTES]) -> EncryptedContent {
        let mut content = data_key.to_vec();
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut content)
            .expect("a data key is far shorter than what the mode can take");
        EncryptedContent {
            metadata: HashMap::from([
                (METHOD.to_owned(), METHOD_NAME.to_vec()),
                (IV.to_owned(), iv.to_vec()),
                (TAG.to_owned(), tag.as_ref().to_vec()),
            ]),
            content,
            ..EncryptedContent::default()
        }
    }

    /// Decrypts a data key.
    ///
    /// # Errors
    /// [`MasterKeyError::WrongKey`], [`MasterKeyError::Damaged`].
    pub fn open(&self, sealed: &EncryptedContent) -> Result<Vec<u8>, MasterKeyError> {
        let field = |field: &'static str| {
            let value = sealed.metadata.get(field);
            value.ok_or(MasterKeyError::Damaged { field })
        };
        if field(METHOD)? != METHOD_NAME {
            return Err(MasterKeyError::Damaged { field: METHOD });
        }
        let iv = field(IV)?.as_slice().try_into();
        let iv: [u8; SEAL_IV_BYTES] = iv.map_err(|_| MasterKeyError::Damaged { field: IV })?;
        let mut bytes = [sealed.content.as_slice(), field(TAG)?].concat();
        let nonce = Nonce::assume_unique_for_key(iv);
        let opened = self.0.open_in_place(nonce, Aad::empty(), &mut bytes);
        Ok(opened.map_err(|_| MasterKeyError::WrongKey)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::new(&[byte; MASTER_KEY_BYTES]).unwrap()
    }

    #[test]
    fn only_the_right_key_opens() {
        let sealed = key(1).seal(b"data key", [9; SEAL_IV_BYTES]);
        assert_eq!(key(1).open(&sealed).unwrap(), b"data key");
        assert_eq!(key(2).open(&sealed), Err(MasterKeyError::WrongKey));
        let mut changed = sealed.clone();
        changed.content[0] ^= 1;
        assert_eq!(key(1).open(&changed), Err(MasterKeyError::WrongKey));
        for field in [METHOD, IV, TAG] {
            let mut cut = sealed.clone();
            cut.metadata.remove(field);
            assert_eq!(key(1).open(&cut), Err(MasterKeyError::Damaged { field }));
        }
    }

    /// NIST's vectors for GCM with a key of 256 bits: the one that TiKV's own tests name.
    #[test]
    fn vector_of_the_standard() {
        let unhex = |text: &str| hex::decode(text).unwrap();
        let key = MasterKey::new(&unhex(
            "c3d99825f2181f4808acd2068eac7441a65bd428f14d2aab43fefc0129091139",
        ))
        .unwrap();
        let iv = unhex("cafabd9672ca6c79a2fbdc22").try_into().unwrap();
        let plain = unhex("25431587e9ecffc7c37f8d6d52a9bc3310651d46fb0e3bad2726c8f2db653749");
        let sealed = key.seal(&plain, iv);
        assert_eq!(
            hex::encode(&sealed.content),
            "84e5f23f95648fa247cb28eef53abec947dbf05ac953734618111583840bd980"
        );
        assert_eq!(
            hex::encode(&sealed.metadata[TAG]),
            "79651c875f7941793d42bbd0af1cce7c"
        );
    }

    #[test]
    fn files_of_master_keys() {
        let text = format!("{}\n", "ab".repeat(32));
        assert!(MasterKey::from_file(text.as_bytes()).is_ok());
        for wrong in [
            "ab".repeat(32),
            format!("{}\n", "xy".repeat(32)),
            "ab\n".to_owned(),
        ] {
            let error = MasterKey::from_file(wrong.as_bytes()).err();
            assert_eq!(error, Some(MasterKeyError::File));
        }
    }
}
