//! Restore of a log: the same bytes of events over few and over many tables.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use br_catalog::{NewDatabase, NewTable, SchemaChange, SchemaWriter};
use br_cluster::Cluster;
use br_codec::{Write, WriteKind, key};
use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_format::{
    crypter::{Crypter, Iv},
    log::{
        checkpoint::CheckpointCopy,
        content::{Tally, lay_out, seal},
        file::{EventKind, FileIdentity, LogCompression, LogFile},
        marker::LogMarker,
        metadata::{LogGroup, LogMeta},
        names::{CENTRAL_CHECKPOINT, DataName},
        record::Record,
    },
    names::BACKUPMETA,
};
use br_log::restore::{PointOptions, PointTarget, restore};
use br_rt::{Rt, Silent};
use br_snapshot::{
    backup,
    restore::{RestoreOptions, RestoreTarget, Scope},
};
use br_storage::{Backend, Storage, StorageOptions};
use br_tidb::{filter::TableFilter, table_key};
use br_types::{Cf, DbId, RegionId, StoreId, TableId, TimeStamp};
use br_workload::{Column, ColumnType, PrimaryKey, Table, db_json};

use crate::{backup_context, memory, show, start};

/// What is asked of it, on the two cores of the smallest machine.
const TARGET_MB_PER_S: f64 = 100.0;
/// Bytes of a row's value: short enough to lie in its record.
const VALUE_BYTES: usize = 200;
/// Bytes of events of one flush, as stores flush.
const FLUSH_BYTES: usize = 64 << 20;
/// Where the number of events is noted.
const EVENTS: &str = "events";
/// Tables of one transaction that makes them.
const TABLES_PER_TXN: usize = 500;

fn url(path: &Path) -> String {
    format!("local://{}", path.display())
}

fn backend(path: &Path) -> Result<Backend> {
    Ok(Backend::parse(&url(path), &StorageOptions::default())?)
}

/// Makes a backup of so many tables, and a log with about so many bytes of events.
pub(crate) async fn make(rt: &Rt, folder: &Path, tables: usize, bytes: usize) -> Result<()> {
    let (full, log) = (folder.join("full"), folder.join("log"));
    let (_embedded, source, _) = start(rt, &folder.join("source")).await?;
    let made = make_tables(&source, tables).await?;
    let (context, options) = backup_context(rt, &source, &url(&full)).await?;
    let done = Box::pin(backup::run(&context, &options)).await?;
    let backup_ts = done
        .backup_ts
        .context("a backup of tables has a timestamp")?;
    let storage = Storage::create_base(rt, &backend(&log)?).await?;
    let events = write_log(rt, &storage, &source, &made, backup_ts, bytes).await?;
    std::fs::write(folder.join(EVENTS), events.to_string())?;
    Ok(())
}

/// Measures the restore of what [`make`] has made.
pub(crate) async fn measure(rt: &Rt, folder: &Path, tables: usize) -> Result<()> {
    let (full, log) = (folder.join("full"), folder.join("log"));
    let events: u64 = std::fs::read_to_string(folder.join(EVENTS))?.parse()?;
    let (_target, fresh, _) = start(rt, &folder.join("target")).await?;
    let target = PointTarget {
        cluster: fresh.clone(),
        full: Some(RestoreTarget {
            cluster: fresh,
            storage: Storage::open(rt, &backend(&full)?).await?,
            backend: backend(&full)?,
            progress: Arc::new(Silent),
        }),
        log: Storage::open(rt, &backend(&log)?).await?,
        log_backend: backend(&log)?,
        ssts: Arc::new(RocksSstFiles::new(SstOptions {
            compression: SstCompression::Lz4,
            level: 0,
        })),
        progress: Arc::new(Silent),
    };
    let scope = Scope::Full {
        filter: TableFilter::all(),
        is_explicit: false,
    };
    let options = PointOptions::new(RestoreOptions::new(scope));
    let started = rt.now();
    let done = Box::pin(restore(&target, &options)).await?;
    let took = rt.now().since(started);
    anyhow::ensure!(done.ingest.records == events, "{events} events, {done:?}");
    let megabytes = done.load.bytes as f64 / 1e6;
    show(&format!(
        "log restore, {tables} tables: {megabytes:.0} MB of events, {events} rows, in {took:.1?}: \
         {:.0} MB/s, target {TARGET_MB_PER_S:.0}; {} files ingested, peak memory of the process, cluster included: {} MB",
        megabytes / took.as_secs_f64(),
        done.ingest.files,
        memory::peak_mb()
    ));
    Ok(())
}

async fn make_tables(cluster: &Cluster, tables: usize) -> Result<Vec<TableId>> {
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    let last_used = br_catalog::last_id(&snapshot).await?;
    let db = DbId(last_used + 1);
    let first = last_used + 2;
    let ids: Vec<TableId> = (0..tables as i64).map(|n| TableId(first + n)).collect();
    br_catalog::raise_last_id(cluster, last_used, first + tables as i64).await?;
    let mut writer = SchemaWriter::new(cluster);
    for (number, some) in ids.chunks(TABLES_PER_TXN).enumerate() {
        let databases = (number == 0).then(|| NewDatabase {
            id: db,
            name: "bench".to_owned(),
            json: db_json(db, "bench"),
        });
        let change = SchemaChange {
            databases: databases.into_iter().collect(),
            tables: some.iter().map(|id| new_table(db, *id)).collect(),
            ..SchemaChange::default()
        };
        writer.apply(&change).await?;
    }
    Ok(ids)
}

fn new_table(db: DbId, id: TableId) -> NewTable {
    let column = |name: &str, ty| Column {
        name: name.to_owned(),
        ty,
        not_null: true,
    };
    let table = Table {
        db,
        id,
        name: format!("t{id}"),
        columns: vec![
            column("id", ColumnType::BigInt),
            column("data", ColumnType::Blob),
        ],
        indexes: Vec::new(),
        primary_key: PrimaryKey::IntHandle,
        partitions: Vec::new(),
    };
    NewTable {
        db,
        id,
        json: table.json(),
        name: table.name,
        counters: Vec::new(),
        replaces: None,
    }
}

/// Writes events as a store would flush them; gives their number.
async fn write_log(
    rt: &Rt,
    storage: &Storage,
    source: &Cluster,
    tables: &[TableId],
    backup_ts: TimeStamp,
    bytes: usize,
) -> Result<u64> {
    let marker = LogMarker {
        cluster_id: source.id(),
        cluster_version: "9.0.0".to_owned(),
        start_ts: backup_ts.prev(),
    };
    storage.write(BACKUPMETA, marker.encode()).await?;
    let event_bytes = VALUE_BYTES + 60;
    let per_flush = FLUSH_BYTES.min(bytes) / event_bytes;
    let mut ts = backup_ts;
    let mut events = 0;
    while (events as usize) * event_bytes < bytes {
        let (tables, first) = (tables.to_vec(), ts);
        let seed = rt.random_u64();
        let (files, object, last) = rt
            .blocking(move || flush(&tables, first, per_flush, seed))
            .await?;
        let min_ts = first.next();
        let name = DataName {
            min_ts,
            max_ts: last,
            store: StoreId(1),
            is_schema: false,
            unique: rt.uuid().to_string(),
        };
        let length = object.len() as u64;
        storage.write(&name.to_name(), object).await?;
        let group = LogGroup::new(name.to_name(), files, length);
        let meta = LogMeta::new(StoreId(1), vec![group], last).to_object(last);
        storage.write(&meta.name, meta.bytes).await?;
        ts = last;
        events += per_flush as u64;
    }
    let checkpoint = CheckpointCopy::bare(ts).encode();
    storage.write(CENTRAL_CHECKPOINT, checkpoint).await?;
    Ok(events)
}

/// The files of one flush with so many events, spread over the tables, in one object.
fn flush(
    tables: &[TableId],
    first: TimeStamp,
    events: usize,
    seed: u64,
) -> Result<(Vec<LogFile>, Vec<u8>, TimeStamp)> {
    let mut open: Vec<(Tally, Vec<u8>)> = Vec::new();
    open.resize_with(tables.len(), || (Tally::new(Cf::Write), Vec::new()));
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut ts = first;
    for number in 0..events {
        ts = ts.next();
        let place = number % tables.len();
        let (Some(table), Some((tally, records))) = (tables.get(place), open.get_mut(place)) else {
            continue;
        };
        // Half of the value can be compressed.
        let mut value = vec![b'x'; VALUE_BYTES];
        for chunk in value.chunks_mut(8).take(VALUE_BYTES / 16) {
            chunk.copy_from_slice(&random().to_le_bytes());
        }
        let raw = table_key::record_key(*table, (random() >> 1) as i64);
        let mut stored = key::encode(raw.as_bytes()).into_bytes();
        key::append_ts(&mut stored, ts);
        let record = Write::new(WriteKind::Put, ts.prev(), Some(value)).to_bytes();
        let record = Record {
            key: &stored,
            value: &record,
        };
        tally.append(record, records)?;
    }
    let (mut files, mut object) = (Vec::new(), Vec::new());
    for (table, (tally, records)) in tables.iter().zip(open) {
        let identity = FileIdentity {
            is_schema: false,
            table: *table,
            region: RegionId(1),
            cf: Cf::Write,
            kind: EventKind::Put,
        };
        let Some(mut file) = tally.finish(identity) else {
            continue;
        };
        let plain = Crypter::plaintext();
        object.extend(seal(
            &mut file,
            &records,
            LogCompression::Zstd,
            &plain,
            Iv([0; 16]),
        )?);
        files.push(file);
    }
    lay_out(&mut files);
    Ok((files, object, ts))
}
