//! Log backup of a cluster: its task and its coordinator.

use std::{path::Path, time::Duration};

use br_cluster::Cluster;
use br_log::task::{self, StartRequest};
use br_storage::{SendCredentials, Storage};
use sim::Coordinator;

use crate::site::{Place, Site};

/// Between two looks of the coordinator at the stores.
const TICK: Duration = Duration::from_millis(500);

/// Starts a coordinator.
pub(crate) fn coordinate(cluster: &Cluster) -> Coordinator {
    Coordinator::start(cluster, TICK)
}

/// Starts a task of that name.
pub(crate) async fn start_log(site: &Site, folder: &Path, name: &str) {
    let place = Place::existing(folder.to_owned());
    let storage = Storage::create_base(site.cluster.rt(), &place.backend)
        .await
        .unwrap();
    let request = StartRequest {
        backend: place.backend.to_proto(SendCredentials::Yes).unwrap(),
        ..crate::log_tasks::request(&place, name)
    };
    Box::pin(task::start(&site.cluster, &storage, request))
        .await
        .unwrap();
}
