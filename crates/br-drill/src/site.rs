//! The cluster that a rehearsal restores into.

use std::path::PathBuf;

use br_cluster::{Cluster, ClusterConfig, Security};
use br_codec::ApiVersion;
use br_embed::Options;
use br_rt::{CancellationToken, Rt};

use crate::DrillError;

/// A cluster in this process, and a client that knows it by its address only.
pub(crate) struct Site {
    embedded: br_embed::Cluster,
    pub(crate) cluster: Cluster,
}

impl Site {
    pub(crate) async fn start(
        rt: &Rt,
        data_dir: PathBuf,
        api_version: ApiVersion,
        cancel: &CancellationToken,
    ) -> Result<Site, DrillError> {
        let options = Options {
            data_dir: Some(data_dir),
            api_version,
            ..Options::new(rt.clone())
        };
        let embedded = Box::pin(br_embed::Cluster::start(options)).await?;
        let config = ClusterConfig::new(&embedded.pd_addr(), Security::default());
        match Cluster::connect(rt.clone(), cancel.clone(), config).await {
            Ok(cluster) => Ok(Site { embedded, cluster }),
            Err(error) => {
                embedded.stop().await;
                Err(error.into())
            }
        }
    }

    pub(crate) async fn stop(self) {
        drop(self.cluster);
        self.embedded.stop().await;
    }
}
