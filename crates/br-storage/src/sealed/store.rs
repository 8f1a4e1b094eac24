use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use br_format::sealed::{
    keyring::is_of_keyring,
    object::{
        CHUNK_BYTES, HEADER_BYTES, Header, ObjectKey, SEALED_CHUNK_BYTES, chunks_of, plain_size,
        stored_offset,
    },
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, future, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, path::Path,
};

use super::{Ring, body::Body, upload::SealedUpload};
use crate::Failure;

/// Objects whose key is held, so that reading many ranges of one does not read its header each time.
const KEYS_HELD_MAX: usize = 4096;

/// Beyond this, sealing takes long enough to be done off the threads that answer.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Objects of another store, sealed.
pub(crate) struct SealedStore {
    inner: Arc<dyn ObjectStore>,
    ring: Arc<Ring>,
    keys: Mutex<HashMap<Path, Arc<ObjectKey>>>,
}

impl SealedStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, ring: Arc<Ring>) -> SealedStore {
        SealedStore {
            inner,
            ring,
            keys: Mutex::default(),
        }
    }

    /// A key for a new object.
    async fn new_key(&self, location: &Path) -> ObjectKey {
        let key = self.ring.active().await;
        ObjectKey::for_new(&key, location.as_ref(), self.ring.rt().random_bytes())
    }

    async fn whole(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let stored = self.inner.get_opts(location, options).await?;
        let meta = plain_meta(&stored.meta)?;
        let size = stored.meta.size;
        let attributes = stored.attributes.clone();
        let extensions = stored.extensions.clone();
        let name = location.as_ref().to_owned();
        let body = Body::new(self.ring.clone(), name, stored.into_stream(), size);
        Ok(GetResult {
            range: 0..meta.size,
            meta,
            attributes,
            extensions,
            payload: GetResultPayload::Stream(body.open().boxed()),
        })
    }

    async fn range(
        &self,
        location: &Path,
        range: Range<u64>,
        options: GetOptions,
    ) -> Result<GetResult> {
        let held = self.held(location);
        let is_held = held.is_some();
        match self.range_by(location, &range, &options, held).await {
            // The object may be another one since its key was held.
            Err(error) if is_held && is_damage(&error) => {
                self.range_by(location, &range, &options, None).await
            }
            result => result,
        }
    }

    async fn range_by(
        &self,
        location: &Path,
        range: &Range<u64>,
        options: &GetOptions,
        key: Option<Arc<ObjectKey>>,
    ) -> Result<GetResult> {
        let chunks = chunks_of(range);
        let has_header = chunks.start == 0 && key.is_none();
        let key = match key {
            None if !has_header => Some(self.read_key(location).await?),
            key => key,
        };
        let from = match has_header {
            true => 0,
            false => stored_offset(chunks.start),
        };
        let options = GetOptions {
            range: Some(GetRange::Bounded(from..stored_offset(chunks.end))),
            ..options.clone()
        };
        let stored = self.inner.get_opts(location, options).await?;
        let (meta, size) = (plain_meta(&stored.meta)?, stored.meta.size);
        let (attributes, extensions) = (stored.attributes.clone(), stored.extensions.clone());
        let expected = size.min(stored_offset(chunks.end)).saturating_sub(from);
        let mut bytes = collect(stored, expected).await?;
        let key = match key {
            Some(key) => key,
            None => {
                let header = bytes.split_to(HEADER_BYTES.min(bytes.len()));
                self.hold(location, &header).await?
            }
        };
        let plain = open_chunks(&key, chunks, bytes, size).map_err(failed)?;
        let end = range.end.min(meta.size);
        let start = range.start.min(end);
        let skipped = offset_in(range.start, plain.len());
        let wanted = usize::try_from(end - start).unwrap_or(usize::MAX);
        let kept = plain
            .slice(skipped..)
            .slice(..wanted.min(plain.len() - skipped));
        Ok(GetResult {
            range: start..end,
            meta,
            attributes,
            extensions,
            payload: GetResultPayload::Stream(stream::once(future::ready(Ok(kept))).boxed()),
        })
    }

    /// Reads the header of an object.
    async fn read_key(&self, location: &Path) -> Result<Arc<ObjectKey>> {
        let options = GetOptions::new().with_range(Some(0..HEADER_BYTES as u64));
        let header = self.inner.get_opts(location, options).await?;
        let header = header.bytes().await?;
        self.hold(location, &header).await
    }

    fn held(&self, location: &Path) -> Option<Arc<ObjectKey>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(location).cloned()
    }

    /// The key of the object with this header, which is held from now on.
    async fn hold(&self, location: &Path, header: &[u8]) -> Result<Arc<ObjectKey>> {
        let damaged = |error| failed(Failure::Damaged(error));
        let header = Header::decode(header).map_err(damaged)?;
        let data_key = self.ring.key(header.key).await.map_err(failed)?;
        let key = ObjectKey::for_existing(&data_key, location.as_ref(), header);
        let key = Arc::new(key.map_err(damaged)?);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_HELD_MAX {
            keys.clear();
        }
        keys.insert(location.clone(), key.clone());
        Ok(key)
    }
}

/// Opens chunks that lie one after the other in an object of this stored size.
fn open_chunks(
    key: &ObjectKey,
    chunks: Range<u64>,
    mut sealed: BytesMut,
    stored_size: u64,
) -> Result<Bytes, Failure> {
    let mut plain = BytesMut::with_capacity(sealed.len());
    for chunk in chunks {
        if sealed.is_empty() {
            break;
        }
        let mut bytes = sealed.split_to(SEALED_CHUNK_BYTES.min(sealed.len()));
        let is_last = stored_offset(chunk).saturating_add(bytes.len() as u64) == stored_size;
        let opened = key.open_chunk(chunk, is_last, &mut bytes);
        plain.extend_from_slice(opened.map_err(Failure::Damaged)?);
    }
    Ok(plain.freeze())
}

/// Where plain bytes from `start` on begin in those of its chunk.
fn offset_in(start: u64, length: usize) -> usize {
    let offset = start % CHUNK_BYTES as u64;
    usize::try_from(offset).unwrap_or(usize::MAX).min(length)
}

async fn collect(stored: GetResult, expected: u64) -> Result<BytesMut> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(expected).unwrap_or_default());
    let mut body = stored.into_stream();
    while let Some(piece) = body.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    match bytes.len() as u64 == expected {
        true => Ok(bytes),
        false => Err(failed(Failure::Unavailable(format!(
            "the answer broke off after {} of {expected} bytes",
            bytes.len()
        )))),
    }
}

/// A failure on its way through the traits of the store.
pub(super) fn failed(failure: Failure) -> Error {
    Error::Generic {
        store: "sealed",
        source: Box::new(failure),
    }
}

fn is_damage(error: &Error) -> bool {
    let Error::Generic { source, .. } = error else {
        return false;
    };
    matches!(source.downcast_ref(), Some(Failure::Damaged(_)))
}

fn plain_meta(stored: &ObjectMeta) -> Result<ObjectMeta> {
    let size = plain_size(stored.size);
    Ok(ObjectMeta {
        size: size.map_err(|error| failed(Failure::Damaged(error)))?,
        ..stored.clone()
    })
}

/// As it stands in a listing, where an object that was cut must not hide the others.
fn listed(stored: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        size: plain_size(stored.size).unwrap_or(0),
        ..stored
    }
}

fn is_visible(meta: &ObjectMeta) -> bool {
    !is_of_keyring(meta.location.as_ref())
}

#[async_trait]
impl ObjectStore for SealedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let key = self.new_key(location).await;
        let size = payload.content_length();
        let plain = Bytes::from(payload);
        let seal = move || key.seal(&plain);
        let sealed = match size > INLINE_BYTES_MAX {
            true => self.ring.rt().blocking(seal).await,
            false => seal(),
        };
        self.inner.put_opts(location, sealed.into(), options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, options).await?;
        let key = self.new_key(location).await;
        Ok(Box::new(SealedUpload::new(inner, key)))
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        if options.head {
            let stored = self.inner.get_opts(location, options).await?;
            let meta = plain_meta(&stored.meta)?;
            return Ok(GetResult {
                range: 0..meta.size,
                meta,
                ..stored
            });
        }
        match options.range.take() {
            None => self.whole(location, options).await,
            Some(GetRange::Bounded(range)) if !range.is_empty() => {
                self.range(location, range, options).await
            }
            Some(_) => Err(not_implemented("reading from or up to somewhere")),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let objects = self.inner.list(prefix);
        objects
            .try_filter(|meta| future::ready(is_visible(meta)))
            .map_ok(listed)
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let objects = self.inner.list_with_offset(prefix, offset);
        objects
            .try_filter(|meta| future::ready(is_visible(meta)))
            .map_ok(listed)
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects.retain(is_visible);
        found.objects = found.objects.into_iter().map(listed).collect();
        Ok(found)
    }

    /// A copy would not open under its new name.
    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(not_implemented("copying"))
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "sealed".to_owned(),
    }
}

impl fmt::Display for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed {}", self.inner)
    }
}

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedStore({})", self.inner)
    }
}
