//! What log backup costs those who write, and what it gives: how far the log lags behind, and how
//! many objects that takes.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use br_cluster::Cluster;
use br_format::log::task::{END_TS_NONE, TaskEncryption, TaskName};
use br_log::{
    advancer::{self, AdvancerConfig},
    task::{self, StartRequest, TaskStore},
};
use br_rt::{CancellationToken, Rt};
use br_storage::{Backend, SendCredentials, Storage, StorageOptions};
use br_tidb::table_key::record_key;
use br_types::TableId;
use futures::{TryStreamExt as _, future};

use crate::{show, start};

const TASK: &str = "bench";
/// Clients that write at the same time.
const CLIENTS: u64 = 8;
/// Rows of one transaction, and bytes of each.
const ROWS: i64 = 4;
const VALUE_BYTES: usize = 200;
/// The clients write with log backup and without it in turn, so that what the machine does besides
/// meets both.
const TURNS: usize = 6;
/// Turns in a row in which the age of the checkpoint is measured.
const STEADY_TURNS: u32 = 4;
/// How often the checkpoint is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What clients saw.
#[derive(Default)]
pub(crate) struct Seen {
    seconds: f64,
    latencies: Vec<Duration>,
    /// Age of the checkpoint, at each look.
    lags: Vec<Duration>,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    pub(crate) fn add(&mut self, other: Seen) {
        self.seconds += other.seconds;
        self.latencies.extend(other.latencies);
        self.lags.extend(other.lags);
    }

    /// How long a part of the transactions took at most.
    pub(crate) fn quantile(&mut self, part: f64) -> Duration {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn show(&mut self, what: &str) {
        let per_second = self.per_second();
        let [median, p95, p99] = [0.5, 0.95, 0.99].map(|part| self.quantile(part));
        show(&format!(
            "{CLIENTS} clients {what}: {per_second:.0} transactions/s, median {median:.1?}, \
             p95 {p95:.1?}, p99 {p99:.1?}"
        ));
    }
}

/// Measures turns of `turn` each.
pub(crate) async fn measure(rt: &Rt, folder: &Path, turn: Duration) -> Result<()> {
    let (_embedded, cluster, _) = start(rt, &folder.join("data")).await?;
    let end = CancellationToken::new();
    let (of_coordinator, until) = (cluster.clone(), end.clone());
    let config = AdvancerConfig {
        tick_interval: Duration::from_secs(2),
        ..AdvancerConfig::new("bench".to_owned())
    };
    let coordinator = rt.spawn(async move { advancer::run(&of_coordinator, config, &until).await });

    let (mut without, mut with) = (Seen::default(), Seen::default());
    // Warm.
    write(&cluster, turn / 2, None).await?;
    for number in 0..TURNS {
        without.add(write(&cluster, turn, None).await?);
        let _log = begin_log(&cluster, &folder.join(format!("log-{number}"))).await?;
        with.add(write(&cluster, turn, None).await?);
        task::stop(&cluster, TASK).await?;
    }
    let log = begin_log(&cluster, &folder.join("log")).await?;
    let tasks = TaskStore::new(cluster.etcd().clone());
    // Until the stores have taken the task up.
    write(&cluster, turn, None).await?;
    let before = count(&log).await?;
    let mut steady = write(&cluster, turn * STEADY_TURNS, Some(&tasks)).await?;
    let objects = count(&log).await? - before;
    task::stop(&cluster, TASK).await?;
    end.cancel();
    coordinator.await;

    let quantiles = |values: &mut Vec<Duration>| {
        values.sort_unstable();
        let at = |part: f64| values.get((values.len() as f64 * part) as usize).copied();
        [0.5, 0.99, 0.9999].map(|part| at(part).unwrap_or_default())
    };
    let throughput = (with.per_second(), without.per_second());
    let [median, p99, _] = quantiles(&mut with.latencies);
    let [median_without, p99_without, _] = quantiles(&mut without.latencies);
    show(&format!(
        "foreground, {CLIENTS} clients, {ROWS} rows of {VALUE_BYTES} bytes a transaction: with log \
         backup {:.0} transactions/s, median {median:.1?}, p99 {p99:.1?}; without {:.0}, \
         {median_without:.1?}, {p99_without:.1?}; {:.1} % of the throughput, p99 × {:.2}",
        throughput.0,
        throughput.1,
        100.0 * throughput.0 / throughput.1,
        p99.as_secs_f64() / p99_without.as_secs_f64(),
    ));
    let [median, p99, longest] = quantiles(&mut steady.lags);
    show(&format!(
        "age of the checkpoint under this load (RPO): median {median:.1?}, p99 {p99:.1?}, longest \
         {longest:.1?}; {objects} objects of three stores in {:.0} s, {:.0} an hour",
        steady.seconds,
        objects as f64 * 3600.0 / steady.seconds
    ));
    Ok(())
}

/// Starts log backup; gives its storage.
async fn begin_log(cluster: &Cluster, folder: &Path) -> Result<Storage> {
    let url = format!("local://{}", folder.display());
    let backend = Backend::parse(&url, &StorageOptions::default())?;
    let storage = Storage::create_base(cluster.rt(), &backend).await?;
    let request = StartRequest {
        name: TaskName::new(TASK)?,
        backend: backend.to_proto(SendCredentials::Yes)?,
        start_ts: None,
        end_ts: END_TS_NONE,
        gc_ttl: Duration::from_secs(600),
        table_filter: vec!["*.*".to_owned()],
        encryption: TaskEncryption::None,
    };
    Box::pin(task::start(cluster, &storage, request)).await?;
    Ok(storage)
}

async fn count(storage: &Storage) -> Result<usize> {
    Ok(storage.list("v1/").try_collect::<Vec<_>>().await?.len())
}

/// Writes for so long; with a task, looks at its checkpoint meanwhile.
pub(crate) async fn write(
    cluster: &Cluster,
    time: Duration,
    tasks: Option<&TaskStore>,
) -> Result<Seen> {
    let mut lags = Vec::new();
    let look = async {
        let rt = cluster.rt();
        let began = rt.now();
        while rt.now().since(began) < time {
            rt.sleep(LOOK).await;
            if let Some(tasks) = tasks {
                let now = cluster.pd().tso().await?.physical_ms();
                let checkpoint = tasks.get(TASK).await?.global_checkpoint().physical_ms();
                lags.push(Duration::from_millis(now.saturating_sub(checkpoint)));
            }
        }
        anyhow::Ok(())
    };
    let seen = write_during(cluster, look).await?;
    Ok(Seen { lags, ..seen })
}

/// Writes until something is done.
pub(crate) async fn write_during<E>(
    cluster: &Cluster,
    work: impl Future<Output = Result<(), E>>,
) -> Result<Seen>
where
    anyhow::Error: From<E>,
{
    let stop = CancellationToken::new();
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let rt = cluster.rt().clone();
    let started = rt.now();
    let clients = (0..CLIENTS).map(|client| {
        let (cluster, stop, latencies) = (cluster.clone(), stop.clone(), latencies.clone());
        rt.spawn(async move {
            while !stop.is_cancelled() {
                let started = cluster.rt().now();
                transaction(&cluster, client).await?;
                let took = cluster.rt().now().since(started);
                latencies
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(took);
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    let clients: Vec<_> = clients.collect();
    let done = work.await;
    stop.cancel();
    for done in future::join_all(clients).await {
        done?;
    }
    done?;
    let seconds = rt.now().since(started).as_secs_f64();
    let latencies = std::mem::take(&mut *latencies.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Seen {
        seconds,
        latencies,
        lags: Vec::new(),
    })
}

/// Rows of the client's own table, so that nobody waits for a lock.
async fn transaction(cluster: &Cluster, client: u64) -> Result<()> {
    let table = TableId(1000 + i64::try_from(client)?);
    let mut txn = cluster.begin().await?;
    for _ in 0..ROWS {
        let random = cluster.rt().random_u64();
        let key = record_key(table, i64::from((random >> 44) as u32));
        let value = random.to_be_bytes().repeat(VALUE_BYTES / 8);
        txn.put(key, value)?;
    }
    txn.commit().await?;
    Ok(())
}
