//! What commands change on a cluster for a time, and have to put back.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::world::World;

/// The longest lease of anybody who died: the GC barrier of a store that carries out a log task.
const LEASES_END_WITHIN: Duration = Duration::from_secs(125 * 60);
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// What PD holds besides data, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PdState(BTreeMap<&'static str, Vec<String>>);

impl PdState {
    pub(crate) async fn of(world: &World) -> Result<PdState> {
        let pd = world.embedded().context("the cluster is down")?.pd();
        let gc = pd.gc.state(world.rt().wall());
        let mut keys = Vec::new();
        for prefix in ["/tidb/br-stream/", "/tidb/brie/", "/holdfast/"] {
            let found = world.client.etcd().get_prefix(prefix.as_bytes()).await?;
            let names = found.kvs.iter();
            keys.extend(names.map(|kv| String::from_utf8_lossy(&kv.key).into_owned()));
        }
        Ok(PdState(BTreeMap::from([
            (
                "barriers",
                gc.barriers.iter().map(|b| b.id.clone()).collect(),
            ),
            ("paused schedulers", pd.schedulers.paused()),
            (
                "label rules",
                pd.labels
                    .all()
                    .iter()
                    .map(|rule| format!("{rule:?}"))
                    .collect(),
            ),
            (
                "settings",
                vec![format!("{:?}", pd.config.section("schedule"))],
            ),
            ("keys", keys),
        ])))
    }

    /// Waits until PD is as it was: what killed commands left lapses with its lease.
    pub(crate) async fn comes_back(&self, world: &World) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            let now = PdState::of(world).await?;
            if now == *self {
                return Ok(());
            }
            ensure!(
                waited < LEASES_END_WITHIN,
                "something is left in PD: {:?}, before {:?}",
                now.0,
                self.0
            );
            world.rt().sleep(LOOK_INTERVAL).await;
            waited += LOOK_INTERVAL;
        }
    }
}
