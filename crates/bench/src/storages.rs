//! One backup after the other of the same cluster to a folder, the same sealed, and S3 on loopback.

use std::{path::Path, time::Duration};

use anyhow::Result;
use br_rt::Rt;
use br_snapshot::backup;
use br_storage::{SealKeys, Storage, parse_master_key};
use br_workload::bulk;
use test_servers::S3Folder;

use crate::{ROUNDS, VALUE_BYTES, backup_context, show, start};

/// Measures; the rounds alternate, so that what else the machine does meets all of them.
pub(crate) async fn measure(rt: &Rt, folder: &Path, mega_bytes: usize) -> Result<()> {
    let (_embedded, cluster, _engine) = start(rt, &folder.join("source")).await?;
    bulk::fill(&cluster, "bench", mega_bytes << 20, VALUE_BYTES).await?;
    show(&format!(
        "backups of {mega_bytes} MB to a folder, the same sealed, and S3 on loopback"
    ));
    let server = S3Folder::start(&folder.join("s3"));
    let endpoint = server.endpoint();
    let keys = seal_keys(folder)?;
    let mut best = [Duration::MAX; 3];
    let mut bytes = 0;
    for round in 0..ROUNDS {
        let local = format!(
            "local://{}",
            folder.join(format!("local-{round}")).display()
        );
        let sealed = format!(
            "local://{}",
            folder.join(format!("sealed-{round}")).display()
        );
        let s3 = format!(
            "s3://bucket/{round}?endpoint={endpoint}&access-key=k&secret-access-key=s&region=r"
        );
        let places = [
            (local, SealKeys::default()),
            (sealed, keys.clone()),
            (s3, SealKeys::default()),
        ];
        for (best, (url, keys)) in best.iter_mut().zip(places) {
            let (mut context, options) = backup_context(rt, &cluster, &url).await?;
            if !keys.is_empty() {
                context.backend = context.backend.sealed(keys);
                context.storage = Storage::create_base(rt, &context.backend).await?;
            }
            let started = rt.now();
            let done = Box::pin(backup::run(&context, &options)).await?;
            *best = (*best).min(rt.now().since(started));
            bytes = done.total_kv_bytes;
        }
    }
    let [local, sealed, s3] = best;
    for (name, took) in [("a folder", local), ("a sealed folder", sealed), ("S3", s3)] {
        show(&format!(
            "backup to {name}: {:.0} MB/s in {took:.2?}; {:.0} % of the speed to a folder",
            bytes as f64 / 1e6 / took.as_secs_f64(),
            100.0 * local.as_secs_f64() / took.as_secs_f64()
        ));
    }
    Ok(())
}

fn seal_keys(folder: &Path) -> Result<SealKeys> {
    let file = folder.join("master.key");
    std::fs::write(&file, format!("{}\n", "5a".repeat(32)))?;
    let key = parse_master_key(&format!("local://{}", file.display()))?;
    Ok(SealKeys::new(vec![key]))
}
