//! Log backup in each store, with PD over its published protocols.

use std::{sync::Arc, time::Duration};

use br_cluster::ClusterConfig;
use br_rt::{CancellationToken, Rt, Task};
use br_storage::Faults;
use br_store::{
    StoreConfig,
    log_backup::{LogBackup, LogBackupParts, PdBoard},
    storage::Storage,
    topology::Topology,
};
use br_types::StoreId;

/// Pause before PD is called again that did not answer.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Folder for temporary files, in the engine's folder for files on their way.
const TEMP_DIR: &str = "log-backup-temp";

/// The log backup of a store, if it is to take part; not at work yet.
pub(super) fn new(
    rt: &Rt,
    store: StoreId,
    storage: &Storage,
    topology: Arc<dyn Topology>,
    config: &StoreConfig,
    faults: Faults,
) -> Option<LogBackup> {
    let temp_dir = storage.engine().scratch_dir().join(TEMP_DIR);
    let is_wanted = config.log_backup.enable && storage.serves_transactions();
    is_wanted.then(|| {
        LogBackup::new(LogBackupParts {
            rt: rt.clone(),
            store,
            storage: storage.clone(),
            topology,
            config: config.log_backup.clone(),
            temp_dir: temp_dir.join(store.to_string()),
            faults,
        })
    })
}

/// Follows the tasks that are in PD until the [`Task`] is dropped.
pub(super) fn start(
    rt: &Rt,
    cancel: &CancellationToken,
    pd: ClusterConfig,
    log_backup: LogBackup,
) -> Task<()> {
    let (rt2, cancel) = (rt.clone(), cancel.clone());
    rt.spawn(async move {
        loop {
            match PdBoard::connect(rt2.clone(), cancel.clone(), pd.clone()).await {
                Ok(board) => return log_backup.run(Arc::new(board)).await,
                Err(error) => tracing::warn!(%error, "log backup cannot reach PD"),
            }
            rt2.sleep(CONNECT_PAUSE).await;
        }
    })
}
