//! The checks of what was stored: they find nothing, and then the one thing that is damaged.

use std::sync::Arc;

use anyhow::{Result, ensure};
use br_inspect::verify::{Depth, Verified, VerifyOptions, verify};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use super::history::History;
use crate::{place::Place, trace::Trace};

/// Verifies the backup and the last log, whole and with one damaged object.
pub(super) async fn is_found(
    rt: &Rt,
    trace: &Trace,
    history: &History,
    rng: &mut StdRng,
) -> Result<()> {
    let Some(claim) = history.claims.last() else {
        return Ok(());
    };
    let whole = look(rt, &history.full, &claim.log).await?;
    ensure!(
        whole.findings.is_empty(),
        "damage where there is none: {:?}",
        whole.findings
    );
    // What commands that died left behind belongs to nothing.
    let unnamed: Vec<_> = whole.notes.iter().flat_map(|note| &note.objects).collect();
    let full = history.full.copy(rt, "damaged").await?;
    let log = claim.log.copy(rt, "damaged").await?;
    let is_log = rng.random();
    let place = if is_log { &log } else { &full };
    let mut names = place.names(rt).await?;
    names.retain(|name| !unnamed.contains(&name) && is_guarded(is_log, name));
    let Some(name) = names.choose(rng) else {
        return Ok(());
    };
    let storage = place.look(rt).await?;
    let mut bytes = Vec::from(storage.read(name).await?);
    let what = match rng.random_range(0..3) {
        0 => {
            storage.delete(name).await?;
            "is gone".to_owned()
        }
        1 => {
            let left = rng.random_range(0..bytes.len());
            storage.write(name, bytes[..left].to_vec()).await?;
            format!("is cut to {left} bytes")
        }
        _ => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            storage.write(name, bytes).await?;
            format!("is flipped in byte {at}")
        }
    };
    trace.note(format_args!("{name} {what}"));
    let found = look(rt, &full, &log).await;
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

async fn look(rt: &Rt, full: &Place, log: &Place) -> Result<Verified> {
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let (full, log) = (full.look(rt).await?, log.look(rt).await?);
    let options = VerifyOptions::new(Depth::Checksums);
    let never = CancellationToken::new();
    let work = verify(rt, &full, Some(&log), &options, &progress, &never);
    Ok(Box::pin(work).await?)
}
