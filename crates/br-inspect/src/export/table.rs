//! The export of one table.

use std::{collections::VecDeque, sync::Arc};

use br_codec::{DecodeError, key};
use br_format::kv_stats::KvStats;
use br_log::restore::offline::{LogRow, LogRowReader, LogRows};
use br_rt::{CancellationToken, Rt};
use br_tidb::{row::RowDecoder, table_key::TableKey};
use br_types::TimeStamp;
use bytes::Bytes;

use super::{
    ExportError, ExportOptions, ExportedTable, Layer, TableSums,
    mvcc::{OpenPair, Version},
    plan::{FilePair, LayerFiles, PartPlan, TablePlan},
    sst::SstFile,
    write::TableWriter,
};

/// Rows between two looks at the token and at other tasks.
const ROWS_AT_ONCE: u64 = 1024;

/// Where rows come from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) rt: &'a Rt,
    /// The backups, the oldest first.
    pub(super) layers: &'a [Layer],
    /// What was written after the last of them.
    pub(super) log: Option<&'a LogRows>,
}

/// Writes the rows of one table.
pub(super) async fn export_table(
    sources: Sources<'_>,
    plan: TablePlan,
    options: &ExportOptions,
    cancel: &CancellationToken,
) -> Result<ExportedTable, ExportError> {
    let name = format!("{}.{}", plan.db, plan.info.name.original);
    let broken = |source| ExportError::Table {
        table: name.clone(),
        source,
    };
    let decoder = RowDecoder::new(&plan.info).map_err(broken)?;
    let columns: Vec<_> = decoder.columns().collect();
    let mut writer =
        TableWriter::create(options, &plan.db, &plan.info.name.original, &columns).await?;
    let mut rows = 0_u64;
    let mut row = Vec::new();
    for part in plan.parts {
        let mut merge = Merge::new(sources, part, plan.at)?;
        while let Some((key, value)) = merge.next().await? {
            let raw = key::decode(&key).map_err(|source| merge.entry_error(source))?;
            let TableKey::Record { handle, .. } =
                TableKey::parse(raw.as_bytes()).map_err(|source| merge.entry_error(source))?
            else {
                continue;
            };
            decoder
                .decode(handle, &value, &mut row)
                .map_err(|source| ExportError::Row {
                    table: name.clone(),
                    key: raw.to_string(),
                    source,
                })?;
            writer.row(&row).await?;
            rows += 1;
            if rows.is_multiple_of(ROWS_AT_ONCE) {
                if cancel.is_cancelled() {
                    return Err(ExportError::Cancelled);
                }
                tokio::task::yield_now().await;
            }
        }
    }
    let path = writer.finish().await?;
    Ok(ExportedTable {
        db: plan.db,
        table: plan.info.name.original,
        rows,
        path,
    })
}

/// Sums the rows of one table.
pub(super) async fn sum_table(
    sources: Sources<'_>,
    plan: TablePlan,
    cancel: &CancellationToken,
) -> Result<TableSums, ExportError> {
    let mut sums = KvStats::default();
    for part in plan.parts {
        let mut merge = Merge::new(sources, part, plan.at)?;
        while let Some((key, value)) = merge.next().await? {
            let raw = key::decode(&key).map_err(|source| merge.entry_error(source))?;
            sums.add_pair(raw.as_bytes(), &value);
            if sums.total_kvs.is_multiple_of(ROWS_AT_ONCE) {
                if cancel.is_cancelled() {
                    return Err(ExportError::Cancelled);
                }
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(TableSums {
        db: plan.db,
        table: plan.info.name.original,
        sums,
    })
}

/// The rows of one table or partition over all backups; a newer backup hides what an older one
/// says of the same key.
struct Merge<'a> {
    /// The oldest first.
    layers: Vec<LayerRows<'a>>,
    /// Newer than all of them.
    log: Option<LogPart<'a>>,
}

/// What the log has of a partition.
struct LogPart<'a> {
    rt: &'a Rt,
    /// Gone once it has ended.
    reader: Option<LogRowReader>,
    batch: VecDeque<LogRow>,
}

impl LogPart<'_> {
    /// Makes sure that the batch has something unless this is the end.
    async fn fill(&mut self) -> Result<(), ExportError> {
        if !self.batch.is_empty() {
            return Ok(());
        }
        let Some(mut reader) = self.reader.take() else {
            return Ok(());
        };
        let (reader, batch) = self
            .rt
            .blocking(move || {
                let batch = reader.batch();
                (reader, batch)
            })
            .await;
        self.batch = batch?.into();
        self.reader = (!self.batch.is_empty()).then_some(reader);
        Ok(())
    }
}

/// The rows of one backup.
struct LayerRows<'a> {
    rt: &'a Rt,
    layer: Option<&'a Layer>,
    files: std::vec::IntoIter<FilePair>,
    open: Option<Arc<OpenPair>>,
    /// The file in use, for errors.
    file: String,
    batch: VecDeque<Version>,
    last_key: Vec<u8>,
    at: TimeStamp,
}

impl<'a> Merge<'a> {
    fn new(sources: Sources<'a>, part: PartPlan, at: TimeStamp) -> Result<Self, ExportError> {
        let rows = |part: LayerFiles| LayerRows {
            rt: sources.rt,
            layer: sources.layers.get(part.layer),
            files: part.files.into_iter(),
            open: None,
            file: String::new(),
            batch: VecDeque::new(),
            last_key: Vec::new(),
            at,
        };
        let log = match sources.log {
            None => None,
            Some(log) => Some(LogPart {
                rt: sources.rt,
                reader: Some(log.of_table(part.id)?),
                batch: VecDeque::new(),
            }),
        };
        Ok(Self {
            layers: part.layers.into_iter().map(rows).collect(),
            log,
        })
    }

    /// The next row: its memcomparable key and its value.
    async fn next(&mut self) -> Result<Option<(Vec<u8>, Bytes)>, ExportError> {
        loop {
            for layer in &mut self.layers {
                layer.fill().await?;
            }
            if let Some(log) = &mut self.log {
                log.fill().await?;
            }
            let heads = self.layers.iter().filter_map(|layer| layer.batch.front());
            let of_log = self.log.as_ref().and_then(|log| log.batch.front());
            let heads = heads.map(|version| &version.key);
            let heads = heads.chain(of_log.map(|row| &row.key));
            let Some(least) = heads.min().cloned() else {
                return Ok(None);
            };
            let mut newest = None;
            for layer in &mut self.layers {
                let is_here = layer
                    .batch
                    .front()
                    .is_some_and(|version| version.key == least);
                if is_here && let Some(version) = layer.batch.pop_front() {
                    newest = version.value;
                }
            }
            if let Some(log) = &mut self.log
                && log.batch.front().is_some_and(|row| row.key == least)
                && let Some(row) = log.batch.pop_front()
            {
                newest = row.value;
            }
            if let Some(value) = newest {
                return Ok(Some((least, value)));
            }
        }
    }

    /// An error about an entry, of the file that was read last.
    fn entry_error(&self, source: DecodeError) -> ExportError {
        let file = self
            .layers
            .iter()
            .map(|layer| layer.file.as_str())
            .collect::<Vec<_>>();
        ExportError::Entry {
            file: file.join(", "),
            source,
        }
    }
}

impl LayerRows<'_> {
    /// Makes sure that the batch has something unless this is the end.
    async fn fill(&mut self) -> Result<(), ExportError> {
        while self.batch.is_empty() {
            if self.open.is_none() {
                let (Some(pair), Some(layer)) = (self.files.next(), self.layer) else {
                    return Ok(());
                };
                self.file.clone_from(&pair.write.name);
                let open = open(layer, &pair).await?;
                self.open = Some(Arc::new(open));
                let first = self.read(Vec::new()).await?;
                if first
                    .front()
                    .is_some_and(|version| version.key <= self.last_key)
                {
                    return Err(ExportError::Overlap {
                        file: self.file.clone(),
                    });
                }
                self.take(first);
                continue;
            }
            let next = self.read(self.last_key.clone()).await?;
            self.take(next);
        }
        Ok(())
    }

    /// A batch of the file in use, after a key.
    async fn read(&self, after: Vec<u8>) -> Result<VecDeque<Version>, ExportError> {
        let Some(pair) = self.open.clone() else {
            return Ok(VecDeque::new());
        };
        let at = self.at;
        self.rt
            .blocking(move || pair.batch(&after, at).map(VecDeque::from))
            .await
    }

    /// Goes on with a batch; an empty one ends the file.
    fn take(&mut self, batch: VecDeque<Version>) {
        match batch.back() {
            Some(last) => self.last_key.clone_from(&last.key),
            None => self.open = None,
        }
        self.batch = batch;
    }
}

async fn open(layer: &Layer, pair: &FilePair) -> Result<OpenPair, ExportError> {
    let write = SstFile::open(&layer.storage, &layer.crypter, &pair.write).await?;
    let default = match &pair.default {
        Some(file) => Some(SstFile::open(&layer.storage, &layer.crypter, file).await?),
        None => None,
    };
    Ok(OpenPair { write, default })
}
