//! Opens the bytes of a sealed object while they arrive.

use std::sync::Arc;

use br_format::sealed::{
    SealedError,
    object::{HEADER_BYTES, Header, ObjectKey, SEALED_CHUNK_BYTES},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use object_store::Result;

use super::{Ring, store::failed};
use crate::Failure;

/// A whole object on its way.
pub(super) struct Body {
    pub(super) ring: Arc<Ring>,
    pub(super) name: String,
    pub(super) stored: BoxStream<'static, Result<Bytes>>,
    /// Stored bytes that did not arrive yet.
    pub(super) left: u64,
    buffer: BytesMut,
    key: Option<ObjectKey>,
    chunk: u64,
}

impl Body {
    pub(super) fn new(
        ring: Arc<Ring>,
        name: String,
        stored: BoxStream<'static, Result<Bytes>>,
        stored_size: u64,
    ) -> Body {
        Body {
            ring,
            name,
            stored,
            left: stored_size,
            buffer: BytesMut::new(),
            key: None,
            chunk: 0,
        }
    }

    /// The plain content, chunk by chunk; ends after an error.
    pub(super) fn open(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold(self, |mut body| async move {
            let plain = body.next().await?;
            Ok(plain.map(|plain| (plain, body)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let damaged = |error: SealedError| failed(Failure::Damaged(error));
        if self.key.is_none() {
            self.fill(HEADER_BYTES).await?;
            let bytes = self.take(HEADER_BYTES);
            let header = Header::decode(&bytes).map_err(damaged)?;
            let key = self.ring.key(header.key).await.map_err(failed)?;
            let key = ObjectKey::for_existing(&key, &self.name, header);
            self.key = Some(key.map_err(damaged)?);
        }
        self.fill(SEALED_CHUNK_BYTES).await?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let mut sealed = self.take(SEALED_CHUNK_BYTES);
        let is_last = self.left == 0 && self.buffer.is_empty();
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let plain = key.open_chunk(self.chunk, is_last, &mut sealed);
        let length = plain.map_err(damaged)?.len();
        sealed.truncate(length);
        self.chunk += 1;
        Ok(Some(sealed.freeze()))
    }

    /// Waits for so many bytes, or the end.
    async fn fill(&mut self, wanted: usize) -> Result<()> {
        while self.buffer.len() < wanted && self.left > 0 {
            let Some(bytes) = self.stored.next().await.transpose()? else {
                let text = format!("the answer broke off {} bytes before its end", self.left);
                return Err(failed(Failure::Unavailable(text)));
            };
            self.left = self.left.saturating_sub(bytes.len() as u64);
            self.buffer.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn take(&mut self, wanted: usize) -> BytesMut {
        self.buffer.split_to(wanted.min(self.buffer.len()))
    }
}
