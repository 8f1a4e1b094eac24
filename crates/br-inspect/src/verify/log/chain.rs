//! Flushes that are gone with their index, and copies of the checkpoint that were cut.

use br_format::log::migration::Migration;

use super::super::error::VerifyError;
use super::super::report::{Cost, Part, Window};
use super::Examined;

impl Examined<'_> {
    /// What the seals of the log say; see [`br_log::read::Chain`].
    pub(super) async fn judge_chain(&mut self, migrations: &Migration) -> Result<(), VerifyError> {
        let Some(bounds) = self.looked.bounds.clone() else {
            return Ok(());
        };
        if let Some(unsealed) = &bounds.unsealed {
            let text =
                "the coordinator's copy of the checkpoint is not sealed, and not believed: a tool \
                        wrote it that has no keys, such as a TiDB server, or somebody else"
                    .to_owned();
            self.report.note(Part::Log, text, vec![unsealed.clone()]);
        }
        let mut chain = std::mem::take(&mut self.chain);
        chain.add_copies(&bounds.checkpoints);
        for copy in chain.bare(&bounds.checkpoints) {
            let window = Window {
                from_ts: bounds.min_ts,
                to_ts: copy.ts,
            };
            let cost = (Cost::All, Some(window));
            self.found(&copy.name, None, "its checksum is cut off", cost);
        }
        let lost = self
            .log
            .lost_flushes(&chain, &bounds, &migrations.compactions);
        for lost in lost.await.map_err(VerifyError::Log)? {
            let problem = format!(
                "no index is there that begins so: the flush of store {} at {}",
                lost.store, lost.flush_ts
            );
            let cost = match lost.window {
                Some((from_ts, to_ts)) => (Cost::All, Some(Window { from_ts, to_ts })),
                None => (Cost::Nothing, None),
            };
            self.found(&lost.object(), Some(&lost.named_by), &problem, cost);
        }
        Ok(())
    }
}
