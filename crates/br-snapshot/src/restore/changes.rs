use br_format::{backupmeta::DataFile, schema::SchemaEntry};
use br_types::{Classify, TimeStamp};

use super::{error::RestoreError, plan::RestorePlan, source::Source};

/// What comes after a backup, or after an earlier restore, and is restored before tables are seen:
/// the log of what changed since.
pub trait Changes {
    /// What the whole restore can fail with.
    type Error: From<RestoreError> + Classify;

    /// The point in time that the tables show in the end; `None`: as the backup is.
    fn restored_ts(&self) -> Option<TimeStamp>;

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
    ///
    /// # Errors
    /// Its own; what was brought in is removed then.
    fn bring_in(&self, plan: &RestorePlan) -> impl Future<Output = Result<(), Self::Error>>;
}

/// A backup as it is.
pub(super) struct NoChanges;

impl Changes for NoChanges {
    type Error = RestoreError;

    fn restored_ts(&self) -> Option<TimeStamp> {
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

    async fn bring_in(&self, _: &RestorePlan) -> Result<(), RestoreError> {
        Ok(())
    }
}
