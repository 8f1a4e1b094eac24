//! SST files, checked and decrypted.

use br_format::{backupmeta::DataFile, crypter::Crypter};
use br_sst::{SstError, Table};
use br_storage::{READ_BYTES_MAX, Storage};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::ExportError;

/// A data file in memory.
pub(super) struct SstFile {
    /// Its name, for errors.
    pub(super) name: String,
    /// Its entries.
    pub(super) table: Table<Bytes>,
}

impl SstFile {
    /// Reads, checks and decrypts a data file.
    pub(super) async fn open(
        storage: &Storage,
        crypter: &Crypter,
        file: &DataFile,
    ) -> Result<Self, ExportError> {
        let check = |stored| Self::checked(stored, crypter, file);
        storage
            .read_checked(&file.name, READ_BYTES_MAX, check)
            .await
    }

    fn checked(stored: Bytes, crypter: &Crypter, file: &DataFile) -> Result<Self, ExportError> {
        let found: [u8; 32] = Sha256::digest(&stored).into();
        if found != file.sha256 {
            return Err(ExportError::Checksum {
                file: file.name.clone(),
                expected: hex(&file.sha256),
                found: hex(&found),
            });
        }
        let plain = match &file.cipher_iv {
            Some(iv) if !crypter.is_plaintext() => {
                let mut bytes = Vec::from(stored);
                crypter.apply(iv, &mut bytes);
                bytes.into()
            }
            _ => stored,
        };
        let name = file.name.clone();
        match Table::open(plain) {
            Ok(table) => Ok(Self { name, table }),
            Err(source) => Err(ExportError::Sst { file: name, source }),
        }
    }

    /// An error about this file.
    pub(super) fn error(&self, source: SstError) -> ExportError {
        ExportError::Sst {
            file: self.name.clone(),
            source,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
