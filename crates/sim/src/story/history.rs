//! The cluster with its load, its log and its backup.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use br_cluster::{Cluster, GcKeeper, GcProtection, GcScope, KeyPrefix};
use br_embed::Options;
use br_format::{
    backupmeta::{BackupMeta, Compatibility},
    crypter::Crypter,
    log::task::{END_TS_NONE, TaskEncryption, TaskName},
    names::BACKUPMETA,
};
use br_log::{
    read::LogStorage,
    status::{StatusRequest, status},
    task::{self, StartRequest, TaskStore},
};
use br_rt::{CancellationToken, Rt, Silent};
use br_snapshot::backup::{
    self, BackupContext, BackupError, BackupOptions, Scope, target::TargetError,
};
use br_storage::{SendCredentials, Storage};
use br_tidb::filter::TableFilter;
use br_types::TimeStamp;
use br_workload::{Kinds, Model, Workload};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::chaos::Chaos;
use crate::{
    coordinator::Coordinator,
    load,
    operator::Operator,
    place::{Place, Seal},
    trace::Trace,
    traces_left::PdState,
    weather::Weather,
    world::World,
};

pub(super) const DB: &str = "history";
const TASK: &str = "history";
/// Between two looks of the coordinator at the stores.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the checkpoint.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The checkpoint stands still if it has not passed the last transaction by then.
const CLAIM_WITHIN: Duration = Duration::from_secs(20 * 60);
/// Claims of which the log is kept, besides the last one.
const EARLY_CLAIMS_MAX: usize = 3;
/// Until the coordinator has seen that a task has ended.
const SETTLE: Duration = Duration::from_secs(30);
/// How long GC waits for an incremental backup if nobody renews that.
const HOLD_TTL: Duration = Duration::from_secs(5 * 60);
/// TiKV's GC barrier of a task, as `br log start` has it.
const GC_TTL: Duration = Duration::from_secs(30 * 60);

/// A checkpoint, and the log as it was when the checkpoint was seen.
pub(super) struct Claim {
    pub(super) checkpoint_ts: TimeStamp,
    pub(super) log: Place,
}

/// A backup and the moment that it shows.
pub(super) struct Backup {
    pub(super) place: Place,
    pub(super) backup_ts: TimeStamp,
}

/// What one run left behind.
pub(super) struct History {
    pub(super) model: Model,
    pub(super) full: Backup,
    /// What changed since.
    pub(super) increment: Option<Backup>,
    pub(super) claims: Vec<Claim>,
}

/// What was stored of it.
struct Kept {
    full: Backup,
    increment: Option<Backup>,
    claims: Vec<Claim>,
}

/// What the parts of a history work with.
struct Parts<'a> {
    rt: &'a Rt,
    trace: &'a Trace,
    client: Cluster,
    log: Place,
    seal: Option<Seal>,
    weather: &'a Weather,
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
        let seal = rng.random_bool(0.3).then(Seal::new).transpose()?;
        if seal.is_some() {
            trace.note("storages are sealed");
        }
        let parts = Parts {
            rt,
            trace,
            client: world.client.clone(),
            log: Place::new(rt, "log", seal.as_ref()).await?,
            seal,
            weather,
        };
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
        let kept = story?;
        chaos?;
        set_network(rt, &Weather::fair());
        before
            .comes_back(&world)
            .await
            .context("the backed up cluster")?;
        trace.note("nothing is left in PD");
        Ok(History {
            model: workload.model(),
            full: kept.full,
            increment: kept.increment,
            claims: kept.claims,
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
    ) -> Result<Kept> {
        let mut log_rng = fork(rng);
        Box::pin(self.start_log(&mut log_rng)).await?;
        let mut coordinator = Coordinator::start(&self.client, TICK);
        self.pause(rng).await;
        let keeper = match rng.random_bool(0.4) {
            true => Some(self.hold_gc(rng).await?),
            false => None,
        };
        let full = Box::pin(self.back_up(None, rng)).await?;
        let increment = match keeper {
            Some(keeper) => {
                self.pause(rng).await;
                let increment = Box::pin(self.back_up(Some(full.backup_ts), rng)).await?;
                // It lapses if PD is out of reach just now.
                let _ = keeper.close().await;
                Some(increment)
            }
            None => None,
        };
        let claims = self
            .watch(workload, full.backup_ts, rng, &mut coordinator, loaded)
            .await?;
        let operator = self.operator(false);
        let stop = async || task::stop(&self.client, TASK).await;
        operator.run("log stop", rng, stop).await?;
        // Its coordinator gives its barrier back.
        self.rt.sleep(SETTLE).await;
        drop(coordinator);
        Ok(Kept {
            full,
            increment,
            claims,
        })
    }

    async fn pause(&self, rng: &mut StdRng) {
        let pause = Duration::from_millis(rng.random_range(0..6_000));
        self.rt.sleep(pause).await;
    }

    /// Keeps the versions that the next backup tells apart, as a longer `tidb_gc_life_time` does.
    async fn hold_gc(&self, rng: &mut StdRng) -> Result<GcKeeper> {
        let hold = async || {
            let ts = self.client.pd().tso().await?;
            let protection = GcProtection {
                scope: GcScope::Cluster,
                id: "until the next backup".to_owned(),
                ts,
                ttl: HOLD_TTL,
            };
            GcKeeper::start(self.client.pd(), protection).await
        };
        self.operator(false).run("hold GC", rng, hold).await
    }

    fn operator(&self, kills: bool) -> Operator<'_> {
        Operator {
            rt: self.rt,
            trace: self.trace,
            kills,
            corruption: self.weather.corrupts(),
        }
    }

    async fn start_log(&self, rng: &mut StdRng) -> Result<()> {
        let start = async || {
            let storage = Storage::create_base(self.rt, &self.log.backend).await;
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

    /// Takes a backup, of what has changed since then.
    async fn back_up(&self, since: Option<TimeStamp>, rng: &mut StdRng) -> Result<Backup> {
        let (name, purpose) = match since {
            None => ("backup", "full"),
            Some(_) => ("incremental backup", "increment"),
        };
        let place = Place::new(self.rt, purpose, self.seal.as_ref()).await?;
        place.set_faults(&self.weather.storage);
        let scope = Scope::Full {
            filter: filter(&format!("{DB}.*"))?,
        };
        let mut options = BackupOptions::new(scope, "sim");
        options.last_backup_ts = since;
        options.crypter = Crypter::plaintext();
        options.checksum = rng.random();
        let command = async || {
            let storage = Storage::create_base(self.rt, &place.backend).await;
            let context = BackupContext {
                cluster: self.client.clone(),
                key_prefix: KeyPrefix::default(),
                storage: storage.map_err(TargetError::from)?,
                backend: place.backend.clone(),
                progress: Arc::new(Silent),
            };
            match Box::pin(backup::run(&context, &options)).await {
                // It died, or lost sight of PD, when all but the tidying up was done.
                Err(BackupError::Target(TargetError::HasBackup { .. })) => Ok(()),
                done => done.map(drop),
            }
        };
        let operator = self.operator(true);
        operator.run_by_some(name, rng, command).await?;
        let bytes = place.look(self.rt).await?.read(BACKUPMETA).await?;
        let meta = BackupMeta::decode(bytes, &Crypter::plaintext(), Compatibility::Strict)?;
        Ok(Backup {
            place,
            backup_ts: meta.head.backup_ts,
        })
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
