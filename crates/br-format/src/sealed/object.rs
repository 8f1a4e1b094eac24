//! One sealed object: a header, then chunks of 64 KiB, each sealed by itself with AES-256-GCM.
//!
//! # Ordering and invariants
//! - Every object has a key of its own, made of the data key, 32 random bytes in its header, and its
//!   name: the same bytes under another name, or with another header, do not open.
//! - A chunk's nonce is its number and whether it is the last: chunks that are missing, repeated, or in
//!   another order do not open, nor does an object that ends earlier or later than it did.
//! - All chunks but the last are full, and the last is empty only if the object is: the plain size
//!   follows from the stored one.
//!
//! # Source
//! The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and
//! its Nonce-Reuse Misuse-Resistance, 2015) with a derived key for each object (HKDF, RFC 5869).

use std::ops::Range;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};

use super::{DataKey, DataKeyId, SealedError};

/// Plain bytes of a full chunk. Part of the form: sizes and places follow from it.
pub const CHUNK_BYTES: usize = 64 << 10;
/// What sealing adds to a chunk.
pub const TAG_BYTES: usize = 16;
/// Stored bytes of a full chunk.
pub const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;
/// Length of the random part of a header.
pub const SALT_BYTES: usize = 32;
/// Length of a header.
pub const HEADER_BYTES: usize = PROOF_AT + PROOF_BYTES;

/// What every sealed object begins with, before the number of its form. No protobuf message, JSON text or
/// SST file begins like this.
const MAGIC: [u8; 7] = *b"\x07sealed";
const VERSION: u8 = 1;

/// The same as stores tell it.
pub const FORM: u32 = VERSION as u32;
const KEY_ID_AT: usize = MAGIC.len() + 1;
const SALT_AT: usize = KEY_ID_AT + DataKeyId::BYTES;
const PROOF_AT: usize = SALT_AT + SALT_BYTES;
/// Shows that header, name and key belong together, before any chunk is read.
const PROOF_BYTES: usize = 16;

const CHUNK: u64 = CHUNK_BYTES as u64;
const TAG: u64 = TAG_BYTES as u64;
const SEALED_CHUNK: u64 = SEALED_CHUNK_BYTES as u64;
const HEADER: u64 = HEADER_BYTES as u64;

/// Whether these are the first bytes of a sealed object of any form.
pub fn looks_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The stored size of an object with this plain one.
pub const fn stored_size(plain: u64) -> u64 {
    let chunks = match plain.div_ceil(CHUNK) {
        0 => 1,
        chunks => chunks,
    };
    HEADER
        .saturating_add(plain)
        .saturating_add(chunks.saturating_mul(TAG))
}

/// The plain size of an object with this stored one.
///
/// # Errors
/// [`SealedError::Size`]: no object has it.
pub fn plain_size(stored: u64) -> Result<u64, SealedError> {
    let wrong = SealedError::Size(stored);
    let Some(body) = stored.checked_sub(HEADER) else {
        return Err(wrong);
    };
    let (full, rest) = (body / SEALED_CHUNK, body % SEALED_CHUNK);
    match rest {
        0 if full > 0 => Ok(full * CHUNK),
        TAG if full == 0 => Ok(0),
        rest if rest > TAG => Ok(full * CHUNK + rest - TAG),
        _ => Err(wrong),
    }
}

/// Where the number-th chunk begins in the stored object.
pub const fn stored_offset(chunk: u64) -> u64 {
    HEADER.saturating_add(chunk.saturating_mul(SEALED_CHUNK))
}

/// The chunks with the plain bytes of `range`, which is not empty.
pub const fn chunks_of(range: &Range<u64>) -> Range<u64> {
    range.start / CHUNK..range.end.div_ceil(CHUNK)
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The data key that the object is sealed under.
    pub key: DataKeyId,
    salt: [u8; SALT_BYTES],
    proof: [u8; PROOF_BYTES],
}

impl Header {
    /// Reads the first [`HEADER_BYTES`] of an object.
    ///
    /// # Errors
    /// [`SealedError::NotSealed`], [`SealedError::Version`]; [`SealedError::Size`] if there are fewer.
    pub fn decode(bytes: &[u8]) -> Result<Header, SealedError> {
        if !looks_sealed(bytes) {
            return Err(SealedError::NotSealed);
        }
        match bytes.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(&other) => return Err(SealedError::Version(other)),
            None => return Err(SealedError::Size(bytes.len() as u64)),
        }
        let header = Header::fields(bytes);
        header.ok_or(SealedError::Size(bytes.len() as u64))
    }

    fn fields(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            key: DataKeyId(*bytes.get(KEY_ID_AT..)?.first_chunk()?),
            salt: *bytes.get(SALT_AT..)?.first_chunk()?,
            proof: *bytes.get(PROOF_AT..)?.first_chunk()?,
        })
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let parts: [&[u8]; 5] = [&MAGIC, &[VERSION], &self.key.0, &self.salt, &self.proof];
        let all = parts.into_iter().flatten();
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = *from;
        }
        bytes
    }
}

/// Seals or opens the chunks of one object.
pub struct ObjectKey {
    header: Header,
    key: LessSafeKey,
}

impl std::fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectKey({})", self.header.key)
    }
}

impl ObjectKey {
    /// For a new object of this name; `salt` is drawn at random for each and never used twice.
    pub fn for_new(key: &DataKey, name: &str, salt: [u8; SALT_BYTES]) -> ObjectKey {
        let (object_key, proof) = derive(key, name, &salt);
        ObjectKey {
            header: Header {
                key: key.id,
                salt,
                proof,
            },
            key: object_key,
        }
    }

    /// For the object with this name and header; `key` is the one that the header names.
    ///
    /// # Errors
    /// [`SealedError::Header`].
    pub fn for_existing(
        key: &DataKey,
        name: &str,
        header: Header,
    ) -> Result<ObjectKey, SealedError> {
        let (object_key, proof) = derive(key, name, &header.salt);
        // Not compared in constant time: who can ask for this many times can read the keys.
        if proof != header.proof || key.id != header.key {
            return Err(SealedError::Header);
        }
        Ok(ObjectKey {
            header,
            key: object_key,
        })
    }

    /// The header, as it is stored.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        self.header.encode()
    }

    /// Appends the sealed chunk to `out`; `plain` has at most [`CHUNK_BYTES`], and exactly so many if
    /// it is not the last.
    pub fn seal_chunk(&self, chunk: u64, is_last: bool, plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plain);
        let body = out.get_mut(start..).unwrap_or_default();
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(chunk, is_last), Aad::empty(), body)
            .expect("a chunk is far shorter than what the mode can take");
        out.extend_from_slice(tag.as_ref());
    }

    /// The plain bytes of a sealed chunk, opened in its place.
    ///
    /// # Errors
    /// [`SealedError::Chunk`].
    pub fn open_chunk<'a>(
        &self,
        chunk: u64,
        is_last: bool,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealedError> {
        let opened = self
            .key
            .open_in_place(nonce(chunk, is_last), Aad::empty(), sealed);
        opened.map_err(|_| SealedError::Chunk {
            plain_offset: chunk.saturating_mul(CHUNK),
        })
    }

    /// The whole stored object.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let size = usize::try_from(stored_size(plain.len() as u64)).unwrap_or_default();
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(&self.header());
        let mut chunks = plain.chunks(CHUNK_BYTES).peekable();
        if chunks.peek().is_none() {
            self.seal_chunk(0, true, &[], &mut out);
        }
        let mut number = 0;
        while let Some(chunk) = chunks.next() {
            self.seal_chunk(number, chunks.peek().is_none(), chunk, &mut out);
            number += 1;
        }
        out
    }
}

/// Each key seals one object, so that counting gives each chunk a nonce of its own.
fn nonce(chunk: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    let parts = chunk.to_be_bytes();
    for (to, from) in nonce.iter_mut().zip(parts) {
        *to = from;
    }
    if let Some(end) = nonce.last_mut() {
        *end = u8::from(is_last);
    }
    Nonce::assume_unique_for_key(nonce)
}

/// How much HKDF is to make.
struct Derived;

impl Derived {
    const BYTES: usize = DataKey::BYTES + PROOF_BYTES;
}

impl KeyType for Derived {
    fn len(&self) -> usize {
        Self::BYTES
    }
}

/// The key of an object, and the proof in its header.
fn derive(key: &DataKey, name: &str, salt: &[u8]) -> (LessSafeKey, [u8; PROOF_BYTES]) {
    let info: [&[u8]; 4] = [&MAGIC, &[VERSION], &key.id.0, name.as_bytes()];
    let mut made = [0; Derived::BYTES];
    Salt::new(HKDF_SHA256, salt)
        .extract(key.secret())
        .expand(&info, Derived)
        .and_then(|okm| okm.fill(&mut made))
        .expect("48 bytes are far fewer than what HKDF can make");
    let (object_key, proof) = made.split_at(DataKey::BYTES);
    let object_key = UnboundKey::new(&AES_256_GCM, object_key).expect("it has 32 bytes");
    let proof = *proof.first_chunk().expect("the rest has 16 bytes");
    (LessSafeKey::new(object_key), proof)
}
