//! From files that wait to data in the engine.

use br_codec::ApiVersion;
use br_proto::{
    errorpb,
    import_sstpb::{IngestResponse, SstMeta},
    kvrpcpb::Context,
};
use br_types::{EncodedKey, RegionId};
use tonic::Status;

use super::{
    Importer,
    staged::{TakeError, cf_of},
};
use crate::{
    context::StoreContext,
    region_check::{Reject, check_exact_epoch, epoch_not_match, key_not_in_region, server_is_busy},
    topology::RegionState,
};

/// Takes the files of one region in, all or nothing.
///
/// # Errors
/// A status when the store is down or the request is for another cluster; everything else stands
/// in the answer.
pub(super) async fn ingest(
    store: &StoreContext,
    context: Option<Context>,
    metas: Vec<SstMeta>,
) -> Result<IngestResponse, Status> {
    if metas.is_empty() {
        // Clients probe with it whether several files at once are supported.
        return Ok(IngestResponse::default());
    }
    match try_ingest(store, &context.unwrap_or_default(), &metas).await {
        Ok(()) => Ok(IngestResponse::default()),
        Err(Reject::Region(error)) => Ok(IngestResponse {
            error: Some(*error),
        }),
        Err(Reject::Status(status)) => Err(status),
    }
}

async fn try_ingest(
    store: &StoreContext,
    context: &Context,
    metas: &[SstMeta],
) -> Result<(), Reject> {
    let importer: &Importer = &store.importer;
    if let Some(left) = importer.suspension.remaining() {
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        return Err(refuse(server_is_busy(
            &format!("imports are suspended for {left:?}"),
            left_ms,
        )));
    }
    check(store, context, metas)?;
    let taken = importer
        .staged
        .take(metas)
        .map_err(|error| refuse(take_error(error)))?;
    // A file of which nothing was left for the region has nothing to take in.
    let files: Vec<_> = taken
        .files
        .iter()
        .filter(|file| file.range.is_some())
        .map(|file| (file.cf, file.path.clone()))
        .collect();
    // Writers wait: what they read before they write must not change under them. The region is
    // looked at again, for it may have been split while they were waited for.
    let latches = store.storage.lock_all().await;
    check(store, context, metas)?;
    let engine = store.engine().clone();
    let result = store
        .rt
        .blocking(move || {
            let _latches = latches;
            engine.ingest(&files)
        })
        .await;
    match result {
        Ok(()) => {
            taken.ingested();
            Ok(())
        }
        Err(error) => {
            tracing::error!(region = context.region_id, %error, "cannot take files in");
            Err(refuse(
                crate::mvcc::engine_region_error(&error).unwrap_or_else(|| {
                    message(format!(
                        "[region {}] ingest failed: {error}",
                        context.region_id
                    ))
                }),
            ))
        }
    }
}

/// Leadership, exactly this epoch, and every file inside the region.
fn check(store: &StoreContext, context: &Context, metas: &[SstMeta]) -> Result<(), Reject> {
    let state = check_exact_epoch(store, context)?;
    for meta in metas {
        check_meta(store, &state, meta).map_err(refuse)?;
    }
    Ok(())
}

fn check_meta(
    store: &StoreContext,
    state: &RegionState,
    meta: &SstMeta,
) -> Result<(), errorpb::Error> {
    cf_of(meta).map_err(|error| message(error.to_string()))?;
    if RegionId(meta.region_id) != state.id() {
        let text = format!(
            "the file is for region {}, not {}",
            meta.region_id,
            state.id()
        );
        return Err(message(text));
    }
    if meta.region_epoch != state.region.region_epoch {
        return Err(epoch_not_match(store, state, std::iter::empty()));
    }
    let range = meta.range.clone().unwrap_or_default();
    let region = state.range();
    for key in [range.start, range.end] {
        let key = EncodedKey::from(key);
        if !region.contains(&key) {
            return Err(key_not_in_region(&key, &state.region));
        }
    }
    if !fits_api_version(store.api_version(), meta) {
        return Err(message(
            "Importing a SST file with imcompatible api version".to_owned(),
        ));
    }
    Ok(())
}

/// Whether a file's keys and values mean on the store what they mean in the file.
fn fits_api_version(of_store: ApiVersion, meta: &SstMeta) -> bool {
    let of_file = ApiVersion::from_number(meta.api_version);
    match (of_store, of_file) {
        (of_store, Some(of_file)) if of_store == of_file => true,
        // A client that does not know whether values expire says V1.
        (ApiVersion::V1Ttl, Some(ApiVersion::V1)) => true,
        (ApiVersion::V1, Some(ApiVersion::V1Ttl)) => false,
        // Keys of TiDB are the same in V1 and V2.
        _ => meta.range.as_ref().is_some_and(|range| {
            let is_tidb = |key: &[u8]| matches!(key.first(), Some(b'm' | b't'));
            is_tidb(&range.start) && is_tidb(&range.end)
        }),
    }
}

fn take_error(error: TakeError) -> errorpb::Error {
    match error {
        TakeError::Conflict => message("ingest file conflict".to_owned()),
        TakeError::Missing => errorpb::Error {
            stale_command: Some(errorpb::StaleCommand::default()),
            ..message("The file which would be ingested doest not exist.".to_owned())
        },
    }
}

fn message(message: String) -> errorpb::Error {
    errorpb::Error {
        message,
        ..Default::default()
    }
}

fn refuse(error: errorpb::Error) -> Reject {
    Reject::Region(Box::new(error))
}

#[cfg(test)]
mod tests {
    use br_proto::import_sstpb::Range;

    use super::*;

    #[test]
    fn files_of_another_api_version_hold_keys_of_tidb_only() {
        use ApiVersion::{V1, V1Ttl, V2};
        let fits = |of_store, of_file: ApiVersion, start: &[u8], end: &[u8]| {
            let meta = SstMeta {
                api_version: of_file as i32,
                range: Some(Range {
                    start: start.to_vec(),
                    end: end.to_vec(),
                }),
                ..Default::default()
            };
            fits_api_version(of_store, &meta)
        };
        for version in [V1, V1Ttl, V2] {
            assert!(fits(version, version, b"a", b"z"));
        }
        assert!(fits(V1Ttl, V1, b"a", b"z"));
        assert!(!fits(V1, V1Ttl, b"t1", b"t2"));
        for (of_store, of_file) in [(V1, V2), (V2, V1), (V2, V1Ttl), (V1Ttl, V2)] {
            assert!(fits(of_store, of_file, b"m", b"t9"));
            assert!(!fits(of_store, of_file, b"t1", b"x"));
            assert!(!fits(of_store, of_file, b"r", b"t1"));
        }
    }
}
