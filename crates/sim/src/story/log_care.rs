//! What operators do with a log before it is restored: cut its beginning off, turn parts of it into
//! SSTs.

use std::sync::Arc;

use anyhow::Result;
use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_log::{
    Operator as Person,
    compact::{CompactOptions, CompactTarget, compact},
    read::LogStorage,
    storage_lock::LockRequest,
    truncate::{TruncateOptions, Truncation},
};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_types::TimeStamp;
use rand::{RngExt as _, rngs::StdRng};

use super::history::{Claim, History};
use crate::operator::Operator;

/// Does something, or nothing; gives whether there are compactions. Every point from the backup on can
/// be restored as before.
pub(super) async fn take_care(
    rt: &Rt,
    operator: &Operator<'_>,
    history: &History,
    claim: &Claim,
    rng: &mut StdRng,
) -> Result<bool> {
    let mut is_compacted = false;
    for _ in 0..rng.random_range(0..3) {
        if rng.random() {
            Box::pin(truncate(rt, operator, history, claim, rng)).await?;
        } else {
            Box::pin(compact_some(rt, operator, claim, rng)).await?;
            is_compacted = true;
        }
    }
    Ok(is_compacted)
}

async fn truncate(
    rt: &Rt,
    operator: &Operator<'_>,
    history: &History,
    claim: &Claim,
    rng: &mut StdRng,
) -> Result<()> {
    let bounds = LogStorage::new(claim.log.look(rt).await?).bounds().await?;
    let until = TimeStamp(rng.random_range(bounds.min_ts.0..=history.full.backup_ts.0));
    operator.trace.note(format_args!("truncate until {until}"));
    let storage = claim.log.open(rt).await?;
    let never = CancellationToken::new();
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let clean_up_compactions = rng.random();
    let command = async || {
        let person = Person::this();
        let request = LockRequest {
            storage: &storage,
            rt,
            cancel: &never,
            operator: &person,
            hint: "truncation",
        };
        let options = TruncateOptions {
            until,
            clean_up_compactions,
        };
        let truncation = Truncation::begin(request, options).await?;
        truncation.run(&progress).await.map(drop)
    };
    operator.run_by_some("log truncate", rng, command).await
}

async fn compact_some(
    rt: &Rt,
    operator: &Operator<'_>,
    claim: &Claim,
    rng: &mut StdRng,
) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let target = CompactTarget {
        rt: rt.clone(),
        cancel: CancellationToken::new(),
        storage: claim.log.open(rt).await?,
        ssts: Arc::new(RocksSstFiles::new(SstOptions {
            compression: SstCompression::Lz4,
            level: 0,
        })),
        progress: Arc::new(Silent),
        temp_dir: scratch.path().to_owned(),
    };
    let bounds = LogStorage::new(claim.log.look(rt).await?).bounds().await?;
    let from_ts = TimeStamp(rng.random_range(bounds.min_ts.0..=bounds.max_ts.0));
    let options = CompactOptions {
        from_ts,
        until_ts: Some(TimeStamp(rng.random_range(from_ts.0..=bounds.max_ts.0))),
        name: "sim".to_owned(),
        shifts: rng.random(),
        shard: None,
        minimal_bytes: 1,
        concurrency: 2,
    };
    operator.trace.note(format_args!(
        "compact from {from_ts} until {:?}",
        options.until_ts
    ));
    let command = async || compact(&target, &options).await.map(drop);
    operator.run_by_some("log compact", rng, command).await
}
