use br_format::{backupmeta::DataFile, schema::SchemaEntry};
use br_types::{Classify, TimeStamp};

use super::{error::RestoreError, plan::RestorePlan, resume::DoneSteps, source::Source};

/// A point in time that is restored, and where what leads to it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointInTime {
    /// The log, for people.
    pub log_place: String,
    /// Commits after this come from the log.
    pub start_ts: TimeStamp,
    /// Commits up to this do.
    pub restored_ts: TimeStamp,
    /// Whether of what the log has of a key only the newest version is restored.
    pub newest_only: bool,
}

/// What comes after a backup, or after an earlier restore, and is restored before tables are seen:
/// the log of what changed since.
pub trait Changes {
    /// What the whole restore can fail with.
    type Error: From<RestoreError> + Classify;

    /// The point in time that the tables show in the end; `None`: as the backup is.
    fn point(&self) -> Option<PointInTime>;

    /// Hands `visit` every database and table as it is in the end, in the form in which a backup
    /// made at that time has it. Without a backup, those that are not in the cluster in that form.
    ///
    /// # Errors
    /// Its own, or the first of `visit`.
    fn schemas(
        &self,
        backup: Option<&Source>,
        visit: impl AsyncFnMut(SchemaEntry) -> Result<(), RestoreError>,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// Whether a data file of the backup, of a table that is restored, still counts.
    fn wants(&self, file: &DataFile) -> bool;

    /// Brings in what changed, after the data of the backup and while PD and the stores hold still.
    /// With `done`, steps that an interrupted command did are known, and those that are done are
    /// written down.
    ///
    /// # Errors
    /// Its own; what was brought in is removed then.
    fn bring_in(
        &self,
        plan: &RestorePlan,
        done: Option<&DoneSteps>,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// What [`Changes::finish`] is to have, also in a command that goes on with schemas only.
    fn layer(&self, plan: &RestorePlan) -> Vec<u8>;

    /// All tables are visible. Called before what is kept of the restore is removed, and again if
    /// the command is interrupted in between.
    fn finish(&self, layer: &[u8]) -> impl Future<Output = ()>;
}

/// A backup as it is.
pub(super) struct NoChanges;

impl Changes for NoChanges {
    type Error = RestoreError;

    fn point(&self) -> Option<PointInTime> {
        None
    }

    async fn schemas(
        &self,
        backup: Option<&Source>,
        visit: impl AsyncFnMut(SchemaEntry) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        match backup {
            Some(backup) => backup.schemas(visit).await,
            None => Ok(()),
        }
    }

    fn wants(&self, _: &DataFile) -> bool {
        true
    }

    async fn bring_in(&self, _: &RestorePlan, _: Option<&DoneSteps>) -> Result<(), RestoreError> {
        Ok(())
    }

    fn layer(&self, _: &RestorePlan) -> Vec<u8> {
        Vec::new()
    }

    async fn finish(&self, _: &[u8]) {}
}
