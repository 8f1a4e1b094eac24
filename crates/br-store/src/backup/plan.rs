use br_codec::ApiVersion;
use br_proto::{backup, encryptionpb::EncryptionMethod, kvrpcpb::Context};
use br_sst::Compression;
use br_storage::Backend;
use br_types::{Cf, EncodedKey, KeyRange, RawKey, TimeStamp};
use tonic::Status;

use super::{error::message, form::Form};
use crate::mvcc::ReadContext;

/// What a backup request asks for, checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) form: Form,
    /// The column family of raw data.
    pub(super) raw_cf: Cf,
    /// Disjoint or not, as the client sent them.
    pub(super) ranges: Vec<KeyRange<EncodedKey>>,
    /// Versions at or below it are left out; zero for a full backup.
    pub(super) start_ts: TimeStamp,
    /// The newest versions that are read, and whose locks do not count: transactions that the
    /// client found to be above the backup or rolled back.
    pub(super) read: ReadContext,
    pub(super) compression: Compression,
    /// `None`: not encrypted.
    pub(super) cipher: Option<backup::CipherInfo>,
    /// Bytes a second over all files; 0 is no limit.
    pub(super) bytes_per_s: u64,
    pub(super) backend: Backend,
    /// Follower regions too.
    pub(super) any_replica: bool,
}

/// A request that cannot be served.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The call fails.
    Status(Status),
    /// One answer that has only an error, then the end.
    Error(Box<backup::Error>),
}

impl Refusal {
    /// An answer that has only a text.
    pub(super) fn message(text: impl ToString) -> Refusal {
        Refusal::Error(Box::new(message(text)))
    }
}

impl Plan {
    /// Checks a request.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) fn new(
        request: backup::BackupRequest,
        store_version: ApiVersion,
    ) -> Result<Plan, Refusal> {
        let raw_cf = Cf::from_name(&request.cf).ok_or_else(|| {
            Refusal::Status(Status::unknown(format!("Invalid cf {}", request.cf)))
        })?;
        if request.mode() != backup::BackupMode::Scan {
            let text = "only backups by scan are supported".to_owned();
            return Err(Refusal::Status(Status::unimplemented(text)));
        }
        let compression = compression(&request);
        let form = ApiVersion::from_number(request.dst_api_version)
            .and_then(|version| Form::new(request.is_raw_kv, store_version, version));
        let raw_ranges = ranges(&request);
        let Some(form) = form.filter(|form| raw_ranges.iter().all(|range| form.allows(range)))
        else {
            return Err(Refusal::message(format!(
                "invalid backup version, cur: {store_version:?}, dst: {:?}",
                request.dst_api_version()
            )));
        };
        let backend = request
            .storage_backend
            .as_ref()
            .ok_or(br_storage::BackendError::Missing);
        let backend = backend
            .and_then(Backend::from_proto)
            .map_err(Refusal::message)?;
        let plain = [EncryptionMethod::Unknown, EncryptionMethod::Plaintext];
        // Always snapshot isolation, whatever the context says. Locks of committed transactions are
        // not read through, for a backup has to hold their records.
        let read = Context {
            resolved_locks: request.context.unwrap_or_default().resolved_locks,
            ..Default::default()
        };
        Ok(Plan {
            form,
            raw_cf,
            ranges: raw_ranges
                .iter()
                .map(|range| form.encode_range(range))
                .collect(),
            start_ts: TimeStamp(request.start_version),
            read: ReadContext::new(TimeStamp(request.end_version), Some(&read)),
            compression,
            cipher: request
                .cipher_info
                .filter(|info| !plain.contains(&info.cipher_type())),
            bytes_per_s: request.rate_limit,
            backend,
            any_replica: request.replica_read,
        })
    }
}

/// The wanted ranges: the sub ranges if there are any, else the one range.
fn ranges(request: &backup::BackupRequest) -> Vec<KeyRange<RawKey>> {
    if request.sub_ranges.is_empty() {
        return vec![KeyRange::new(
            request.start_key.as_slice(),
            request.end_key.as_slice(),
        )];
    }
    let range = |range: &br_proto::kvrpcpb::KeyRange| {
        KeyRange::new(&range.start_key[..], &range.end_key[..])
    };
    request.sub_ranges.iter().map(range).collect()
}

/// A request without a wish gets LZ4, the first that the official store supports.
fn compression(request: &backup::BackupRequest) -> Compression {
    match request.compression_type() {
        backup::CompressionType::Unknown | backup::CompressionType::Lz4 => Compression::Lz4,
        backup::CompressionType::Snappy => Compression::Snappy,
        backup::CompressionType::Zstd => Compression::Zstd {
            level: request.compression_level,
        },
    }
}
