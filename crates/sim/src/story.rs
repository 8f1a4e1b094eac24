//! # What it does
//! One story from beginning to end: a cluster with a load, a log of it and a backup; everything that
//! was claimed on the way is restored into other clusters and compared with the model.
//!
//! # Ordering and invariants
//! What has to hold: the checkpoint never goes back; what it claims is in the storage at that
//! moment (a claim is a copy of the storage as it was then); restored content equals the model at
//! the timestamp, however often the commands on the way died; the checks of a whole backup find
//! nothing, those of a damaged one the damage; nothing is left behind in PD.

mod chaos;
mod damage;
mod elsewhere;
mod history;
mod log_care;
mod restore;

use anyhow::{Context as _, Result};
use br_rt::{Rt, UnixMillis};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use self::history::History;
use crate::{trace::Trace, weather::Weather, world::draw_options};

/// The wall clock when each run begins: 2026-01-01.
const START: UnixMillis = UnixMillis(1_767_225_600_000);
/// Claims that one story restores.
const RESTORES_MAX: usize = 2;

/// A story that has been told.
pub struct Told {
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// Whether everything held.
    pub outcome: Result<()>,
}

/// Tells the story of a seed.
///
/// # Errors
/// There is no runtime to be had.
pub fn run(seed: u64) -> Result<Told> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("a runtime")?;
    Ok(runtime.block_on(async {
        let rt = Rt::simulated(seed, START);
        let trace = Trace::new(&rt);
        let outcome = Box::pin(tell(&rt, &trace, seed)).await;
        if let Err(error) = &outcome {
            trace.note(format_args!("failed: {error:#}"));
        }
        Told {
            trace: trace.lines(),
            outcome: outcome.with_context(|| format!("SIM_SEED={seed}")),
        }
    }))
}

async fn tell(rt: &Rt, trace: &Trace, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let weather = Weather::draw(&mut rng);
    trace.note(format_args!("seed {seed}: {} weather", weather.name));
    let options = draw_options(rt, &mut rng);
    let history = Box::pin(History::make(rt, trace, seed, &weather, options, &mut rng)).await?;
    damage::is_found(rt, trace, &history, &mut rng).await?;
    if rng.random() {
        let weather = Weather::draw(&mut rng);
        let restored = restore::restore_backup(rt, trace, &history, &weather, &mut rng);
        Box::pin(restored).await.context("the backup alone")?;
    }
    let mut claims: Vec<_> = history.claims.iter().collect();
    while claims.len() > RESTORES_MAX {
        claims.remove(rng.random_range(0..claims.len()));
    }
    for claim in claims {
        let weather = Weather::draw(&mut rng);
        let restored = restore::restore_claim(rt, trace, &history, claim, &weather, &mut rng);
        Box::pin(restored).await?;
    }
    Ok(())
}
