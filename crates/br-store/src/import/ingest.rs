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
    let version = ApiVersion::from_number(meta.api_version);
    let is_tidb = matches!(
        meta.range.as_ref().and_then(|range| range.start.first()),
        Some(b'm' | b't')
    );
    if version != Some(store.api_version()) && !is_tidb {
        return Err(message(
            "Importing a SST file with imcompatible api version".to_owned(),
        ));
    }
    Ok(())
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
