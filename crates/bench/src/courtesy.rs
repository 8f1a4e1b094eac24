//! What a backup costs those who write meanwhile, with and without giving way to them, and how much
//! longer it takes for that.

use std::{path::Path, time::Duration};

use anyhow::Result;
use br_rt::Rt;
use br_snapshot::backup;
use br_workload::bulk;

use crate::foreground::{Seen, write, write_during};
use crate::{VALUE_BYTES, backup_context, show, start};

/// The three ways are taken in turn, so that what the machine does besides meets all.
const ROUNDS: usize = 3;

/// Measures backups of so much data, and turns of `turn` without one.
pub(crate) async fn measure(
    rt: &Rt,
    folder: &Path,
    mega_bytes: usize,
    turn: Duration,
) -> Result<()> {
    let (embedded, cluster, _) = start(rt, &folder.join("data")).await?;
    bulk::fill(&cluster, "bench", mega_bytes << 20, VALUE_BYTES).await?;
    write(&cluster, turn / 2, None).await?;
    let mut quiet = Seen::default();
    let mut backups = [(); 2].map(|()| (Seen::default(), Duration::ZERO));
    for round in 0..ROUNDS {
        quiet.add(write(&cluster, turn, None).await?);
        for (is_on, (seen, took)) in [false, true].into_iter().zip(&mut backups) {
            embedded.storage().courtesy().turn(is_on);
            let url = format!(
                "local://{}",
                folder.join(format!("{round}-{is_on}")).display()
            );
            let (context, options) = backup_context(rt, &cluster, &url).await?;
            let began = rt.now();
            let run = async { Box::pin(backup::run(&context, &options)).await.map(drop) };
            seen.add(write_during(&cluster, run).await?);
            *took += rt.now().since(began);
        }
    }
    quiet.show("without a backup");
    for (how, (mut seen, took)) in ["without giving way", "giving way"]
        .into_iter()
        .zip(backups)
    {
        seen.show(&format!("during a backup, {how}"));
        let rounds = u32::try_from(ROUNDS)?;
        show(&format!(
            "    p95 × {:.2}, throughput {:.0} %; a backup took {:.1?}",
            seen.quantile(0.95).as_secs_f64() / quiet.quantile(0.95).as_secs_f64(),
            100.0 * seen.per_second() / quiet.per_second(),
            took / rounds
        ));
    }
    Ok(())
}
