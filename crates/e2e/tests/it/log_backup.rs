//! Log backup of a cluster: its task and its coordinator.

use std::{path::Path, time::Duration};

use br_cluster::Cluster;
use br_log::{
    advancer::AdvancerConfig,
    task::{self, StartRequest},
};
use br_rt::{CancellationToken, Task};
use br_storage::{SendCredentials, Storage};

use crate::site::{Place, Site};

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

/// The coordinator, which can be lost: its place stays taken until its lease has run out.
pub(crate) struct Coordinator {
    cluster: Cluster,
    running: Option<Task<()>>,
}

impl Coordinator {
    pub(crate) fn start(cluster: &Cluster) -> Coordinator {
        let mut coordinator = Coordinator {
            cluster: cluster.clone(),
            running: None,
        };
        coordinator.run();
        coordinator
    }

    fn run(&mut self) {
        let config = AdvancerConfig {
            tick_interval: Duration::from_millis(500),
            lease_ttl: Duration::from_secs(2),
            ..AdvancerConfig::new(self.cluster.rt().uuid().to_string())
        };
        let (cluster, never) = (self.cluster.clone(), CancellationToken::new());
        let run = async move { br_log::advancer::run(&cluster, config, &never).await };
        self.running = Some(self.cluster.rt().spawn(run));
    }

    pub(crate) async fn lose(&mut self) {
        // Dropped where it stands.
        self.running = None;
        self.cluster.rt().sleep(Duration::from_millis(300)).await;
        self.run();
    }
}
