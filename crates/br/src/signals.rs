use br_rt::{CancellationToken, Rt};
use br_types::Kind;
use tokio::signal::unix::{SignalKind, signal};

use crate::edge::{CommandError, Outcome};

/// Sets `cancel` on the first SIGINT or SIGTERM; a second one ends the process at once.
pub(crate) fn listen(rt: &Rt, cancel: CancellationToken) -> Outcome {
    let cannot = |error| CommandError::system("cannot listen to signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    rt.spawn(async move {
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(i32::from(Kind::Cancelled.exit_code()));
            }
            tracing::info!("stopping; once more to stop at once");
            cancel.cancel();
        }
    })
    .detach();
    Ok(())
}
