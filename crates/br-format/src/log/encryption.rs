//! How one logical file is encrypted.

use br_proto::encryptionpb::file_encryption_info::Mode;
use br_proto::encryptionpb::{
    EncryptionMethod, FileEncryptionInfo, MasterKeyBased, PlainTextDataKey,
};

use super::LogFormatError;
use crate::crypter::{Crypter, Iv, Method};

/// Where the key of a file comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// The task has the key itself (`--log.crypter.key`).
    Task,
    /// The key lies in the metadata, encrypted under a master key.
    MasterKey {
        /// As it lies there.
        wrapped: MasterKeyBased,
        /// The same, once a master key has opened it; never stored.
        opened: Option<Crypter>,
    },
}

/// How one logical file is encrypted.
///
/// # Source
/// `encryptionpb.FileEncryptionInfo`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileEncryption {
    /// The method; not plaintext.
    pub method: Method,
    /// Of this file only.
    pub iv: Iv,
    /// SHA-256 over the encrypted bytes; empty if nobody summed them.
    pub checksum: Vec<u8>,
    /// Where its key comes from.
    pub key: KeySource,
}

impl FileEncryption {
    /// Out of metadata, or of the request of a client; `None`: it is not encrypted.
    ///
    /// # Errors
    /// [`LogFormatError::Unsupported`], [`LogFormatError::NewerVersion`], [`LogFormatError::Malformed`].
    pub fn from_proto(
        object: &str,
        info: FileEncryptionInfo,
    ) -> Result<Option<Self>, LogFormatError> {
        let method = match EncryptionMethod::try_from(info.encryption_method) {
            Ok(EncryptionMethod::Unknown | EncryptionMethod::Plaintext) => return Ok(None),
            Ok(EncryptionMethod::Aes128Ctr) => Method::Aes128Ctr,
            Ok(EncryptionMethod::Aes192Ctr) => Method::Aes192Ctr,
            Ok(EncryptionMethod::Aes256Ctr) => Method::Aes256Ctr,
            Ok(EncryptionMethod::Sm4Ctr) => {
                return Err(LogFormatError::Unsupported {
                    object: object.to_owned(),
                    feature: "SM4 encryption",
                });
            }
            Err(_) => {
                return Err(LogFormatError::NewerVersion {
                    object: object.to_owned(),
                    field: "encryption method",
                    found: i64::from(info.encryption_method),
                    supported: EncryptionMethod::Aes256Ctr as i64,
                });
            }
        };
        let key = match info.mode {
            Some(Mode::PlainTextDataKey(PlainTextDataKey {})) => KeySource::Task,
            Some(Mode::MasterKeyBased(wrapped)) => KeySource::MasterKey {
                wrapped,
                opened: None,
            },
            None => {
                let reason = "an encrypted file does not say where its key is";
                return Err(LogFormatError::malformed(object, reason));
            }
        };
        Ok(Some(FileEncryption {
            method,
            iv: Iv::from_slice(&info.file_iv)
                .map_err(|error| LogFormatError::malformed(object, error.to_string()))?,
            checksum: info.checksum,
            key,
        }))
    }

    /// For metadata, and for requests to stores.
    pub fn to_proto(&self) -> FileEncryptionInfo {
        let method = match self.method {
            Method::Plaintext => EncryptionMethod::Plaintext,
            Method::Aes128Ctr => EncryptionMethod::Aes128Ctr,
            Method::Aes192Ctr => EncryptionMethod::Aes192Ctr,
            Method::Aes256Ctr => EncryptionMethod::Aes256Ctr,
        };
        FileEncryptionInfo {
            mode: Some(match &self.key {
                KeySource::Task => Mode::PlainTextDataKey(PlainTextDataKey {}),
                KeySource::MasterKey { wrapped, .. } => Mode::MasterKeyBased(wrapped.clone()),
            }),
            encryption_method: method as i32,
            file_iv: self.iv.0.to_vec(),
            checksum: self.checksum.clone(),
        }
    }
}
