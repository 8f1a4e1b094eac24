//! A restore of what was claimed, into another cluster.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_log::restore::{Method, PointOptions, PointTarget};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_snapshot::restore::{RestoreOptions, RestoreTarget, Scope};
use br_storage::SendCredentials;
use br_types::TimeStamp;
use br_workload::{Kinds, Workload, check};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    chaos::Chaos,
    history::{Claim, DB, History, filter, set_network},
};
use crate::{
    operator::Operator,
    trace::Trace,
    traces_left::PdState,
    weather::Weather,
    world::{World, draw_options},
};

/// Restores the claim itself, or a point between it and the backup, and compares.
pub(super) async fn restore(
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
        TimeStamp(rng.random_range(history.backup_ts.0..=claim.checkpoint_ts.0))
    };
    trace.note(format_args!(
        "restore at {at}, claimed {}, {} weather",
        claim.checkpoint_ts, weather.name
    ));
    set_network(rt, &Weather::fair());
    let mut world = Box::pin(World::start(draw_options(rt, rng))).await?;
    if rng.random() {
        // Their ids are taken.
        let kinds = Kinds::Wide { tables: 2 };
        Workload::create(&world.client, kinds, rng.random(), "others", None).await?;
    }
    let before = PdState::of(&world).await?;
    set_network(rt, weather);
    history.full.set_faults(&weather.storage);
    claim.log.set_faults(&weather.storage);
    let target = point_target(rt, &world, history, claim).await?;
    let options = point_options(at, rng)?;
    let chaos = Chaos::draw(rng);
    let mut chaos_rng = StdRng::seed_from_u64(rng.random());
    let stop = CancellationToken::new();
    let operator = Operator {
        rt,
        trace,
        kills: false,
    };
    let restored = async {
        let command = async || Box::pin(br_log::restore::restore(&target, &options)).await;
        let done = operator.run("restore", rng, command).await;
        stop.cancel();
        done
    };
    let chaos = chaos.run(&mut world, trace, &mut chaos_rng, &stop);
    let (restored, chaos) = futures::join!(Box::pin(restored), Box::pin(chaos));
    restored.with_context(|| format!("at {at}, claimed {}", claim.checkpoint_ts))?;
    chaos?;
    set_network(rt, &Weather::fair());
    let now = world.now().await?;
    let checked = check(&world.client, DB, &history.model, at, now).await;
    let checked = checked.with_context(|| format!("at {at}, claimed {}", claim.checkpoint_ts))?;
    trace.note(format_args!("equal: {checked:?}"));
    before
        .comes_back(&world)
        .await
        .context("the restored cluster")?;
    trace.note("nothing is left in PD");
    Ok(())
}

async fn point_target(
    rt: &Rt,
    world: &World,
    history: &History,
    claim: &Claim,
) -> Result<PointTarget> {
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    Ok(PointTarget {
        cluster: world.client.clone(),
        full: Some(RestoreTarget {
            cluster: world.client.clone(),
            storage: history.full.open(rt).await?,
            backend: history.full.backend.clone(),
            progress: progress.clone(),
        }),
        log: claim.log.open(rt).await?,
        log_backend: claim.log.backend.clone(),
        ssts: Arc::new(RocksSstFiles::new(SstOptions {
            compression: SstCompression::Lz4,
            level: 0,
        })),
        progress,
    })
}

fn point_options(at: TimeStamp, rng: &mut StdRng) -> Result<PointOptions> {
    let mut tables = RestoreOptions::new(Scope::Full {
        filter: filter(&format!("{DB}.*"))?,
        is_explicit: true,
    });
    tables.checksum = rng.random();
    let mut options = PointOptions {
        restored_ts: Some(at),
        ..PointOptions::new(tables)
    };
    if rng.random_bool(0.25) {
        options.method = Method::Apply {
            batch_files: 8,
            batch_bytes: 1 << 20,
            concurrency: 4,
            send_credentials: SendCredentials::Yes,
        };
    }
    Ok(options)
}
