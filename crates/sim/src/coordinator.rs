//! The coordinator of log backup, which can be lost.

use std::time::Duration;

use br_cluster::Cluster;
use br_log::advancer::{self, AdvancerConfig};
use br_rt::{CancellationToken, Task};

/// How many looks at the stores its place stays taken when it is lost.
const LEASE_TICKS: u32 = 4;
/// Until the next one starts.
const ABSENCE: Duration = Duration::from_millis(300);

/// A running coordinator. When it is lost, its place stays taken until its lease has run out.
pub struct Coordinator {
    cluster: Cluster,
    tick: Duration,
    running: Option<Task<()>>,
}

impl Coordinator {
    /// Starts it; it looks at the stores that often.
    pub fn start(cluster: &Cluster, tick: Duration) -> Coordinator {
        let mut coordinator = Coordinator {
            cluster: cluster.clone(),
            tick,
            running: None,
        };
        coordinator.run();
        coordinator
    }

    fn run(&mut self) {
        let config = AdvancerConfig {
            tick_interval: self.tick,
            lease_ttl: self.tick * LEASE_TICKS,
            ..AdvancerConfig::new(self.cluster.rt().uuid().to_string())
        };
        let (cluster, never) = (self.cluster.clone(), CancellationToken::new());
        let run = async move { advancer::run(&cluster, config, &never).await };
        self.running = Some(self.cluster.rt().spawn(run));
    }

    /// It dies where it stands; another one starts.
    pub async fn lose(&mut self) {
        self.running = None;
        self.cluster.rt().sleep(ABSENCE).await;
        self.run();
    }
}
