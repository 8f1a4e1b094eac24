//! Encryption of backup files: AES in counter mode, without a header and without authentication.
//!
//! The 16-byte initialization vector is the first counter block; the counter is all of its 128 bits,
//! big-endian, one per 16 bytes. So any offset of an object can be decrypted alone
//! ([`Keystream::seek`]), and a wrong key shows only as content that makes no sense.

use std::fmt;
use std::str::FromStr;

use aes::{Aes128, Aes192, Aes256};
use br_proto::backup::CipherInfo;
use br_proto::encryptionpb::EncryptionMethod;
use br_types::{Classify, Kind};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use thiserror::Error;

/// Length of an initialization vector in bytes.
pub const IV_SIZE_BYTES: usize = 16;

/// Why a key or an initialization vector is of no use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CrypterError {
    /// The name of the method is not one of the four.
    #[error("{0:?} is not an encryption method")]
    UnknownMethod(String),
    /// The method has a number that is not supported (SM4, or a newer one).
    #[error("encryption method number {0} is not supported")]
    UnsupportedMethod(i32),
    /// The key is not written in hexadecimal.
    #[error("the encryption key is not hexadecimal")]
    KeyNotHex,
    /// The key has a wrong length for its method.
    #[error("{method} takes a key of {expected} bytes, this one has {found}")]
    KeyLength {
        /// The method.
        method: Method,
        /// Bytes that its key has.
        expected: usize,
        /// Bytes that this one has.
        found: usize,
    },
    /// The initialization vector does not have 16 bytes.
    #[error("an initialization vector has 16 bytes, this one has {found}")]
    IvLength {
        /// Bytes that it has.
        found: usize,
    },
}

impl Classify for CrypterError {
    fn kind(&self) -> Kind {
        match self {
            CrypterError::IvLength { .. } => Kind::Data,
            _ => Kind::Invalid,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            CrypterError::IvLength { .. } => None,
            CrypterError::UnknownMethod(_) | CrypterError::UnsupportedMethod(_) => Some(
                "Use plaintext, aes128-ctr, aes192-ctr or aes256-ctr as the method.".to_owned(),
            ),
            CrypterError::KeyNotHex | CrypterError::KeyLength { .. } => {
                Some("Give the key of this method in hexadecimal.".to_owned())
            }
        }
    }
}

/// A method of encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// None.
    #[default]
    Plaintext,
    /// AES with a key of 16 bytes.
    Aes128Ctr,
    /// AES with a key of 24 bytes.
    Aes192Ctr,
    /// AES with a key of 32 bytes.
    Aes256Ctr,
}

impl Method {
    /// The length of its key in bytes; 0 for plaintext.
    pub const fn key_size_bytes(self) -> usize {
        match self {
            Method::Plaintext => 0,
            Method::Aes128Ctr => 16,
            Method::Aes192Ctr => 24,
            Method::Aes256Ctr => 32,
        }
    }

    /// The method with this number in requests and tasks.
    ///
    /// # Errors
    /// [`CrypterError::UnsupportedMethod`].
    pub fn from_proto(number: i32) -> Result<Method, CrypterError> {
        match EncryptionMethod::try_from(number) {
            Ok(EncryptionMethod::Unknown | EncryptionMethod::Plaintext) => Ok(Method::Plaintext),
            Ok(EncryptionMethod::Aes128Ctr) => Ok(Method::Aes128Ctr),
            Ok(EncryptionMethod::Aes192Ctr) => Ok(Method::Aes192Ctr),
            Ok(EncryptionMethod::Aes256Ctr) => Ok(Method::Aes256Ctr),
            _ => Err(CrypterError::UnsupportedMethod(number)),
        }
    }

    /// Its number in requests and tasks.
    pub const fn number(self) -> i32 {
        self.to_proto() as i32
    }

    const fn to_proto(self) -> EncryptionMethod {
        match self {
            Method::Plaintext => EncryptionMethod::Plaintext,
            Method::Aes128Ctr => EncryptionMethod::Aes128Ctr,
            Method::Aes192Ctr => EncryptionMethod::Aes192Ctr,
            Method::Aes256Ctr => EncryptionMethod::Aes256Ctr,
        }
    }
}

/// As `--crypter.method` has it.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Plaintext => "plaintext",
            Method::Aes128Ctr => "aes128-ctr",
            Method::Aes192Ctr => "aes192-ctr",
            Method::Aes256Ctr => "aes256-ctr",
        })
    }
}

/// Takes the name in all lower or all upper case, as the official tool does.
impl FromStr for Method {
    type Err = CrypterError;

    fn from_str(name: &str) -> Result<Self, CrypterError> {
        match name {
            "plaintext" | "PLAINTEXT" => Ok(Method::Plaintext),
            "aes128-ctr" | "AES128-CTR" => Ok(Method::Aes128Ctr),
            "aes192-ctr" | "AES192-CTR" => Ok(Method::Aes192Ctr),
            "aes256-ctr" | "AES256-CTR" => Ok(Method::Aes256Ctr),
            _ => Err(CrypterError::UnknownMethod(name.to_owned())),
        }
    }
}

/// An initialization vector; drawn at random for each object, never used twice with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Iv(pub [u8; IV_SIZE_BYTES]);

impl Iv {
    /// The vector with these bytes.
    ///
    /// # Errors
    /// [`CrypterError::IvLength`] unless there are 16.
    pub fn from_slice(bytes: &[u8]) -> Result<Iv, CrypterError> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Iv(bytes)),
            Err(_) => Err(CrypterError::IvLength { found: bytes.len() }),
        }
    }
}

/// A method with its key. `Debug` shows the method only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Crypter {
    method: Method,
    key: Vec<u8>,
}

impl fmt::Debug for Crypter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypter")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Crypter {
    /// No encryption.
    pub fn plaintext() -> Crypter {
        Crypter::default()
    }

    /// The method with this key; plaintext takes any key and keeps none.
    ///
    /// # Errors
    /// [`CrypterError::KeyLength`].
    pub fn new(method: Method, key: &[u8]) -> Result<Crypter, CrypterError> {
        let expected = method.key_size_bytes();
        if method == Method::Plaintext {
            return Ok(Crypter::plaintext());
        }
        if key.len() != expected {
            return Err(CrypterError::KeyLength {
                method,
                expected,
                found: key.len(),
            });
        }
        Ok(Crypter {
            method,
            key: key.to_vec(),
        })
    }

    /// The method with a key in hexadecimal, as `--crypter.key` has it.
    ///
    /// # Errors
    /// [`CrypterError::KeyNotHex`], [`CrypterError::KeyLength`].
    pub fn from_hex(method: Method, key: &str) -> Result<Crypter, CrypterError> {
        Crypter::new(
            method,
            &hex::decode(key).map_err(|_| CrypterError::KeyNotHex)?,
        )
    }

    /// The method with the text of a key file: the key in hexadecimal and at most one newline.
    ///
    /// # Errors
    /// As [`Crypter::from_hex`].
    pub fn from_key_file(method: Method, text: &[u8]) -> Result<Crypter, CrypterError> {
        let key = text.strip_suffix(b"\n").unwrap_or(text);
        Crypter::new(
            method,
            &hex::decode(key).map_err(|_| CrypterError::KeyNotHex)?,
        )
    }

    /// What a request to a store says.
    ///
    /// # Errors
    /// [`CrypterError::UnsupportedMethod`], [`CrypterError::KeyLength`].
    pub fn from_proto(info: Option<&CipherInfo>) -> Result<Crypter, CrypterError> {
        let Some(info) = info else {
            return Ok(Crypter::plaintext());
        };
        let method = match EncryptionMethod::try_from(info.cipher_type) {
            Ok(EncryptionMethod::Unknown | EncryptionMethod::Plaintext) => Method::Plaintext,
            Ok(EncryptionMethod::Aes128Ctr) => Method::Aes128Ctr,
            Ok(EncryptionMethod::Aes192Ctr) => Method::Aes192Ctr,
            Ok(EncryptionMethod::Aes256Ctr) => Method::Aes256Ctr,
            _ => return Err(CrypterError::UnsupportedMethod(info.cipher_type)),
        };
        Crypter::new(method, &info.cipher_key)
    }

    /// For a request to a store.
    pub fn to_proto(&self) -> CipherInfo {
        CipherInfo {
            cipher_type: self.method.to_proto() as i32,
            cipher_key: self.key.clone(),
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Whether it changes nothing.
    pub fn is_plaintext(&self) -> bool {
        self.method == Method::Plaintext
    }

    /// Encrypts or decrypts, which is the same, a whole object in place.
    pub fn apply(&self, iv: &Iv, bytes: &mut [u8]) {
        self.keystream(iv).apply(bytes);
    }

    /// The stream of an object, from its first byte on.
    pub fn keystream(&self, iv: &Iv) -> Keystream {
        let new = "the length of the key is checked when a crypter is made";
        let cipher = match self.method {
            Method::Plaintext => Cipher::Plaintext,
            Method::Aes128Ctr => Cipher::Aes128(Box::new(
                Ctr128BE::new_from_slices(&self.key, &iv.0).expect(new),
            )),
            Method::Aes192Ctr => Cipher::Aes192(Box::new(
                Ctr128BE::new_from_slices(&self.key, &iv.0).expect(new),
            )),
            Method::Aes256Ctr => Cipher::Aes256(Box::new(
                Ctr128BE::new_from_slices(&self.key, &iv.0).expect(new),
            )),
        };
        Keystream(cipher)
    }
}

/// Encrypts or decrypts an object piece by piece, from any offset.
pub struct Keystream(Cipher);

enum Cipher {
    Plaintext,
    Aes128(Box<Ctr128BE<Aes128>>),
    Aes192(Box<Ctr128BE<Aes192>>),
    Aes256(Box<Ctr128BE<Aes256>>),
}

impl fmt::Debug for Keystream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keystream").finish_non_exhaustive()
    }
}

impl Keystream {
    /// Encrypts or decrypts the next bytes in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        match &mut self.0 {
            Cipher::Plaintext => {}
            Cipher::Aes128(cipher) => cipher.apply_keystream(bytes),
            Cipher::Aes192(cipher) => cipher.apply_keystream(bytes),
            Cipher::Aes256(cipher) => cipher.apply_keystream(bytes),
        }
    }

    /// Goes to that offset of the object.
    pub fn seek(&mut self, offset: u64) {
        match &mut self.0 {
            Cipher::Plaintext => {}
            Cipher::Aes128(cipher) => cipher.seek(offset),
            Cipher::Aes192(cipher) => cipher.seek(offset),
            Cipher::Aes256(cipher) => cipher.seek(offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// NIST SP 800-38A, F.5.1, F.5.3, F.5.5: the first two blocks.
    #[test]
    fn published_vectors() {
        let iv = Iv(hex::decode("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
            .unwrap()
            .try_into()
            .unwrap());
        let plain = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
        for (method, key, expected) in [
            (
                Method::Aes128Ctr,
                "2b7e151628aed2a6abf7158809cf4f3c",
                "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
            ),
            (
                Method::Aes192Ctr,
                "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
                "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94",
            ),
            (
                Method::Aes256Ctr,
                "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
                "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5",
            ),
        ] {
            let crypter = Crypter::from_hex(method, key).unwrap();
            let mut bytes = hex::decode(plain).unwrap();
            crypter.apply(&iv, &mut bytes);
            assert_eq!(hex::encode(bytes), expected, "{method}");
        }
    }

    #[test]
    fn the_counter_wraps_over_all_128_bits() {
        let crypter = Crypter::new(Method::Aes256Ctr, &[7; 32]).unwrap();
        let mut wrapped = [0; 48];
        crypter.apply(&Iv([0xFF; 16]), &mut wrapped);
        let mut from_zero = [0; 32];
        crypter.apply(&Iv([0; 16]), &mut from_zero);
        assert_eq!(wrapped[16..], from_zero);
    }

    #[test]
    fn keys_are_checked_and_never_shown() {
        let wrong = Crypter::from_hex(Method::Aes256Ctr, "00ff");
        let expected = CrypterError::KeyLength {
            method: Method::Aes256Ctr,
            expected: 32,
            found: 2,
        };
        assert_eq!(wrong, Err(expected));
        assert_eq!(
            Crypter::from_hex(Method::Aes128Ctr, "xy"),
            Err(CrypterError::KeyNotHex)
        );
        let file = Crypter::from_key_file(Method::Aes128Ctr, &[&[b'a'; 32][..], b"\n"].concat());
        assert_eq!(file, Crypter::new(Method::Aes128Ctr, &[0xAA; 16]));
        assert_eq!(
            format!("{:?}", file.unwrap()),
            "Crypter { method: Aes128Ctr, .. }"
        );
    }

    proptest! {
        #[test]
        fn pieces_at_any_offset_equal_the_whole(
            key in any::<[u8; 32]>(), iv in any::<[u8; 16]>(),
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300,
        ) {
            let crypter = Crypter::new(Method::Aes256Ctr, &key).unwrap();
            let mut whole = bytes.clone();
            crypter.apply(&Iv(iv), &mut whole);
            let at = at.min(bytes.len());
            let mut tail = bytes[at..].to_vec();
            let mut stream = crypter.keystream(&Iv(iv));
            stream.seek(at as u64);
            stream.apply(&mut tail);
            prop_assert_eq!(&tail, &whole[at..]);
            crypter.apply(&Iv(iv), &mut whole);
            prop_assert_eq!(whole, bytes);
        }
    }
}
