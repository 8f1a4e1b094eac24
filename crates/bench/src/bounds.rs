//! What the machine can do at best: the work that no backup or restore gets around, without
//! transactions, checksums, network or metadata.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use br_codec::key;
use br_rt::Rt;
use br_store::engine::{Engine, SstCompression, SstOptions};
use br_tidb::table_key;
use br_types::{Cf, KeyRange, RawKey, TableId};
use bytes::Bytes;
use futures::future::join_all;

const ZSTD: SstOptions = SstOptions {
    compression: SstCompression::Zstd,
    level: 0,
};

/// Iterates over the table's records and values once and builds SSTs of them, as many threads as
/// parts of the key range.
pub(crate) async fn scan_and_build(
    rt: &Rt,
    engine: &Arc<dyn Engine>,
    table: TableId,
    target: &Path,
    threads: usize,
) -> Result<Duration> {
    let parts = (0..threads).map(|part| {
        // Handles are spread evenly over the first bits of what a loaded table has.
        let bound = |part: usize| RawKey::from(part_start(table, part, threads));
        let range = KeyRange {
            start: bound(part),
            end: bound(part + 1),
        };
        let (engine, target) = (engine.clone(), target.to_owned());
        rt.blocking(move || build(&*engine, &range, &target, part))
    });
    let started = rt.now();
    for built in join_all(parts).await {
        built?;
    }
    Ok(rt.now().since(started))
}

/// Where a part of the table begins; loaded tables have the handles 0 to 2^32 - 1, evenly.
fn part_start(table: TableId, part: usize, parts: usize) -> Vec<u8> {
    if part >= parts {
        return table_key::record_prefix(table).prefix_end().into_bytes();
    }
    let handle = (part as i64) * ((1_i64 << 32) / parts as i64);
    table_key::record_key(table, handle).into_bytes()
}

fn build(engine: &dyn Engine, range: &KeyRange<RawKey>, target: &Path, part: usize) -> Result<()> {
    let range = key::data_range(&key::encode_range(range));
    let snapshot = engine.snapshot();
    for cf in [Cf::Write, Cf::Default] {
        let mut cursor = snapshot.iter(cf, range.clone());
        if !cursor.seek_to_first()? {
            continue;
        }
        let mut writer = engine.sst_writer(&target.join(format!("{part}-{cf}.sst")), ZSTD)?;
        loop {
            writer.put(cursor.key(), cursor.value())?;
            if !cursor.next()? {
                break;
            }
        }
        writer.finish()?;
    }
    Ok(())
}

/// Reads, decompresses and writes anew each SST of a backup.
pub(crate) async fn read_and_write(
    rt: &Rt,
    engine: &Arc<dyn Engine>,
    backup: &Path,
    target: &Path,
    threads: usize,
) -> Result<Duration> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(backup)? {
        let folder = folder?.path();
        if folder.is_dir() {
            for file in std::fs::read_dir(folder)? {
                files.push(file?.path());
            }
        }
    }
    let parts = (0..threads).map(|part| {
        let own: Vec<PathBuf> = files.iter().skip(part).step_by(threads).cloned().collect();
        let (engine, target) = (engine.clone(), target.to_owned());
        rt.blocking(move || -> Result<()> {
            for file in own {
                let name = file.file_name().unwrap_or_default();
                rewrite(&*engine, &file, &target.join(name))?;
            }
            Ok(())
        })
    });
    let started = rt.now();
    for rewritten in join_all(parts).await {
        rewritten?;
    }
    Ok(rt.now().since(started))
}

fn rewrite(engine: &dyn Engine, from: &Path, to: &Path) -> Result<()> {
    let table = br_sst::Table::open(Bytes::from(std::fs::read(from)?))?;
    let mut writer = engine.sst_writer(to, ZSTD)?;
    let mut entries = table.iter();
    while let Some(entry) = entries.next()? {
        writer.put(entry.user_key, entry.value)?;
    }
    writer.finish()?;
    Ok(())
}
