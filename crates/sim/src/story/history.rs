//! The cluster with its load, its log and its backup.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use br_cluster::{Cluster, KeyPrefix};
use br_embed::Options;
use br_format::{
    backupmeta::{BackupMeta, Compatibility},
    crypter::Crypter,
    log::task::{END_TS_NONE, TaskEncryption, TaskName},
    names::BACKUPMETA,
};
use br_log::{
    advancer::AdvancerConfig,
    read::LogStorage,
    status::{StatusRequest, status},
    task::{self, StartRequest, TaskStore},
};
use br_rt::{CancellationToken, Rt, Silent, Task};
use br_snapshot::backup::{
    self, BackupContext, BackupError, BackupOptions, Scope, target::TargetError,
};
use br_storage::SendCredentials;
use br_tidb::filter::TableFilter;
use br_types::TimeStamp;
use br_workload::{Kinds, Model, Workload};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::chaos::Chaos;
use crate::{
    load, operator::Operator, place::Place, trace::Trace, traces_left::PdState, weather::Weather,
    world::World,
};

pub(super) const DB: &str = "history";
const TASK: &str = "history";
/// Between two looks at the checkpoint.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The checkpoint stands still if it has not passed the last transaction by then.
const CLAIM_WITHIN: Duration = Duration::from_secs(20 * 60);
/// Claims of which the log is kept, besides the last one.
const EARLY_CLAIMS_MAX: usize = 3;
/// Until the coordinator has seen that a task has ended.
const SETTLE: Duration = Duration::from_secs(30);
/// TiKV's GC barrier of a task, as `br log start` has it.
const GC_TTL: Duration = Duration::from_secs(30 * 60);

/// A checkpoint, and the log as it was when the checkpoint was seen.
pub(super) struct Claim {
    pub(super) checkpoint_ts: TimeStamp,
    pub(super) log: Place,
}

/// What one run left behind.
pub(super) struct History {
    pub(super) model: Model,
    pub(super) full: Place,
    pub(super) backup_ts: TimeStamp,
    pub(super) claims: Vec<Claim>,
}

/// What the parts of a history work with.
struct Parts<'a> {
    rt: &'a Rt,
    trace: &'a Trace,
    client: Cluster,
    full: Place,
    log: Place,
    corruption: bool,
}

impl History {
    pub(super) async fn make(
        rt: &Rt,
        trace: &Trace,
        seed: u64,
        weather: &Weather,
        options: Options,
        rng: &mut StdRng,
    ) -> Result<History> {
        set_network(rt, &Weather::fair());
        let mut world = Box::pin(World::start(options)).await?;
        let kinds = Kinds::Wide {
            tables: rng.random_range(1..4),
        };
        let before = PdState::of(&world).await?;
        let workload = Workload::create(&world.client, kinds, seed, DB, None).await?;
        let parts = Parts {
            rt,
            trace,
            client: world.client.clone(),
            full: Place::new(rt, "full"),
            log: Place::new(rt, "log"),
            corruption: weather.corrupts(),
        };
        parts.full.set_faults(&weather.storage);
        parts.log.set_faults(&weather.storage);
        set_network(rt, weather);
        let lasts = Duration::from_millis(rng.random_range(3_000..12_000));
        let workers = rng.random_range(1..4);
        let chaos = Chaos::draw(rng);
        let (mut load_rng, mut chaos_rng) = (fork(rng), fork(rng));
        let stop = CancellationToken::new();
        let loaded = CancellationToken::new();
        let story = async {
            let told = parts.tell(&workload, rng, &loaded).await;
            stop.cancel();
            told
        };
        let load = async {
            let run = load::run(rt, trace, &workload, workers, lasts, &mut load_rng);
            let done = Box::pin(run).await;
            loaded.cancel();
            done
        };
        let chaos = chaos.run(&mut world, trace, &mut chaos_rng, &stop);
        let (story, load, chaos) = futures::join!(Box::pin(story), load, Box::pin(chaos));
        load?;
        let (backup_ts, claims) = story?;
        chaos?;
        set_network(rt, &Weather::fair());
        before
            .comes_back(&world)
            .await
            .context("the backed up cluster")?;
        trace.note("nothing is left in PD");
        Ok(History {
            model: workload.model(),
            full: parts.full,
            backup_ts,
            claims,
        })
    }
}

/// Another sequence of random numbers, for what goes on side by side.
fn fork(rng: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(rng.random())
}

pub(super) fn set_network(rt: &Rt, weather: &Weather) {
    if let Some(network) = rt.network() {
        network.set_faults(weather.network);
    }
}

pub(super) fn filter(rule: &str) -> Result<TableFilter> {
    let mut no_files = |path: &str| Err(format!("no file {path}"));
    TableFilter::parse(&[rule], false, &mut no_files).map_err(|error| anyhow::anyhow!("{error}"))
}

impl Parts<'_> {
    /// Starts the log, takes a backup at some time, watches the checkpoint, and ends the log.
    async fn tell(
        &self,
        workload: &Workload,
        rng: &mut StdRng,
        loaded: &CancellationToken,
    ) -> Result<(TimeStamp, Vec<Claim>)> {
        let mut log_rng = fork(rng);
        Box::pin(self.start_log(&mut log_rng)).await?;
        let mut coordinator = Coordinator::start(&self.client);
        let backup_ts = Box::pin(self.back_up(rng)).await?;
        let claims = self
            .watch(workload, backup_ts, rng, &mut coordinator, loaded)
            .await?;
        let operator = self.operator(false);
        let stop = async || task::stop(&self.client, TASK).await;
        operator.run("log stop", rng, stop).await?;
        // Its coordinator gives its barrier back.
        self.rt.sleep(SETTLE).await;
        drop(coordinator);
        Ok((backup_ts, claims))
    }

    fn operator(&self, kills: bool) -> Operator<'_> {
        Operator {
            rt: self.rt,
            trace: self.trace,
            kills,
            corruption: self.corruption,
        }
    }

    async fn start_log(&self, rng: &mut StdRng) -> Result<()> {
        let start = async || {
            let storage = br_storage::Storage::create_base(self.rt, &self.log.backend).await;
            let storage = storage.map_err(task::TaskError::from)?;
            let request = StartRequest {
                name: TaskName::new(TASK).expect("a name"),
                backend: self
                    .log
                    .backend
                    .to_proto(SendCredentials::Yes)
                    .expect("memory can travel"),
                start_ts: None,
                end_ts: END_TS_NONE,
                gc_ttl: GC_TTL,
                table_filter: vec!["*.*".into()],
                encryption: TaskEncryption::None,
            };
            Box::pin(task::start(&self.client, &storage, request))
                .await
                .map(drop)
        };
        self.operator(false).run("log start", rng, start).await
    }

    async fn back_up(&self, rng: &mut StdRng) -> Result<TimeStamp> {
        self.rt
            .sleep(Duration::from_millis(rng.random_range(0..6_000)))
            .await;
        let scope = Scope::Full {
            filter: filter(&format!("{DB}.*"))?,
        };
        let mut options = BackupOptions::new(scope, "sim");
        options.crypter = Crypter::plaintext();
        options.checksum = rng.random();
        let context = BackupContext {
            cluster: self.client.clone(),
            key_prefix: KeyPrefix::default(),
            storage: self.full.open(self.rt).await?,
            backend: self.full.backend.clone(),
            progress: Arc::new(Silent),
        };
        let command = async || match Box::pin(backup::run(&context, &options)).await {
            // It died, or lost sight of PD, when all but the tidying up was done.
            Err(BackupError::Target(TargetError::HasBackup { .. })) => Ok(()),
            done => done.map(drop),
        };
        self.operator(true).run("backup", rng, command).await?;
        let storage = self.full.look(self.rt).await?;
        let bytes = storage.read(BACKUPMETA).await?;
        let meta = BackupMeta::decode(bytes, &Crypter::plaintext(), Compatibility::Strict)?;
        Ok(meta.head.backup_ts)
    }

    /// Watches the checkpoint and keeps the log as it is at some of its values; loses the coordinator
    /// in between. Ends when everything that the load committed is claimed.
    async fn watch(
        &self,
        workload: &Workload,
        backup_ts: TimeStamp,
        rng: &mut StdRng,
        coordinator: &mut Coordinator,
        loaded: &CancellationToken,
    ) -> Result<Vec<Claim>> {
        let tasks = TaskStore::new(self.client.etcd().clone());
        let storage = LogStorage::new(self.log.look(self.rt).await?);
        let mut claims = Vec::new();
        let mut last = TimeStamp::ZERO;
        let mut since_load = Duration::ZERO;
        loop {
            self.rt.sleep(LOOK_INTERVAL).await;
            let is_loaded = loaded.is_cancelled();
            // PD may be out of reach just now.
            if let Ok(task) = tasks.get(TASK).await {
                let in_pd = task.global_checkpoint();
                ensure!(in_pd >= last, "the checkpoint went back: {last}, {in_pd}");
                last = in_pd;
            }
            let on_storage = storage.bounds().await?.max_ts;
            let newest = workload.model().commits().last().copied();
            let is_last = is_loaded && Some(on_storage) >= newest && on_storage > backup_ts;
            let previous = claims
                .last()
                .map_or(backup_ts, |claim: &Claim| claim.checkpoint_ts);
            let is_wanted = claims.len() < EARLY_CLAIMS_MAX && rng.random_bool(0.3);
            if is_last || (on_storage > previous && is_wanted) {
                self.trace
                    .note(format_args!("claim {on_storage}, in PD {last}"));
                claims.push(Claim {
                    checkpoint_ts: on_storage,
                    log: self.log.copy(self.rt, "claim").await?,
                });
            }
            if is_last {
                return Ok(claims);
            }
            if rng.random_bool(0.05) {
                self.trace.note("the coordinator is lost");
                coordinator.lose().await;
            }
            if is_loaded {
                since_load += LOOK_INTERVAL;
            }
            if since_load > CLAIM_WITHIN {
                let wanted = StatusRequest {
                    name: TASK,
                    explain: true,
                };
                let shown = Box::pin(status(&self.client, &wanted)).await?;
                let why = shown.first().map(|task| &task.holdups);
                bail!("the checkpoint stands at {on_storage} (in PD {last}): {why:?}");
            }
        }
    }
}

/// The coordinator, which can be lost: its place stays taken until its lease has run out.
struct Coordinator {
    cluster: Cluster,
    running: Option<Task<()>>,
}

impl Coordinator {
    fn start(cluster: &Cluster) -> Coordinator {
        let mut coordinator = Coordinator {
            cluster: cluster.clone(),
            running: None,
        };
        coordinator.run();
        coordinator
    }

    fn run(&mut self) {
        let config = AdvancerConfig {
            tick_interval: Duration::from_secs(1),
            lease_ttl: Duration::from_secs(3),
            ..AdvancerConfig::new(self.cluster.rt().uuid().to_string())
        };
        let (cluster, never) = (self.cluster.clone(), CancellationToken::new());
        let run = async move { br_log::advancer::run(&cluster, config, &never).await };
        self.running = Some(self.cluster.rt().spawn(run));
    }

    async fn lose(&mut self) {
        // Dropped where it stands.
        self.running = None;
        self.cluster.rt().sleep(Duration::from_millis(300)).await;
        self.run();
    }
}
