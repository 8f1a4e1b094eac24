//! AES in counter mode over whole backup files, as the official tools do it: the 16-byte IV is the
//! first counter block (big-endian, all 128 bits count), no header, no authentication.

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{KeyIvInit, StreamCipher},
};
use br_proto::{backup::CipherInfo, encryptionpb::EncryptionMethod};
use ctr::Ctr128BE;

/// Length of an initialisation vector.
pub(crate) const IV_LEN: usize = 16;

/// A cipher that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CipherError {
    /// A method that is not built in.
    #[error("encryption method {0} is not supported")]
    Method(i32),
    /// A key or IV of the wrong length.
    #[error("the encryption key or the initialisation vector has the wrong length")]
    Length,
}

/// The keystream of one file, from its first byte on. Encrypts and decrypts.
pub(crate) enum Keystream {
    /// The bytes stay as they are.
    Plain,
    /// AES-128.
    Aes128(Box<Ctr128BE<Aes128>>),
    /// AES-192.
    Aes192(Box<Ctr128BE<Aes192>>),
    /// AES-256.
    Aes256(Box<Ctr128BE<Aes256>>),
}

impl Keystream {
    /// The keystream for a file; no information means no encryption.
    ///
    /// # Errors
    /// [`CipherError`].
    pub(crate) fn new(cipher: Option<&CipherInfo>, iv: &[u8]) -> Result<Keystream, CipherError> {
        let Some(cipher) = cipher else {
            return Ok(Keystream::Plain);
        };
        let key = &cipher.cipher_key;
        let length = |_| CipherError::Length;
        Ok(match EncryptionMethod::try_from(cipher.cipher_type) {
            Ok(EncryptionMethod::Unknown | EncryptionMethod::Plaintext) => Keystream::Plain,
            Ok(EncryptionMethod::Aes128Ctr) => Keystream::Aes128(Box::new(
                KeyIvInit::new_from_slices(key, iv).map_err(length)?,
            )),
            Ok(EncryptionMethod::Aes192Ctr) => Keystream::Aes192(Box::new(
                KeyIvInit::new_from_slices(key, iv).map_err(length)?,
            )),
            Ok(EncryptionMethod::Aes256Ctr) => Keystream::Aes256(Box::new(
                KeyIvInit::new_from_slices(key, iv).map_err(length)?,
            )),
            _ => return Err(CipherError::Method(cipher.cipher_type)),
        })
    }

    /// Whether bytes stay as they are.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Keystream::Plain)
    }

    /// Encrypts or decrypts the next bytes of the file.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        match self {
            Keystream::Plain => {}
            Keystream::Aes128(stream) => stream.apply_keystream(bytes),
            Keystream::Aes192(stream) => stream.apply_keystream(bytes),
            Keystream::Aes256(stream) => stream.apply_keystream(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.5.5 (CTR-AES256.Encrypt), in two pieces.
    #[test]
    fn vector_of_the_standard() {
        let unhex = |text: &str| hex::decode(text).unwrap();
        let cipher = CipherInfo {
            cipher_type: EncryptionMethod::Aes256Ctr.into(),
            cipher_key: unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
        };
        let iv = unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let mut text = unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut stream = Keystream::new(Some(&cipher), &iv).unwrap();
        let (head, tail) = text.split_at_mut(5);
        stream.apply(head);
        stream.apply(tail);
        let expected = "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5";
        assert_eq!(hex::encode(text), expected);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let cipher = |method: i32, len: usize| CipherInfo {
            cipher_type: method,
            cipher_key: vec![0; len],
        };
        assert!(Keystream::new(None, b"").unwrap().is_plain());
        assert!(Keystream::new(Some(&cipher(1, 0)), b"").unwrap().is_plain());
        let short = Keystream::new(Some(&cipher(4, 16)), &[0; IV_LEN]);
        assert_eq!(short.err(), Some(CipherError::Length));
        let sm4 = Keystream::new(Some(&cipher(5, 16)), &[0; IV_LEN]);
        assert_eq!(sm4.err(), Some(CipherError::Method(5)));
    }
}
