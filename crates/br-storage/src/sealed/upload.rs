//! Seals the parts of an upload.
//!
//! # Ordering and invariants
//! The chunk that may be the last is held back until the end shows. Parts go on with the sizes that
//! they come in with, for some storages want all of them equal: what sealing adds moves on into the next.

use async_trait::async_trait;
use br_format::sealed::object::{CHUNK_BYTES, ObjectKey};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

#[derive(Debug)]
pub(super) struct SealedUpload {
    inner: Box<dyn MultipartUpload>,
    key: ObjectKey,
    /// The number of the next chunk.
    chunk: u64,
    /// What is not sealed yet: at most one chunk between calls.
    plain: BytesMut,
    /// What is sealed and not sent yet.
    sealed: Vec<u8>,
    /// Of a part that is not the last.
    part_bytes: usize,
}

impl SealedUpload {
    pub(super) fn new(inner: Box<dyn MultipartUpload>, key: ObjectKey) -> SealedUpload {
        SealedUpload {
            inner,
            chunk: 0,
            plain: BytesMut::new(),
            sealed: key.header().to_vec(),
            key,
            part_bytes: 0,
        }
    }

    fn seal_next(&mut self, is_last: bool) {
        let chunk = self.plain.split_to(CHUNK_BYTES.min(self.plain.len()));
        self.key
            .seal_chunk(self.chunk, is_last, &chunk, &mut self.sealed);
        self.chunk += 1;
    }

    fn send(&mut self, bytes: usize) -> UploadPart {
        let rest = self.sealed.split_off(bytes.min(self.sealed.len()));
        let part = std::mem::replace(&mut self.sealed, rest);
        self.inner.put_part(PutPayload::from(part))
    }
}

#[async_trait]
impl MultipartUpload for SealedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.part_bytes = self.part_bytes.max(data.content_length());
        let data = Bytes::from(data);
        self.sealed.reserve(data.len());
        self.plain.extend_from_slice(&data);
        while self.plain.len() > CHUNK_BYTES {
            self.seal_next(false);
        }
        match self.sealed.len() >= self.part_bytes {
            true => self.send(self.part_bytes),
            false => async { Ok(()) }.boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.seal_next(true);
        while !self.sealed.is_empty() {
            let part = self.send(self.part_bytes.max(CHUNK_BYTES));
            part.await?;
        }
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
