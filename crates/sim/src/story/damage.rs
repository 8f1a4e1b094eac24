//! The checks of what was stored: they find nothing, and then the one thing that is damaged.

use std::sync::Arc;

use anyhow::{Result, ensure};
use br_inspect::verify::{Depth, Verified, VerifyOptions, verify};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use object_store::ObjectStoreExt as _;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use super::history::History;
use crate::{place::Place, trace::Trace};

/// Verifies the backups and the last log, whole and with one damaged object.
pub(super) async fn is_found(
    rt: &Rt,
    trace: &Trace,
    history: &History,
    rng: &mut StdRng,
) -> Result<()> {
    let Some(claim) = history.claims.last() else {
        return Ok(());
    };
    let (full, log) = (&history.full.place, &claim.log);
    let full_and_log = [
        full.copy(rt, "damaged").await?,
        log.copy(rt, "damaged").await?,
    ];
    is_found_in(rt, trace, &full_and_log, rng).await?;
    if let Some(increment) = &history.increment {
        let increment = [increment.place.copy(rt, "damaged").await?];
        is_found_in(rt, trace, &increment, rng).await?;
    }
    Ok(())
}

/// A backup and perhaps a log.
async fn is_found_in(rt: &Rt, trace: &Trace, places: &[Place], rng: &mut StdRng) -> Result<()> {
    let whole = look(rt, places).await?;
    ensure!(
        whole.findings.is_empty(),
        "damage where there is none: {:?}",
        whole.findings
    );
    // What commands that died left behind belongs to nothing.
    let unnamed: Vec<_> = whole.notes.iter().flat_map(|note| &note.objects).collect();
    let at = rng.random_range(0..places.len());
    let objects = places[at].objects();
    let mut paths = places[at].paths().await?;
    paths.retain(|path| {
        let is_unnamed = unnamed.iter().any(|name| **name == *path.as_ref());
        !is_unnamed && is_guarded(at == 1, path.as_ref())
    });
    let Some(path) = paths.choose(rng) else {
        return Ok(());
    };
    let name = path.as_ref();
    let mut bytes = Vec::from(objects.get(path).await?.bytes().await?);
    let what = match rng.random_range(0..3) {
        0 => {
            objects.delete(path).await?;
            "is gone".to_owned()
        }
        1 => {
            let left = rng.random_range(0..bytes.len());
            objects.put(path, bytes[..left].to_vec().into()).await?;
            format!("is cut to {left} bytes")
        }
        _ => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            objects.put(path, bytes.into()).await?;
            format!("is flipped in byte {at}")
        }
    };
    trace.note(format_args!("{name} {what}"));
    let found = look(rt, places).await;
    // Without the sum `backupmeta` is what it is with other tools.
    let is_harmless = name == "backupmeta.sha256" && what == "is gone";
    let is_found = match &found {
        // A damaged index may leave nothing to look at.
        Err(_) => true,
        Ok(verified) => !verified.findings.is_empty(),
    };
    ensure!(
        is_found || is_harmless,
        "{name} {what}, and verify does not see it"
    );
    Ok(())
}

/// Objects of which every byte counts. Of locks none does, of a log's mark some do; and a copy of
/// the checkpoint may be missing where another says the same.
fn is_guarded(is_log: bool, name: &str) -> bool {
    let is_mark = is_log && name == "backupmeta";
    let is_passed_over = is_mark || name.ends_with("backup.lock") || name.ends_with(".ts");
    !is_passed_over
}

async fn look(rt: &Rt, places: &[Place]) -> Result<Verified> {
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let full = places[0].look(rt).await?;
    let log = match places.get(1) {
        Some(log) => Some(log.look(rt).await?),
        None => None,
    };
    let options = VerifyOptions::new(Depth::Checksums);
    let never = CancellationToken::new();
    let work = verify(rt, &full, log.as_ref(), &options, &progress, &never);
    Ok(Box::pin(work).await?)
}
