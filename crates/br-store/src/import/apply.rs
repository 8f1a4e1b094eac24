//! Events of log files, written into one region key by key: what a restore does that has no room
//! to sort them.
//!
//! Source: `import_sstpb.ApplyRequest`; TiKV `sst_service.rs`, `sst_importer.rs`,
//! `raft_writer.rs`. Unlike there, every version of a key is written, so that no value is left
//! without its record.

use br_codec::{WriteKind, WriteRef, key};
use br_format::{
    crypter::{Crypter, Method},
    log::{
        LogFormatError, content,
        encryption::FileEncryption,
        file::{EventKind, FileIdentity, LogCompression, LogFile, Span},
        record::Records,
    },
};
use br_proto::{
    backup::{CipherInfo, CompressionType},
    encryptionpb::EncryptionMethod,
    import_sstpb::{ApplyRequest, ApplyResponse, Error, KvMeta, Range, RewriteRule},
    kvrpcpb::Context,
};
use br_storage::{MasterKeys, READS_OF_DAMAGED, Storage as ExternalStorage};
use br_types::{Cf, Classify, EncodedKey, KeyRange, Kind, RegionId, TableId, TimeStamp};
use bytes::Bytes;
use tonic::Status;

use super::error::ImportError;
use crate::{
    context::StoreContext,
    engine::Batch,
    region_check::{Reject, check_exact_epoch, server_is_busy},
};

/// Bytes of keys and values that are written at once, as TiKV proposes at most.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of the records of a file that are taken: a store flushes before a file is as long.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Marks a transaction as a physical import, which change feeds leave out.
const SOURCE_PHYSICAL_IMPORT: u64 = 1 << 16;

/// Why files could not be applied.
enum ApplyError {
    /// Stands in the answer's `store_error`.
    Region(Box<br_proto::errorpb::Error>),
    /// Stands in the answer as text.
    Import(ImportError),
    /// Ends the call.
    Status(Status),
}

impl From<Reject> for ApplyError {
    fn from(reject: Reject) -> ApplyError {
        match reject {
            Reject::Region(error) => ApplyError::Region(error),
            Reject::Status(status) => ApplyError::Status(status),
        }
    }
}

impl<E: Into<ImportError>> From<E> for ApplyError {
    fn from(error: E) -> ApplyError {
        ApplyError::Import(error.into())
    }
}

/// Writes the wanted events of the files of a request.
///
/// # Errors
/// A status when the store is down; everything else stands in the answer. Events of the first
/// files may have been written then; writing them again changes nothing.
pub(super) async fn apply(
    store: &StoreContext,
    request: ApplyRequest,
) -> Result<ApplyResponse, Status> {
    let error = match try_apply(store, &request).await {
        Ok(range) => {
            return Ok(ApplyResponse { range, error: None });
        }
        Err(ApplyError::Status(status)) => return Err(status),
        Err(ApplyError::Region(error)) => Error {
            message: error.message.clone(),
            store_error: Some(*error),
        },
        Err(ApplyError::Import(error)) => {
            tracing::warn!(%error, "cannot apply log files");
            error.to_proto()
        }
    };
    Ok(ApplyResponse {
        range: None,
        error: Some(error),
    })
}

async fn try_apply(
    store: &StoreContext,
    request: &ApplyRequest,
) -> Result<Option<Range>, ApplyError> {
    if store.importer.suspension.remaining().is_some() {
        let busy = server_is_busy("imports are suspended", 1000);
        return Err(ApplyError::Region(Box::new(busy)));
    }
    let context = request.context.clone().unwrap_or_default();
    check_exact_epoch(store, &context)?;
    let backend = request.storage_backend.as_ref();
    let storages = &store.importer.storages;
    let storage = storages
        .open(&store.rt, backend, "external storage")
        .await?;
    let crypter = crypter(request.cipher_info.as_ref())?;
    let master_keys = match request.master_keys.as_slice() {
        [] => None,
        keys => Some(MasterKeys::open(&store.rt, keys).await?),
    };
    let mut touched: Option<(Vec<u8>, Vec<u8>)> = None;
    for (meta, rule) in files(request)? {
        let mut work = FileWork::new(meta, rule)?;
        if let (Some(keys), Some(encryption)) = (&master_keys, &mut work.file.encryption) {
            keys.open_file_key(encryption).await?;
        }
        // As it is stored, and opened.
        let bytes = work.file.span.length.saturating_add(meta.length);
        let _room = store.importer.memory.room(bytes).await?;
        let mut reads = 0;
        let records;
        (work, records) = loop {
            let stored = fetch(store, &storage, meta, &work).await?;
            let crypter = crypter.clone();
            // Decompressing and summing take a while: off the threads that answer.
            let read = store
                .rt
                .blocking(move || {
                    let records = content::open(&work.name, &work.file, stored, &crypter);
                    (work, records)
                })
                .await;
            reads += 1;
            match read {
                (same, Err(error)) if error.kind() == Kind::Data && reads < READS_OF_DAMAGED => {
                    tracing::warn!(%error, "read again");
                    work = same;
                }
                read => break read,
            }
        };
        let records = records.map_err(damaged)?;
        write(store, &context, &work, &records, &mut touched).await?;
    }
    Ok(touched.map(|(start, end)| Range { start, end }))
}

/// The files with their rules; a request of the first clients has one of each.
fn files(request: &ApplyRequest) -> Result<Vec<(&KvMeta, RewriteRule)>, ImportError> {
    let (metas, rules): (Vec<_>, _) = match &request.meta {
        Some(meta) if request.metas.is_empty() => {
            (vec![meta], request.rewrite_rule.iter().collect())
        }
        _ => (
            request.metas.iter().collect(),
            request.rewrite_rules.iter().collect::<Vec<_>>(),
        ),
    };
    if !rules.is_empty() && rules.len() != metas.len() {
        let text = format!("{} files come with {} rules", metas.len(), rules.len());
        return Err(ImportError::Invalid(text));
    }
    let mut rules = rules.into_iter().cloned();
    let pair = |meta| (meta, rules.next().unwrap_or_default());
    Ok(metas.into_iter().map(pair).collect())
}

fn crypter(cipher: Option<&CipherInfo>) -> Result<Crypter, ImportError> {
    let Some(cipher) = cipher else {
        return Ok(Crypter::plaintext());
    };
    let method = match EncryptionMethod::try_from(cipher.cipher_type) {
        Ok(EncryptionMethod::Unknown | EncryptionMethod::Plaintext) => Method::Plaintext,
        Ok(EncryptionMethod::Aes128Ctr) => Method::Aes128Ctr,
        Ok(EncryptionMethod::Aes192Ctr) => Method::Aes192Ctr,
        Ok(EncryptionMethod::Aes256Ctr) => Method::Aes256Ctr,
        _ => return Err(crate::cipher::CipherError::Method(cipher.cipher_type).into()),
    };
    Crypter::new(method, &cipher.cipher_key)
        .map_err(|error| ImportError::Invalid(error.to_string()))
}

fn damaged(error: LogFormatError) -> ImportError {
    ImportError::Invalid(error.to_string())
}

/// What is to be done with one file.
struct FileWork {
    name: String,
    file: LogFile,
    rule: RewriteRule,
    /// The wanted timestamps, both inclusive.
    start_ts: TimeStamp,
    restore_ts: TimeStamp,
    /// The wanted keys of the cluster.
    range: KeyRange<EncodedKey>,
}

impl FileWork {
    fn new(meta: &KvMeta, rule: RewriteRule) -> Result<FileWork, ImportError> {
        let invalid = |text: String| ImportError::Invalid(format!("{}: {text}", meta.name));
        let cf = Cf::from_name(&meta.cf).filter(|cf| *cf != Cf::Lock);
        let cf = cf.ok_or_else(|| invalid(format!("column family {:?}", meta.cf)))?;
        let compression = match CompressionType::try_from(meta.compression_type) {
            Ok(CompressionType::Unknown) => LogCompression::None,
            Ok(CompressionType::Zstd) => LogCompression::Zstd,
            _ => return Err(invalid(format!("compression {}", meta.compression_type))),
        };
        if meta.length > FILE_BYTES_MAX {
            return Err(invalid(format!("{} bytes are too many", meta.length)));
        }
        let encryption = match meta.file_encryption_info.clone() {
            Some(info) => FileEncryption::from_proto(&meta.name, info).map_err(damaged)?,
            None => None,
        };
        let sha256 = meta.sha256.as_slice().try_into();
        let file = LogFile {
            identity: FileIdentity {
                is_schema: false,
                table: TableId(0),
                region: RegionId(0),
                cf,
                kind: match meta.is_delete {
                    true => EventKind::Delete,
                    false => EventKind::Put,
                },
            },
            entries: 0,
            min_ts: TimeStamp::ZERO,
            max_ts: TimeStamp::MAX,
            resolved_ts: TimeStamp::ZERO,
            min_begin_ts: TimeStamp::ZERO,
            first_key: Vec::new(),
            last_key: Vec::new(),
            length: meta.length,
            span: Span {
                offset: meta.range_offset,
                length: meta.range_length,
            },
            compression,
            encryption,
            crc64_xor: 0,
            sha256: sha256.map_err(|_| invalid("its SHA-256 is none".to_owned()))?,
            region_range: KeyRange::default(),
            region_epochs: Vec::new(),
        };
        Ok(FileWork {
            name: meta.name.clone(),
            file,
            rule,
            start_ts: TimeStamp(meta.start_ts),
            restore_ts: TimeStamp(meta.restore_ts),
            range: KeyRange::new(meta.start_key.clone(), meta.end_key.clone()),
        })
    }

    /// The key of the cluster; `None` if the event is not wanted.
    fn key(&self, old: &[u8]) -> Result<Option<Vec<u8>>, ImportError> {
        let (_, ts) = key::split_ts(old)?;
        if ts < self.start_ts || ts > self.restore_ts {
            return Ok(None);
        }
        let (from, to) = (&self.rule.old_key_prefix, &self.rule.new_key_prefix);
        let new = match old.strip_prefix(from.as_slice()) {
            Some(rest) => [to.as_slice(), rest].concat(),
            None => {
                let name = self.name.clone();
                let source = super::rewrite::RewriteError::WrongPrefix {
                    what: "Key in log",
                    key: br_types::RawKey::from(old),
                    prefix: br_types::RawKey::from(from.as_slice()),
                };
                return Err(ImportError::Rewrite { name, source });
            }
        };
        let (encoded, _) = key::split_ts(&new)?;
        let is_inside = self.range.contains(&EncodedKey::from(encoded));
        Ok(is_inside.then_some(new))
    }

    /// The value as it is written; `None` if the event is not wanted.
    fn value(&self, old: &[u8]) -> Result<Option<Vec<u8>>, ImportError> {
        if old.is_empty() {
            return Ok(None);
        }
        if self.file.identity.cf == Cf::Default {
            return Ok(Some(old.to_vec()));
        }
        let mut record = WriteRef::parse(old)?;
        record.txn_source |= SOURCE_PHYSICAL_IMPORT;
        Ok(match record.kind {
            WriteKind::Put | WriteKind::Delete => Some(record.to_bytes()),
            WriteKind::Lock | WriteKind::Rollback => None,
        })
    }
}

async fn fetch(
    store: &StoreContext,
    storage: &ExternalStorage,
    meta: &KvMeta,
    work: &FileWork,
) -> Result<Bytes, ImportError> {
    // Never closed, so there is always a permit to wait for.
    let _permit = store.importer.fetches.acquire().await;
    let span = work.file.span;
    let stored = match span.length {
        0 => storage.read(&meta.name).await,
        _ => {
            let end = span.offset.saturating_add(span.length);
            storage.read_range(&meta.name, span.offset..end).await
        }
    };
    stored.map_err(|source| ImportError::Storage {
        name: meta.name.clone(),
        source,
    })
}

/// Writes the wanted records of one file in batches, each while the region is still the one that
/// the client knows.
async fn write(
    store: &StoreContext,
    context: &Context,
    work: &FileWork,
    records: &[u8],
    touched: &mut Option<(Vec<u8>, Vec<u8>)>,
) -> Result<(), ApplyError> {
    let cf = work.file.identity.cf;
    let is_delete = work.file.identity.kind == EventKind::Delete;
    let mut batch = Batch::default();
    let mut bytes = 0;
    for record in Records::new(records) {
        let record = record?;
        if record.key.is_empty() {
            continue;
        }
        let Some(new) = work.key(record.key)? else {
            continue;
        };
        let data_key = key::data_key(&new).into_bytes();
        if is_delete {
            batch.delete(cf, data_key);
        } else {
            let Some(value) = work.value(record.value)? else {
                continue;
            };
            bytes += value.len();
            batch.put(cf, data_key, value);
        }
        bytes += new.len();
        match touched {
            None => *touched = Some((new.clone(), new)),
            Some((start, _)) if new < *start => *start = new,
            Some((_, end)) if new > *end => *end = new,
            Some(_) => {}
        }
        if bytes >= BATCH_BYTES_MAX {
            commit(store, context, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    commit(store, context, batch).await
}

async fn commit(store: &StoreContext, context: &Context, batch: Batch) -> Result<(), ApplyError> {
    if batch.is_empty() {
        return Ok(());
    }
    // As for an ingest: what writers have read stays true until they have written.
    let latches = store.storage.lock_all().await;
    check_exact_epoch(store, context)?;
    let storage = store.storage.clone();
    let written = store
        .rt
        .blocking(move || {
            let _latches = latches;
            storage.apply(batch)
        })
        .await;
    Ok(written?)
}
