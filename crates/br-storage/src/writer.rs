//! # What it does
//! Writes one large object part by part while its bytes are being made.
//!
//! # Ordering and invariants
//! Up to one part is buffered and [`PARTS_IN_FLIGHT_MAX`] are on their way, but no more than
//! [`IN_FLIGHT_BYTES_MAX`] or one part: memory stays below that and a part, 64 MiB for an object of up to
//! 56 GB. The object appears as a whole in [`Writer::finish`]. What fits one part goes in one request.
//!
//! Nobody says beforehand how large it becomes, so parts grow with it ([`part_bytes`]): none of the
//! storages takes more than 10 000.
//!
//! # Retries
//! Each request of a part is tried again by the store; an upload that fails nevertheless is over,
//! and the caller writes the object anew.
//!
//! # Cancellation
//! A writer that is dropped before its end takes its parts back.

use std::collections::VecDeque;

use br_rt::Task;
use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, PutMultipartOptions, path::Path};
use sha2::{Digest, Sha256};

use crate::{Failure, Operation, Storage, StorageError};

/// Size of a first part; S3 takes parts from 5 MiB on.
pub const PART_BYTES: usize = 8 << 20;

/// So many parts have one size; those after them twice as much.
const PARTS_OF_ONE_SIZE: usize = 1000;

/// The largest part has 2 GiB: Azure takes 4000 MiB, others 5 GiB.
const DOUBLINGS_MAX: usize = 8;

/// Bytes on their way at once, beside one part however large.
const IN_FLIGHT_BYTES_MAX: usize = PARTS_IN_FLIGHT_MAX * PART_BYTES;

/// Parts of one object on their way at once: enough to fill a line while the next is made.
pub const PARTS_IN_FLIGHT_MAX: usize = 4;

/// The size of the number-th part, from 0. 10 000 of them have 5.8 TiB; S3 and GCS end at 5 TiB, Azure at
/// 190 TiB.
fn part_bytes(number: usize) -> usize {
    PART_BYTES << (number / PARTS_OF_ONE_SIZE).min(DOUBLINGS_MAX)
}

type Part = Task<object_store::Result<()>>;

/// Writes one object in parts.
pub struct Writer {
    storage: Storage,
    name: String,
    path: Path,
    buffer: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: VecDeque<Part>,
    /// Parts that were sent.
    sent: usize,
    size_bytes: u64,
    hash: Option<Sha256>,
}

/// What [`Writer::finish`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size of the object.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, if [`Writer::hashed`] asked for it.
    pub sha256: Option<[u8; 32]>,
}

impl Writer {
    pub(crate) fn new(storage: Storage, name: String, path: Path) -> Writer {
        Writer {
            storage,
            name,
            path,
            buffer: BytesMut::new(),
            upload: None,
            parts: VecDeque::new(),
            sent: 0,
            size_bytes: 0,
            hash: None,
        }
    }

    /// Computes SHA-256 of what is written from now on.
    #[must_use]
    pub fn hashed(mut self) -> Writer {
        self.hash = Some(Sha256::new());
        self
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes more bytes; waits while too many parts are on their way.
    ///
    /// # Errors
    /// A part failed: the object will not come to be.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.size_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.buffer.len() >= part_bytes(self.sent) {
                self.send_part().await?;
            }
            let room = part_bytes(self.sent).saturating_sub(self.buffer.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes the rest and makes the object appear.
    ///
    /// # Errors
    /// As [`Storage::write`]; there is no object then, or the one from before.
    pub async fn finish(mut self) -> Result<Written, StorageError> {
        let written = Written {
            size_bytes: self.size_bytes,
            sha256: self.hash.take().map(|hash| hash.finalize().into()),
        };
        if self.upload.is_none() {
            let bytes = self.buffer.split().freeze();
            self.storage.write(&self.name, bytes).await?;
            return Ok(written);
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        while let Some(part) = self.parts.front_mut() {
            let result = part.await;
            self.parts.pop_front();
            result.map_err(|error| self.error(error.into()))?;
        }
        if let Some(mut upload) = self.upload.take() {
            if let Err(error) = upload.complete().await {
                self.upload = Some(upload);
                return Err(self.error(error.into()));
            }
            let rt = self.storage.rt();
            self.storage
                .faults()
                .after_change(rt)
                .map_err(|failure| self.error(failure))?;
        }
        Ok(written)
    }

    /// Gives up and takes back the parts that were written.
    pub async fn abort(mut self) {
        self.parts.clear();
        if let Some(mut upload) = self.upload.take() {
            abort(&mut *upload, &self.name).await;
        }
    }

    async fn send_part(&mut self) -> Result<(), StorageError> {
        let bytes = self.buffer.split().freeze();
        self.sent += 1;
        if self.storage.is_noop() {
            return Ok(());
        }
        if self.upload.is_none() {
            self.upload = Some(start(&self.storage, &self.name, &self.path).await?);
        }
        let in_flight_max =
            (IN_FLIGHT_BYTES_MAX / bytes.len().max(1)).clamp(1, PARTS_IN_FLIGHT_MAX);
        while self.parts.len() >= in_flight_max
            && let Some(part) = self.parts.front_mut()
        {
            let result = part.await;
            self.parts.pop_front();
            result.map_err(|error| self.error(error.into()))?;
        }
        self.send(bytes);
        Ok(())
    }

    fn send(&mut self, bytes: Bytes) {
        if let Some(upload) = &mut self.upload {
            let part = upload.put_part(bytes.into());
            self.parts.push_back(self.storage.rt().spawn(part));
        }
    }

    fn error(&self, failure: Failure) -> StorageError {
        self.storage.error(Operation::Write, &self.name, failure)
    }
}

/// Begins an upload. Not a method: a reference to a whole writer would tie its callers to one thread.
async fn start(
    storage: &Storage,
    name: &str,
    path: &Path,
) -> Result<Box<dyn MultipartUpload>, StorageError> {
    storage
        .retry(Operation::Write, name, || async {
            let options = PutMultipartOptions {
                attributes: storage.attributes(),
                ..PutMultipartOptions::default()
            };
            Ok(storage
                .object_store()
                .put_multipart_opts(path, options)
                .await?)
        })
        .await
}

async fn abort(upload: &mut dyn MultipartUpload, name: &str) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(name, %error, "parts of an unfinished upload are left on the storage");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.parts.clear();
        if let Some(mut upload) = self.upload.take() {
            let name = std::mem::take(&mut self.name);
            let rt = self.storage.rt().clone();
            rt.spawn(async move { abort(&mut *upload, &name).await })
                .detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_has_too_many_parts() {
        assert_eq!(part_bytes(0), PART_BYTES);
        assert_eq!(part_bytes(999), PART_BYTES);
        assert_eq!(part_bytes(1000), 2 * PART_BYTES);
        assert_eq!(part_bytes(usize::MAX), 2 << 30);
        // The largest object of S3, and what sealing adds to it.
        let whole: u64 = (0..9_990).map(|number| part_bytes(number) as u64).sum();
        let sealed = br_format::sealed::object::stored_size(5 << 40);
        assert!(whole > sealed, "{whole}");
        // Small ones have small parts.
        let first: u64 = (0..1000).map(|number| part_bytes(number) as u64).sum();
        assert_eq!(first, 1000 * PART_BYTES as u64);
        for number in 1..20_000 {
            assert!(part_bytes(number) >= part_bytes(number - 1));
        }
    }
}
