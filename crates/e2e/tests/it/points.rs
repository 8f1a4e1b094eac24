//! Restores to a point in time.

use std::{path::Path, sync::Arc};

use br_cluster::Cluster;
use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_log::restore::{PointOptions, PointTarget};
use br_rt::{Progress, Silent};
use br_snapshot::restore::{RestoreOptions, RestoreTarget, Scope};
use br_storage::Storage;
use br_types::TimeStamp;

use crate::site::{Place, Site, filter};

/// Of the tables that the rules take, as they were at that time.
pub(crate) fn point_options(rules: &[&str], at: TimeStamp) -> PointOptions {
    let tables = RestoreOptions::new(Scope::Full {
        filter: filter(rules),
        is_explicit: true,
    });
    PointOptions {
        restored_ts: Some(at),
        ..PointOptions::new(tables)
    }
}

/// Into that cluster, from a full backup and a log.
pub(crate) async fn point_target(site: &Site, full: &Place, log: &Place) -> PointTarget {
    point_target_in(&site.cluster, full, log).await
}

/// The same, into a cluster that may be anybody's.
pub(crate) async fn point_target_in(cluster: &Cluster, full: &Place, log: &Place) -> PointTarget {
    let rt = cluster.rt();
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    PointTarget {
        cluster: cluster.clone(),
        full: Some(RestoreTarget {
            cluster: cluster.clone(),
            storage: Storage::open(rt, &full.backend).await.unwrap(),
            backend: full.backend.clone(),
            progress: progress.clone(),
        }),
        log: Storage::open(rt, &log.backend).await.unwrap(),
        log_backend: log.backend.clone(),
        ssts: sst_files(),
        progress,
    }
}

pub(crate) fn sst_files() -> Arc<RocksSstFiles> {
    Arc::new(RocksSstFiles::new(SstOptions {
        compression: SstCompression::Lz4,
        level: 0,
    }))
}

/// Copies a folder with all that is in it, but for what is renamed meanwhile: files on their way.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), &target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}
