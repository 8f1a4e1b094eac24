//! # What it does
//! Restores keys without schemas: `restore raw` and `restore txn`.
//!
//! # Ordering and invariants
//! The range has to be empty, so that keys of the backup and others do not mix. Then data goes in
//! while PD holds still. Keys of transactions get a new timestamp: with those of the backup they
//! would lie below whatever was deleted here since, and not be seen. (The official tool leaves them
//! there.)
//!
//! # Cancellation and failure
//! What was paused is let go. The keys that were brought in stay for the same command to go on with
//! ([`super::resume`]); they are deleted, as there were no others, if the error would come again.
//!
//! # After a crash
//! Keys that were brought in stay; the pauses end by themselves.

use br_cluster::{RawLayout, StoreConfig};
use br_codec::ApiVersion;
use br_format::backupmeta::{Content, DataFile};
use br_proto::kvrpcpb;
use br_rt::CancellationToken;
use br_types::{Cf, Classify, KeyRange, Kind, RawKey, StoreId};

use super::{
    RestoreSummary, RestoreTarget, checks, cleanup,
    error::RestoreError,
    key_form::FileKeys,
    options::{RestoreOptions, Scope},
    pause::{Pause, PauseScope},
    pipeline::{self, Pipeline},
    plan::RestorePlan,
    resume::{Claim, Extent, Origin, RangeRecord, Registration, Resume, task_of},
    source::Source,
};

/// What is restored, once the backup and the cluster are known.
struct Keys {
    source: Source,
    file_keys: FileKeys,
    /// The wanted keys, as data files name keys.
    range: KeyRange<RawKey>,
    /// `None` for transactional keys.
    raw: Option<RawKeys>,
}

/// What is particular to raw keys.
struct RawKeys {
    layout: RawLayout,
    cf: Cf,
}

/// Reads the backup and the cluster, and decides.
///
/// # Errors
/// The backup cannot be restored here.
pub(super) async fn plan(
    target: &RestoreTarget,
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreError> {
    let keys = open(target, options).await?;
    add_up(&keys).await
}

/// Restores.
///
/// # Errors
/// [`RestoreError`]; the keys of the backup are gone then, unless deleting them failed too.
pub(super) async fn restore(
    target: &RestoreTarget,
    options: &RestoreOptions,
) -> Result<RestoreSummary, RestoreError> {
    let cluster = &target.cluster;
    let keys = open(target, options).await?;
    let task = task_of(&Origin::of(&keys.source), options);
    let claim = Claim {
        title: options.title(),
        task: &task,
        is_whole: keys.raw.is_none() && !options.online,
    };
    let work = Box::pin(restore_registered(target, options, &keys));
    Box::pin(Registration::with(cluster, claim, work)).await
}

async fn restore_registered(
    target: &RestoreTarget,
    options: &RestoreOptions,
    keys: &Keys,
) -> Result<RestoreSummary, RestoreError> {
    let mut resume = match options.use_resume {
        true => {
            let origin = Origin::of(&keys.source);
            Some(Resume::open(&target.cluster, options, &origin, None).await?)
        }
        false => None,
    };
    let outcome = carry_out(target, options, keys, resume.as_mut()).await;
    match (resume, &outcome) {
        (None, _) => {}
        (Some(resume), Ok(_)) => resume.remove().await,
        (Some(resume), Err(_)) => resume.leave().await,
    }
    outcome
}

async fn carry_out(
    target: &RestoreTarget,
    options: &RestoreOptions,
    keys: &Keys,
    mut resume: Option<&mut Resume>,
) -> Result<RestoreSummary, RestoreError> {
    let cluster = &target.cluster;
    let plan = add_up(keys).await?;
    if plan.files.files == 0 {
        return Err(RestoreError::NothingSelected {
            what: options.wanted(),
        });
    }
    if resume.as_ref().is_none_or(|resume| !resume.is_found()) {
        checks::has_space(target, plan.files.stored_bytes).await?;
        if options.check_requirements {
            check_empty(target, keys).await?;
        }
    }
    if keys.raw.is_none() {
        cluster.http().reset_ts(plan.backup_ts).await?;
    }
    let mut limits = pipeline::store_limits(cluster, options).await?;
    if let Some(resume) = &mut resume {
        limits.group = resume.group_limit().unwrap_or(limits.group);
        let origin = Origin::of(&keys.source);
        let what = Extent {
            range: Some(keys.range_record()),
            point: None,
        };
        resume
            .begin(options, &origin, &plan, limits.group, what)
            .await?;
    }
    let scope = match &keys.raw {
        _ if options.online => PauseScope::Nothing,
        Some(_) => PauseScope::Ranges(vec![keys.file_keys.form.encode_range(&keys.range)]),
        None => PauseScope::Cluster,
    };
    let pause = Pause::start(
        cluster.rt().clone(),
        cluster.pd(),
        cluster.http(),
        cluster.stores(),
        scope,
        options,
        resume.as_ref().and_then(|resume| resume.paused_before()),
    )
    .await?;
    let mut summary = RestoreSummary::default();
    let work = async {
        if let Some(resume) = &mut resume {
            resume.note_paused(pause.paused_in_pd()).await?;
        }
        let progress = resume.as_ref().map(|resume| resume.progress());
        let mut object = 0;
        let mut pipeline =
            Pipeline::new(target, options, keys.file_keys, limits, plan.files.files)?;
        if keys.raw.is_none() {
            pipeline = pipeline.at(cluster.pd().tso().await?);
        }
        keys.source
            .data_files(async |files| {
                let files = files
                    .into_iter()
                    .filter_map(|file| wanted(keys, file))
                    .collect();
                let done = progress.map(|progress| (object, progress));
                object += 1;
                pipeline.bring_in(files, |_| None, done, &mut summary).await
            })
            .await
    };
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        () = cluster.cancel().cancelled() => Err(RestoreError::Cancelled),
    };
    pause.undo().await;
    if let Err(error) = outcome {
        let is_final = matches!(error.kind(), Kind::Data | Kind::Invalid | Kind::Internal);
        // Without the check, keys of others may be among them.
        if options.check_requirements && (is_final || resume.is_none()) {
            delete_brought_in(target, keys).await;
            if let Some(resume) = resume {
                resume.set_undone();
            }
        }
        return Err(error);
    }
    summary.plan = plan;
    Ok(summary)
}

impl Keys {
    /// Where the keys go, for whoever gives the restore up.
    fn range_record(&self) -> RangeRecord {
        RangeRecord {
            start: hex::encode(self.range.start.as_bytes()),
            end: hex::encode(self.range.end.as_bytes()),
            raw_api_version: self.raw.as_ref().map(|raw| raw.layout.version() as u32),
        }
    }
}

async fn open(target: &RestoreTarget, options: &RestoreOptions) -> Result<Keys, RestoreError> {
    checks::stores_can_read(target).await?;
    let source = Source::open(target.storage.clone(), options).await?;
    match (&options.scope, &source.meta.head.content) {
        (Scope::Txn, Content::Txn) => {
            // Keys of transactions tell nothing of the version, so it is that of the stores.
            let of_stores = store_api_versions(target).await?;
            let version = of_stores
                .first()
                .map_or(ApiVersion::V1, |(_, known)| *known);
            Ok(Keys {
                range: range_of_files(&source).await?,
                source,
                file_keys: FileKeys::transactional(version),
                raw: None,
            })
        }
        (Scope::Raw { range, cf }, Content::Raw(ranges)) => {
            if !ranges.iter().any(|saved| saved.cf == *cf) {
                return Err(RestoreError::NothingSelected {
                    what: format!("column family {cf}"),
                });
            }
            let version = api_version(source.meta.head.api_version)?;
            check_api_version(target, version).await?;
            let layout = RawLayout::all_keyspaces(version);
            let range = layout.wire_range(range);
            check_raw_range(version, &range)?;
            let raw = RawKeys { layout, cf: *cf };
            Ok(Keys {
                source,
                file_keys: FileKeys::raw(version),
                range,
                raw: Some(raw),
            })
        }
        (scope, content) => {
            let (found, command) = match content {
                Content::Tables => ("tables", "br restore full"),
                Content::Txn => ("transactional keys without schemas", "br restore txn"),
                Content::Raw(_) => ("raw keys", "br restore raw"),
            };
            let wanted = match scope {
                Scope::Raw { .. } => "raw keys",
                _ => "transactional keys without schemas",
            };
            Err(RestoreError::WrongContent {
                found,
                wanted,
                command,
            })
        }
    }
}

/// From the first key to the last of what was backed up: what lies before or behind it is of others.
async fn range_of_files(source: &Source) -> Result<KeyRange<RawKey>, RestoreError> {
    let mut range: Option<KeyRange<RawKey>> = None;
    source
        .data_files(async |files| {
            for KeyRange { start, end } in files.into_iter().map(|file| file.range) {
                let known = range.get_or_insert_with(|| KeyRange {
                    start: start.clone(),
                    end: end.clone(),
                });
                if !known.is_before_end(&end) || end.is_empty() {
                    known.end = end;
                }
                if start < known.start {
                    known.start = start;
                }
            }
            Ok(())
        })
        .await?;
    Ok(range.unwrap_or_default())
}

/// In V2, raw keys begin with `r`; the keys of a range that does not would be those of others.
fn check_raw_range(version: ApiVersion, range: &KeyRange<RawKey>) -> Result<(), RestoreError> {
    let all = RawLayout::all_keyspaces(version).wire_range(&KeyRange::default());
    if all.covers(range) {
        return Ok(());
    }
    Err(RestoreError::NotRawKeys {
        range: range.clone(),
    })
}

fn api_version(version: kvrpcpb::ApiVersion) -> Result<ApiVersion, RestoreError> {
    ApiVersion::from_number(version as i32).ok_or_else(|| RestoreError::Version {
        what: format!("the backup has raw keys of API version {version:?}, which is not known"),
    })
}

/// Values of another API version would be read as something else than they are.
async fn check_api_version(
    target: &RestoreTarget,
    of_backup: ApiVersion,
) -> Result<(), RestoreError> {
    for (store, of_store) in store_api_versions(target).await? {
        if of_store != of_backup {
            let what = format!(
                "the backup holds raw keys of API version {}, and store {store} has {}",
                name_of(of_backup),
                name_of(of_store)
            );
            return Err(RestoreError::Version { what });
        }
    }
    Ok(())
}

/// The API versions of the stores whose configuration can be read.
async fn store_api_versions(
    target: &RestoreTarget,
) -> Result<Vec<(StoreId, ApiVersion)>, RestoreError> {
    let mut versions = Vec::new();
    for store in target.cluster.pd().live_stores().await? {
        let status = target.cluster.store_status();
        let Ok(config) = status.config(&store.status_address).await else {
            continue;
        };
        let version = match config {
            StoreConfig {
                api_version: Some(2),
                ..
            } => ApiVersion::V2,
            StoreConfig {
                ttl_enabled: Some(true),
                ..
            } => ApiVersion::V1Ttl,
            _ => ApiVersion::V1,
        };
        versions.push((StoreId(store.id), version));
    }
    Ok(versions)
}

fn name_of(version: ApiVersion) -> &'static str {
    match version {
        ApiVersion::V1 => "1",
        ApiVersion::V1Ttl => "1 with TTL",
        ApiVersion::V2 => "2",
    }
}

/// The part of a file that is wanted: its name stays, its range shrinks.
fn wanted(keys: &Keys, file: DataFile) -> Option<DataFile> {
    if keys.raw.as_ref().is_some_and(|raw| raw.cf != file.cf) {
        return None;
    }
    let range = file.range.intersect(&keys.range)?;
    Some(DataFile { range, ..file })
}

async fn add_up(keys: &Keys) -> Result<RestorePlan, RestoreError> {
    let mut plan = RestorePlan {
        backup_ts: keys.source.meta.head.backup_ts,
        ..RestorePlan::default()
    };
    keys.source
        .data_files(async |files| {
            for file in files.into_iter().filter_map(|file| wanted(keys, file)) {
                plan.files.files += 1;
                plan.files.stored_bytes += file.size_bytes;
                plan.files.kvs += file.stats.total_kvs;
                plan.files.kv_bytes += file.stats.total_bytes;
            }
            Ok(())
        })
        .await?;
    Ok(plan)
}

async fn check_empty(target: &RestoreTarget, keys: &Keys) -> Result<(), RestoreError> {
    let cluster = &target.cluster;
    let found = match &keys.raw {
        // Other column families of raw data cannot be scanned by the client; nobody uses them.
        Some(raw) if raw.cf != Cf::Default => None,
        Some(raw) => {
            let client = cluster.raw(raw.layout.version()).with_layout(raw.layout);
            let pairs = client.scan(&keys.range, 1).await?;
            pairs.into_iter().next().map(|(key, _)| key)
        }
        None => {
            let snapshot = cluster.snapshot(cluster.pd().tso().await?);
            snapshot
                .scan_all(&keys.range, 1)
                .await?
                .into_iter()
                .next()
                .map(|(key, _)| key)
        }
    };
    match found {
        Some(key) => Err(RestoreError::KeysExist {
            key: key.to_string(),
        }),
        None => Ok(()),
    }
}

/// Deletes what a failed restore brought in. Failing is only told.
async fn delete_brought_in(target: &RestoreTarget, keys: &Keys) {
    // The restore's own token may be the reason for being here.
    let cluster = target.cluster.with_cancel(&CancellationToken::new());
    let deleted = match &keys.raw {
        Some(raw) => {
            let client = cluster.raw(raw.layout.version()).with_layout(raw.layout);
            client.delete_range(&keys.range).await
        }
        None => cleanup::delete_range(&cluster, keys.file_keys.form, keys.range.clone()).await,
    };
    if let Err(error) = deleted {
        tracing::warn!(%error, "keys of the failed restore were left behind");
    }
}
