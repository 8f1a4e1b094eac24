//! Measures backup and restore of an embedded cluster beside their bounds, all in one run on one
//! machine: the bounds are what the same cores do when nothing but the unavoidable is done.
//!
//! `BENCH_MB` sets the size of the data (MB of keys and values, default 256), `BENCH_THREADS` the
//! cores that a bound may use (default: all). `BENCH_LOG_MB` sets the size of the log that is
//! restored (default 512), `BENCH_SECONDS` the length of a turn with or without log backup
//! (default 10). `BENCH_ONLY` names one part: `snapshot`, `storages`, `courtesy`,
//! `foreground`, `log`.

mod bounds;
mod courtesy;
mod foreground;
mod log_restore;
mod memory;
mod storages;

use std::{env, path::Path, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use br_cluster::{Cluster, ClusterConfig, KeyPrefix, Security};
use br_embed::{Options, Parts};
use br_engine::{RocksEngine, RocksOptions};
use br_format::kv_stats::KvStats;
use br_rt::{CancellationToken, Rt, Silent};
use br_snapshot::{
    backup::{self, BackupContext, BackupOptions},
    restore::{self, RestoreOptions, RestoreTarget},
};
use br_storage::{Backend, Storage, StorageOptions};
use br_store::engine::Engine;
use br_tidb::filter::TableFilter;
use br_workload::bulk;

/// Bytes of one row's value, of which half can be compressed.
const VALUE_BYTES: usize = 200;
/// Each figure is measured so often; the best counts, as the bound's best does.
const ROUNDS: usize = 3;

/// What is measured, each in a process of its own, so that memory is its own as well.
const PARTS: [&str; 6] = [
    "snapshot",
    "storages",
    "courtesy",
    "foreground",
    "log-10",
    "log-10000",
];

fn main() -> Result<()> {
    let Ok(part) = env::var("BENCH_PART") else {
        let only = env::var("BENCH_ONLY").unwrap_or_default();
        for part in PARTS.iter().filter(|part| part.starts_with(&only)) {
            in_own_process(&[("BENCH_PART", part)])?;
        }
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&part))
}

/// Runs this program with more in its environment.
fn in_own_process(more: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    let status = command.envs(more.iter().copied()).status()?;
    anyhow::ensure!(status.success(), "{more:?}: {status}");
    Ok(())
}

async fn measure(part: &str) -> Result<()> {
    let number = |name: &str, otherwise: usize| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    let rt = Rt::real();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let log_bytes = number("BENCH_LOG_MB", 512) << 20;
    match part {
        "snapshot" => run(number("BENCH_MB", 256), number("BENCH_THREADS", cores)).await,
        "storages" => {
            let folder = tempfile::tempdir()?;
            storages::measure(&rt, folder.path(), number("BENCH_MB", 256)).await
        }
        "courtesy" => {
            let folder = tempfile::tempdir()?;
            let turn = Duration::from_secs(number("BENCH_SECONDS", 10) as u64);
            courtesy::measure(&rt, folder.path(), number("BENCH_MB", 256), turn).await
        }
        "foreground" => {
            let folder = tempfile::tempdir()?;
            let turn = Duration::from_secs(number("BENCH_SECONDS", 10) as u64);
            foreground::measure(&rt, folder.path(), turn).await
        }
        _ => {
            let (what, tables) = part.split_once('-').context("a part of this benchmark")?;
            let tables = tables.parse()?;
            match env::var_os("BENCH_FOLDER") {
                Some(folder) if what == "made" => {
                    log_restore::make(&rt, Path::new(&folder), tables, log_bytes).await
                }
                _ => {
                    let folder = tempfile::tempdir()?;
                    let path = folder.path().to_str().context("a path in UTF-8")?;
                    let make = format!("made-{tables}");
                    in_own_process(&[("BENCH_PART", &make), ("BENCH_FOLDER", path)])?;
                    log_restore::measure(&rt, folder.path(), tables).await
                }
            }
        }
    }
}

async fn run(mega_bytes: usize, threads: usize) -> Result<()> {
    let rt = Rt::real();
    let folder = tempfile::tempdir()?;
    show(&format!(
        "data: {mega_bytes} MB of keys and values; bounds on {threads} threads"
    ));
    let (_embedded, cluster, engine) = start(&rt, &folder.path().join("source")).await?;
    let started = rt.now();
    let table = bulk::fill(&cluster, "bench", mega_bytes << 20, VALUE_BYTES).await?;
    let took = rt.now().since(started);
    show(&format!("loaded through transactions in {took:.1?}"));

    let mut bound = Duration::MAX;
    for round in 0..ROUNDS {
        let target = folder.path().join(format!("bound-{round}"));
        std::fs::create_dir(&target)?;
        bound = bound.min(bounds::scan_and_build(&rt, &engine, table, &target, threads).await?);
    }
    let mut fastest = Duration::MAX;
    let mut sums = KvStats::default();
    for round in 0..ROUNDS {
        let url = format!(
            "local://{}",
            folder.path().join(format!("backup-{round}")).display()
        );
        let (context, options) = backup_context(&rt, &cluster, &url).await?;
        let started = rt.now();
        let done = Box::pin(backup::run(&context, &options)).await?;
        fastest = fastest.min(rt.now().since(started));
        sums = KvStats {
            crc64_xor: 0,
            total_kvs: done.total_kvs,
            total_bytes: done.total_kv_bytes,
        };
    }
    report(
        "snapshot backup",
        "one pass over the engine + SST build",
        sums,
        fastest,
        bound,
        0.85,
    );

    let source = folder.path().join("backup-0");
    let mut bound = Duration::MAX;
    for round in 0..ROUNDS {
        let target = folder.path().join(format!("rewrite-{round}"));
        std::fs::create_dir(&target)?;
        bound = bound.min(bounds::read_and_write(&rt, &engine, &source, &target, threads).await?);
    }
    let mut fastest = Duration::MAX;
    for round in 0..ROUNDS {
        let (_embedded, fresh, _) =
            start(&rt, &folder.path().join(format!("target-{round}"))).await?;
        let url = format!("local://{}", source.display());
        let backend = Backend::parse(&url, &StorageOptions::default())?;
        let target = RestoreTarget {
            cluster: fresh,
            storage: Storage::open(&rt, &backend).await?,
            backend,
            progress: Arc::new(Silent),
        };
        let scope = restore::Scope::Full {
            filter: TableFilter::all(),
            is_explicit: false,
        };
        let started = rt.now();
        Box::pin(restore::restore(&target, &RestoreOptions::new(scope))).await?;
        fastest = fastest.min(rt.now().since(started));
    }
    report(
        "snapshot restore",
        "read + decompress + write of the SSTs",
        sums,
        fastest,
        bound,
        0.8,
    );
    show(&format!(
        "peak memory of this process, cluster included: {} MB",
        memory::peak_mb()
    ));
    Ok(())
}

async fn start(rt: &Rt, folder: &Path) -> Result<(br_embed::Cluster, Cluster, Arc<dyn Engine>)> {
    let parts = Parts::on_rocksdb(RocksEngine::open(folder, RocksOptions::default())?);
    let engine = parts.engine.clone();
    let embedded = br_embed::Cluster::start_on(Options::new(rt.clone()), parts).await?;
    let config = ClusterConfig::new(&embedded.pd_addr(), Security::default());
    let cluster = Cluster::connect(rt.clone(), CancellationToken::new(), config).await?;
    Ok((embedded, cluster, engine))
}

async fn backup_context(
    rt: &Rt,
    cluster: &Cluster,
    url: &str,
) -> Result<(BackupContext, BackupOptions)> {
    let backend = Backend::parse(url, &StorageOptions::default())?;
    let context = BackupContext {
        cluster: cluster.clone(),
        key_prefix: KeyPrefix::default(),
        storage: Storage::create_base(rt, &backend)
            .await
            .context("open the target")?,
        backend,
        progress: Arc::new(Silent),
    };
    let scope = backup::Scope::Full {
        filter: TableFilter::all(),
    };
    Ok((context, BackupOptions::new(scope, "bench")))
}

fn report(what: &str, of: &str, sums: KvStats, took: Duration, bound: Duration, target: f64) {
    let rate = |took: Duration| sums.total_bytes as f64 / 1e6 / took.as_secs_f64();
    let ratio = bound.as_secs_f64() / took.as_secs_f64();
    show(&format!(
        "{what}: {:.0} MB/s in {took:.2?}; bound ({of}): {:.0} MB/s in {bound:.2?}; \
         {:.0} % of the bound, target {:.0} %",
        rate(took),
        rate(bound),
        ratio * 100.0,
        target * 100.0
    ));
}

#[expect(clippy::print_stdout, reason = "the result of the benchmark")]
fn show(line: &str) {
    println!("{line}");
}
