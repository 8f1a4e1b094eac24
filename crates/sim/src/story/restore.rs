//! Restores into another cluster: of the backup alone, and of what was claimed.

use std::{cell::Cell, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_log::restore::{Method, PointError, PointOptions, PointTarget};
use br_rt::{Progress, Rt, Silent};
use br_snapshot::restore::{RestoreError, RestoreOptions, RestoreTarget, Scope};
use br_storage::SendCredentials;
use br_types::TimeStamp;
use rand::{RngExt as _, rngs::StdRng};

use super::{
    elsewhere::Elsewhere,
    history::{Backup, Claim, DB, History, filter},
    log_care,
};
use crate::{operator::Operator, trace::Trace, weather::Weather, world::World};

/// Far less than a log of a story needs.
const SORT_MEMORY_BYTES_LITTLE: usize = 64 << 10;

/// Restores the backup and, if there is one, the incremental one that goes on from it; compares.
pub(super) async fn restore_backup(
    rt: &Rt,
    trace: &Trace,
    history: &History,
    weather: &Weather,
    rng: &mut StdRng,
) -> Result<()> {
    trace.note(format_args!("restore the backup, {} weather", weather.name));
    let mut elsewhere = Box::pin(Elsewhere::start(rt, weather, rng)).await?;
    let operator = Operator {
        rt,
        trace,
        kills: true,
        corruption: weather.corrupts(),
    };
    let mut last = &history.full;
    last.place.set_faults(&weather.storage);
    let target = full_target(rt, &elsewhere.world, last).await?;
    let options = table_options(rng)?;
    let work = async |rng: &mut StdRng| {
        let runs = Cell::new(0);
        let command = async || {
            runs.set(runs.get() + 1);
            let restore = br_snapshot::restore::restore(&target, &options);
            match Box::pin(restore).await {
                // An earlier run was killed, or lost sight of PD, right after the last step; or
                // another one has done it.
                Err(RestoreError::TablesExist { .. }) if runs.get() > 1 => Ok(()),
                done => done.map(drop),
            }
        };
        operator.run_by_some("restore", rng, command).await
    };
    elsewhere.disturbed(trace, rng, work).await?;
    if let Some(increment) = &history.increment {
        last = increment;
        last.place.set_faults(&weather.storage);
        let target = full_target(rt, &elsewhere.world, last).await?;
        // By one: in a cluster with other ids it cannot be told that it was restored before.
        let work = async |rng: &mut StdRng| {
            let command = async || {
                let restore = br_snapshot::restore::restore(&target, &options);
                Box::pin(restore).await.map(drop)
            };
            operator.run("restore increment", rng, command).await
        };
        let done = elsewhere.disturbed(trace, rng, work).await;
        done.context("the increment")?;
    }
    elsewhere.compare(rt, trace, history, last.backup_ts).await
}

/// Restores the claim itself, or a point between it and the backup, and compares.
pub(super) async fn restore_claim(
    rt: &Rt,
    trace: &Trace,
    history: &History,
    claim: &Claim,
    weather: &Weather,
    rng: &mut StdRng,
) -> Result<()> {
    let at = if rng.random() {
        claim.checkpoint_ts
    } else {
        TimeStamp(rng.random_range(history.full.backup_ts.0..=claim.checkpoint_ts.0))
    };
    let what = format!("at {at}, claimed {}", claim.checkpoint_ts);
    trace.note(format_args!("restore {what}, {} weather", weather.name));
    let mut elsewhere = Box::pin(Elsewhere::start(rt, weather, rng)).await?;
    let operator = Operator {
        rt,
        trace,
        kills: true,
        corruption: weather.corrupts(),
    };
    claim.log.set_faults(&Weather::fair().storage);
    let is_compacted = log_care::take_care(rt, &operator, history, claim, rng).await?;
    history.full.place.set_faults(&weather.storage);
    claim.log.set_faults(&weather.storage);
    let target = point_target(rt, &elsewhere.world, &history.full, claim).await?;
    // Of its own: other runs of this process would take it for that of a dead process.
    let scratch = tempfile::tempdir()?;
    // Stores read no compactions.
    let options = point_options(at, !is_compacted, scratch.path(), rng)?;
    let work = async |rng: &mut StdRng| {
        let runs = Cell::new(0);
        let command = async || {
            runs.set(runs.get() + 1);
            let restore = br_log::restore::restore(&target, &options);
            match Box::pin(restore).await {
                Err(PointError::Restore(RestoreError::TablesExist { .. })) if runs.get() > 1 => {
                    Ok(())
                }
                done => done.map(drop),
            }
        };
        operator.run_by_some("restore point", rng, command).await
    };
    let done = elsewhere.disturbed(trace, rng, work).await;
    done.with_context(|| what.clone())?;
    let compared = elsewhere.compare(rt, trace, history, at).await;
    compared.context(what)
}

async fn full_target(rt: &Rt, world: &World, backup: &Backup) -> Result<RestoreTarget> {
    Ok(RestoreTarget {
        cluster: world.client.clone(),
        storage: backup.place.open(rt).await?,
        backend: backup.place.backend.clone(),
        progress: Arc::new(Silent),
    })
}

async fn point_target(rt: &Rt, world: &World, base: &Backup, claim: &Claim) -> Result<PointTarget> {
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    Ok(PointTarget {
        cluster: world.client.clone(),
        full: Some(full_target(rt, world, base).await?),
        log: claim.log.open(rt).await?,
        log_backend: claim.log.backend.clone(),
        ssts: Arc::new(RocksSstFiles::new(SstOptions {
            compression: SstCompression::Lz4,
            level: 0,
        })),
        progress,
    })
}

fn table_options(rng: &mut StdRng) -> Result<RestoreOptions> {
    let mut options = RestoreOptions::new(Scope::Full {
        filter: filter(&format!("{DB}.*"))?,
        is_explicit: true,
    });
    options.checksum = rng.random();
    Ok(options)
}

fn point_options(
    at: TimeStamp,
    applies: bool,
    temp_dir: &Path,
    rng: &mut StdRng,
) -> Result<PointOptions> {
    let mut options = PointOptions {
        restored_ts: Some(at),
        temp_dir: temp_dir.to_owned(),
        ..PointOptions::new(table_options(rng)?)
    };
    if rng.random() {
        // Everything goes through files.
        options.sort_memory_bytes = SORT_MEMORY_BYTES_LITTLE;
        options.files_held_max = 2;
    }
    if applies && rng.random_bool(0.25) {
        options.method = Method::Apply {
            batch_files: 8,
            batch_bytes: 1 << 20,
            concurrency: 4,
            send_credentials: SendCredentials::Yes,
        };
    }
    Ok(options)
}
