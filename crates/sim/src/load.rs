//! Transactions and changes of schemas, for a while.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use br_rt::{CancellationToken, Rt};
use br_workload::{Statement, Workload};
use rand::{RngExt as _, rngs::StdRng};

use crate::trace::Trace;

/// Between two changes of schemas.
const STATEMENT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Runs the workload for as long.
pub(crate) async fn run(
    rt: &Rt,
    trace: &Trace,
    workload: &Workload,
    workers: usize,
    lasts: Duration,
    rng: &mut StdRng,
) -> Result<()> {
    let stop = CancellationToken::new();
    let ends = async {
        rt.sleep(lasts).await;
        stop.cancel();
    };
    let ((), committed, statements) = futures::join!(
        ends,
        workload.run(workers, &stop),
        change_schemas(rt, workload, rng, &stop),
    );
    let committed = committed.context("the workload")?;
    let statements = statements.context("a change of schemas")?;
    trace.note(format_args!(
        "the load has ended: {committed} transactions, {statements:?}"
    ));
    Ok(())
}

async fn change_schemas(
    rt: &Rt,
    workload: &Workload,
    rng: &mut StdRng,
    stop: &CancellationToken,
) -> Result<BTreeMap<Statement, usize>> {
    let mut done = BTreeMap::new();
    while !stop.is_cancelled() {
        rt.sleep(STATEMENT_PAUSE_MAX.mul_f64(rng.random())).await;
        if let Some(statement) = workload.change_schemas(rng).await? {
            *done.entry(statement).or_default() += 1;
        }
    }
    Ok(done)
}
