//! # What it does
//! Brings data files in: groups them, splits regions where groups end, downloads and ingests,
//! while PD and the stores hold still. The same for tables, raw and transactional keys.
//!
//! # Cancellation
//! The token of the cluster's client; whatever was paused is let go in any case.

use std::{collections::HashMap, sync::Mutex};

use br_cluster::Cluster;
use br_format::backupmeta::DataFile;
use br_rt::{Phase, Unit, kill_point};
use br_storage::SendCredentials;
use br_types::{Cf, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    RestoreSummary, RestoreTarget,
    error::RestoreError,
    file_groups::{self, FileGroup, GroupLimit, PrefixRule},
    import::Importer,
    key_form::FileKeys,
    options::{REGION_KEYS_DEFAULT, REGION_SIZE_BYTES_DEFAULT, RestoreOptions},
    resume::DoneSteps,
    split::split_and_scatter,
};

/// Download threads of a store per thread that it imports with, as in the official tool.
const DOWNLOADS_PER_THREAD: usize = 8;

/// What the stores say of themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreLimits {
    /// How much becomes one region.
    pub(super) group: GroupLimit,
    /// Downloads of one store at once.
    pub(super) downloads_per_store: usize,
    /// Stores that are up.
    pub(super) stores: usize,
}

/// Asks the stores how large regions are and how much they download at once; the user's word goes
/// first, and where nobody says anything the defaults hold.
pub(super) async fn store_limits(
    cluster: &Cluster,
    options: &RestoreOptions,
) -> Result<StoreLimits, RestoreError> {
    let stores = cluster.pd().live_stores().await?;
    if stores.is_empty() {
        return Err(RestoreError::NoStore);
    }
    let mut group = GroupLimit {
        size_bytes_max: REGION_SIZE_BYTES_DEFAULT,
        keys_max: u64::MAX,
    };
    let mut downloads = options.downloads_per_store.max(1);
    for store in &stores {
        let config = match cluster.store_status().config(&store.status_address).await {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(store = store.id, %error, "its configuration is not known");
                continue;
            }
        };
        if let (Some(size), Some(keys)) = (config.region_split_size_bytes, config.region_split_keys)
            && keys < group.keys_max
        {
            group = GroupLimit {
                size_bytes_max: size,
                keys_max: keys,
            };
        }
        if let Some(threads) = config.import_threads.and_then(|n| usize::try_from(n).ok()) {
            downloads = downloads.min(threads.saturating_mul(DOWNLOADS_PER_THREAD).max(1));
        }
    }
    if group.keys_max == u64::MAX {
        group.keys_max = REGION_KEYS_DEFAULT;
    }
    if let Some(size) = options.region_size_bytes {
        group.size_bytes_max = size;
    }
    if let Some(keys) = options.region_keys {
        group.keys_max = keys;
    }
    Ok(StoreLimits {
        group,
        downloads_per_store: downloads,
        stores: stores.len(),
    })
}

/// Brings files in.
pub(super) struct Pipeline {
    importer: Importer,
    limits: StoreLimits,
    split_phase: Phase,
    import_phase: Phase,
}

impl Pipeline {
    /// Ready to bring in `files` files.
    ///
    /// # Errors
    /// The stores cannot be told where the backup is.
    pub(super) fn new(
        target: &RestoreTarget,
        options: &RestoreOptions,
        keys: FileKeys,
        limits: StoreLimits,
        files: u64,
    ) -> Result<Pipeline, RestoreError> {
        let cluster = &target.cluster;
        let send = match options.send_credentials {
            true => SendCredentials::Yes,
            false => SendCredentials::No,
        };
        let backend = target
            .backend
            .to_proto(send)
            .map_err(|error| RestoreError::Backend {
                message: error.to_string(),
            })?;
        let importer = Importer {
            rt: cluster.rt().clone(),
            cancel: cluster.cancel().clone(),
            router: cluster.router().clone(),
            keys,
            new_ts: TimeStamp::ZERO,
            storage: target.storage.clone(),
            backend,
            cipher: options.crypter.to_proto(),
            cache_id: format!("br-{}", cluster.rt().uuid()),
            downloads_per_store: limits.downloads_per_store,
            stores: Mutex::new(HashMap::new()),
        };
        let progress = &target.progress;
        Ok(Pipeline {
            importer,
            limits,
            split_phase: Phase::start(progress, "Split&Scatter Regions", Unit::Ranges, 0),
            import_phase: Phase::start(progress, "Download&Ingest SST", Unit::Files, files),
        })
    }

    /// All versions get this timestamp.
    pub(super) fn at(mut self, ts: TimeStamp) -> Pipeline {
        self.importer.new_ts = ts;
        self
    }

    /// Brings in the files of one object of metadata.
    ///
    /// # Errors
    /// Files contradict each other, a region could not be split, or a group could not be brought
    /// in.
    ///
    /// With `done`, the number of the object and where it is written which of its groups are in the
    /// cluster already.
    pub(super) async fn bring_in(
        &self,
        files: Vec<DataFile>,
        rule_of: impl Fn(&DataFile) -> Option<PrefixRule>,
        done: Option<(usize, &DoneSteps)>,
        summary: &mut RestoreSummary,
    ) -> Result<(), RestoreError> {
        for file in &files {
            match file.cf {
                Cf::Default => summary.default_files += 1,
                Cf::Write | Cf::Lock => summary.write_files += 1,
            }
        }
        let groups = file_groups::groups(file_groups::units(files, rule_of)?, self.limits.group);
        let (all, mut groups) = (groups, Vec::new());
        let missing = match done {
            Some((object, progress)) => progress.missing_groups(object, &all),
            None => vec![true; all.len()],
        };
        for (number, (group, is_missing)) in all.into_iter().zip(missing).enumerate() {
            if is_missing {
                groups.push((number, group));
                continue;
            }
            summary.resumed_groups += 1;
            summary.resumed_files += group.files().count();
            self.import_phase
                .advance(group.files().count() as u64, group.stored_bytes());
        }
        let keys = file_groups::split_keys(groups.iter().map(|(_, group)| group));
        self.split_phase.set_total(keys.len() as u64);
        let split = split_and_scatter(
            &self.importer.rt,
            &self.importer.router,
            self.importer.keys.form,
            &keys,
            &self.split_phase,
        )
        .await?;
        kill_point("restore.split");
        summary.groups += groups.len();
        summary.split_keys += keys.len();
        summary.split_regions += split.regions;
        let at_once = self.importer.groups_in_flight(self.limits.stores);
        stream::iter(groups)
            .map(|(number, group)| self.import(group, number, done))
            .buffer_unordered(at_once)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn import(
        &self,
        group: FileGroup,
        number: usize,
        done: Option<(usize, &DoneSteps)>,
    ) -> Result<(), RestoreError> {
        tokio::select! {
            biased;
            outcome = self.importer.import(&group) => outcome?,
            () = self.importer.cancel.cancelled() => return Err(RestoreError::Cancelled),
        };
        kill_point("restore.group_in");
        if let Some((object, progress)) = done {
            progress.mark_group(object, number);
        }
        kill_point("restore.group");
        self.import_phase
            .advance(group.files().count() as u64, group.stored_bytes());
        Ok(())
    }
}
