//! # What it does
//! Writes one large object part by part while its bytes are being made.
//!
//! # Ordering and invariants
//! Up to one part is buffered and [`PARTS_IN_FLIGHT_MAX`] are on their way, so that memory stays
//! below `(1 + PARTS_IN_FLIGHT_MAX) × PART_BYTES` whatever the size. The object appears as a
//! whole in [`Writer::finish`]. What fits one part goes in one request.
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

/// Size of a part; S3 takes parts from 5 MiB on, and at most 10 000 of them (80 GB here).
pub const PART_BYTES: usize = 8 << 20;

/// Parts of one object on their way at once: enough to fill a line while the next is made.
pub const PARTS_IN_FLIGHT_MAX: usize = 4;

type Part = Task<object_store::Result<()>>;

/// Writes one object in parts.
pub struct Writer {
    storage: Storage,
    name: String,
    path: Path,
    buffer: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: VecDeque<Part>,
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
            if self.buffer.len() == PART_BYTES {
                self.send_part().await?;
            }
            let room = PART_BYTES - self.buffer.len();
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
        if self.storage.is_noop() {
            return Ok(());
        }
        if self.upload.is_none() {
            self.upload = Some(start(&self.storage, &self.name, &self.path).await?);
        }
        while self.parts.len() >= PARTS_IN_FLIGHT_MAX
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
