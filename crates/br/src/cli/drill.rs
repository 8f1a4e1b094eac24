use std::path::PathBuf;

use br_drill::{DrillOptions, RehearsalOptions};
use clap::Args;

use super::{
    common_flags::given_timestamp, global_flags::GlobalFlags, session::Session, verify::PlaceFlags,
};
use crate::{edge::Outcome, summary};

/// `br drill`.
#[derive(Args)]
pub(super) struct DrillCommand {
    #[command(flatten)]
    places: PlaceFlags,
    /// The point: a TSO, or a time such as '2026-11-21 10:17:45 +08:00'; without it, a random one.
    #[arg(long, value_name = "TS")]
    at: Option<String>,
    /// What the random point is chosen by; without it, another one each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Folder for the cluster that is restored into; without it, that of the system.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DrillCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let at = self.at.as_deref().map(|at| given_timestamp("--at", at));
        let options = DrillOptions {
            rehearsal: RehearsalOptions {
                at: at.transpose()?,
                ..self.places.rehearsal(global, self.temp_dir.as_ref())?
            },
            seed: self
                .seed
                .unwrap_or_else(|| session.rt.random_below(1 << 32)),
        };
        let sources = self.places.open(global, session).await?;
        let drilled = br_drill::drill(
            &session.rt,
            &sources,
            &options,
            session.display.progress(),
            &session.cancel,
        );
        let drilled = Box::pin(drilled).await?;
        summary::verify::drilled(&drilled, self.json)
    }
}
