use br_proto::backup::{File, MetaFile};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Compatibility, MetaError, MetaNode, check_unknown};
use crate::crypter::{Crypter, Iv};

/// The greatest meta file that is read. The official tool ends one soon after 128 MiB, but never
/// within a schema; this leaves room for a schema with large statistics.
pub const METAFILE_READ_SIZE_BYTES_MAX: u64 = 1 << 30;

/// An object that an index points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    name: String,
    /// Of the plaintext.
    sha256: [u8; 32],
    /// Of the plaintext; 0 if it was not written.
    size_bytes: u64,
    iv: Option<Iv>,
    /// Indexes above it.
    depth: usize,
}

impl ObjectRef {
    /// The name below the prefix of the backup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes to read; 0 if not known.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn from_proto(object: &str, file: File, depth: usize) -> Result<Self, MetaError> {
        let wrong = |what: &str| MetaError::malformed(object, format!("{what} of {:?}", file.name));
        if file.name.is_empty() {
            return Err(wrong("empty name"));
        }
        if file.size > METAFILE_READ_SIZE_BYTES_MAX {
            let max = METAFILE_READ_SIZE_BYTES_MAX;
            return Err(MetaError::TooLarge {
                object: file.name,
                found: file.size,
                max,
            });
        }
        let iv = match file.cipher_iv.as_slice() {
            [] => None,
            iv => Some(Iv::from_slice(iv).map_err(|_| wrong("initialization vector"))?),
        };
        Ok(ObjectRef {
            sha256: file
                .sha256
                .as_slice()
                .try_into()
                .map_err(|_| wrong("length of SHA-256"))?,
            size_bytes: file.size,
            iv,
            depth,
            name: file.name,
        })
    }

    /// Decrypts and checks the object's stored bytes.
    ///
    /// # Errors
    /// [`MetaError::TooLarge`], [`MetaError::Truncated`], [`MetaError::Checksum`].
    fn plaintext(&self, stored: Bytes, crypter: &Crypter) -> Result<Bytes, MetaError> {
        open_sealed(
            &self.name,
            stored,
            &self.sha256,
            self.size_bytes,
            self.iv.as_ref(),
            crypter,
        )
    }

    /// Decrypts, checks and opens the meta file of these stored bytes.
    ///
    /// # Errors
    /// Every one that says that the object is damaged or newer than this version.
    pub fn open(
        &self,
        stored: Bytes,
        crypter: &Crypter,
        compatibility: Compatibility,
    ) -> Result<MetaNode, MetaError> {
        let plain = self.plaintext(stored, crypter)?;
        check_unknown(&self.name, "backup.MetaFile", &plain, compatibility)?
            .map_err(|_| MetaError::malformed(&self.name, "it is not a meta file"))?;
        MetaNode::of_metafile(self.name.clone(), plain, self.depth)
    }
}

/// Decrypts an object whose sum, size and initialization vector stand elsewhere, and checks it.
pub(crate) fn open_sealed(
    name: &str,
    stored: Bytes,
    sha256: &[u8; 32],
    size_bytes: u64,
    iv: Option<&Iv>,
    crypter: &Crypter,
) -> Result<Bytes, MetaError> {
    let found = stored.len() as u64;
    if found > METAFILE_READ_SIZE_BYTES_MAX {
        let max = METAFILE_READ_SIZE_BYTES_MAX;
        return Err(MetaError::TooLarge {
            object: name.to_owned(),
            found,
            max,
        });
    }
    if size_bytes != 0 && size_bytes != found {
        return Err(MetaError::Truncated {
            object: name.to_owned(),
            expected: size_bytes,
            found,
        });
    }
    let plain = match (crypter.is_plaintext(), iv) {
        (true, _) => stored,
        // An empty object is not encrypted and has no vector.
        (false, None) if stored.is_empty() => stored,
        (false, None) => {
            return Err(MetaError::WrongKey {
                object: name.to_owned(),
            });
        }
        (false, Some(iv)) => {
            let mut bytes = Vec::from(stored);
            crypter.apply(iv, &mut bytes);
            Bytes::from(bytes)
        }
    };
    let actual: [u8; 32] = Sha256::digest(&plain).into();
    if actual != *sha256 {
        return Err(MetaError::Checksum {
            object: name.to_owned(),
            expected: hex::encode(sha256),
            found: hex::encode(actual),
        });
    }
    Ok(plain)
}

/// The children of an index that was decoded already.
pub(super) fn children(
    object: &str,
    index: MetaFile,
    depth: usize,
) -> Result<Vec<ObjectRef>, MetaError> {
    index
        .meta_files
        .into_iter()
        .map(|file| ObjectRef::from_proto(object, file, depth))
        .collect()
}
