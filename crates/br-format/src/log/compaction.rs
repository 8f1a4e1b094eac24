//! What a compaction of a log leaves: SSTs, and indices of them.
//!
//! Below the folder of a compaction lie `outputs/*.sst` and `metas/*.cmeta`; a
//! [migration](crate::log::migration) names that folder and takes the compacted files out of the
//! log. Keys in the SSTs are those of engines, with `z` and timestamps.

use br_proto::backup::{
    File, LogFileSubcompaction, LogFileSubcompactionMeta, LogFileSubcompactions, RegionMetaHint,
    Span as SpanProto, SpansOfFile,
};
use br_proto::metapb;
use br_types::{Cf, RegionId, TableId, TimeStamp};
use prost::Message;

use super::LogFormatError;
use super::file::{EventKind, Span};
use crate::backupmeta::DataFile;

/// Index items in one object, at most.
pub const SUBCOMPACTIONS_PER_META_MAX: usize = 128;

/// Pieces of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSpans {
    /// Its name.
    pub path: String,
    /// The pieces.
    pub spans: Vec<Span>,
}

/// SSTs made of the events of one region, table, column family and kind.
///
/// # Source
/// `backup.LogFileSubcompaction`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subcompaction {
    /// Bytes of the events that went in.
    pub size_bytes: u64,
    /// The region.
    pub region: RegionId,
    /// The table or partition.
    pub table: TableId,
    /// The column family.
    pub cf: Cf,
    /// What the events did.
    pub kind: EventKind,
    /// The least timestamp of them.
    pub input_min_ts: TimeStamp,
    /// The greatest timestamp of them.
    pub input_max_ts: TimeStamp,
    /// Where the compaction began.
    pub compact_from_ts: TimeStamp,
    /// Where it ended.
    pub compact_until_ts: TimeStamp,
    /// The least and the greatest key, memcomparable, as metadata has them.
    pub min_key: Vec<u8>,
    /// See [`Subcompaction::min_key`].
    pub max_key: Vec<u8>,
    /// What went in.
    pub sources: Vec<ObjectSpans>,
    /// What came out.
    pub outputs: Vec<DataFile>,
    /// Of the region; hints.
    pub region_hints: Vec<RegionMetaHint>,
}

/// Reads an index (`.cmeta`).
///
/// # Errors
/// [`LogFormatError::Malformed`].
pub fn decode(object: &str, bytes: &[u8]) -> Result<Vec<Subcompaction>, LogFormatError> {
    let all = LogFileSubcompactions::decode(bytes)
        .map_err(|error| LogFormatError::malformed(object, error.to_string()))?;
    all.subcompactions
        .into_iter()
        .map(|item| from_proto(object, item))
        .collect()
}

/// The bytes of an index.
pub fn encode(items: &[Subcompaction]) -> Vec<u8> {
    LogFileSubcompactions {
        subcompactions: items.iter().map(to_proto).collect(),
    }
    .encode_to_vec()
}

fn from_proto(object: &str, item: LogFileSubcompaction) -> Result<Subcompaction, LogFormatError> {
    let meta = item
        .meta
        .ok_or_else(|| LogFormatError::malformed(object, "an item says nothing"))?;
    let cf = match Cf::from_name(&meta.cf) {
        Some(cf @ (Cf::Default | Cf::Write)) => cf,
        Some(Cf::Lock) | None => {
            let reason = format!("{:?} is no column family", meta.cf);
            return Err(LogFormatError::malformed(object, reason));
        }
    };
    let outputs = item
        .sst_outputs
        .into_iter()
        .map(|file| {
            DataFile::from_proto(object, file)
                .map_err(|error| LogFormatError::malformed(object, error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    Ok(Subcompaction {
        size_bytes: meta.size,
        region: RegionId(meta.region_id),
        table: TableId(meta.table_id),
        cf,
        kind: if meta.ty == 0 {
            EventKind::Delete
        } else {
            EventKind::Put
        },
        input_min_ts: TimeStamp(meta.input_min_ts),
        input_max_ts: TimeStamp(meta.input_max_ts),
        compact_from_ts: TimeStamp(meta.compact_from_ts),
        compact_until_ts: TimeStamp(meta.compact_until_ts),
        min_key: meta.min_key,
        max_key: meta.max_key,
        sources: meta
            .sources
            .into_iter()
            .map(|source| ObjectSpans {
                path: source.path,
                spans: spans_from_proto(&source.spans),
            })
            .collect(),
        outputs,
        region_hints: item.region_meta_hints,
    })
}

fn to_proto(item: &Subcompaction) -> LogFileSubcompaction {
    LogFileSubcompaction {
        meta: Some(LogFileSubcompactionMeta {
            size: item.size_bytes,
            region_id: item.region.0,
            cf: item.cf.name().to_owned(),
            input_max_ts: item.input_max_ts.0,
            input_min_ts: item.input_min_ts.0,
            compact_from_ts: item.compact_from_ts.0,
            compact_until_ts: item.compact_until_ts.0,
            min_key: item.min_key.clone(),
            max_key: item.max_key.clone(),
            ty: i32::from(item.kind == EventKind::Put),
            table_id: item.table.0,
            sources: item
                .sources
                .iter()
                .map(|source| SpansOfFile {
                    path: source.path.clone(),
                    spans: spans_to_proto(&source.spans),
                })
                .collect(),
        }),
        sst_outputs: item
            .outputs
            .iter()
            .cloned()
            .map(|file| -> File { file.into_proto() })
            .collect(),
        region_meta_hints: item.region_hints.clone(),
    }
}

pub(super) fn spans_from_proto(spans: &[SpanProto]) -> Vec<Span> {
    let spans = spans.iter().map(|span| Span {
        offset: span.offset,
        length: span.length,
    });
    spans.collect()
}

pub(super) fn spans_to_proto(spans: &[Span]) -> Vec<SpanProto> {
    let spans = spans.iter().map(|span| SpanProto {
        offset: span.offset,
        length: span.length,
    });
    spans.collect()
}

/// A hint of a region for an index.
pub fn region_hint(file: &super::file::LogFile) -> Option<RegionMetaHint> {
    let epoch = file.region_epochs.last()?;
    Some(RegionMetaHint {
        start_key: file.region_range.start.as_bytes().to_vec(),
        end_key: file.region_range.end.as_bytes().to_vec(),
        region_epoch: Some(metapb::RegionEpoch {
            conf_ver: epoch.conf_ver,
            version: epoch.version,
        }),
    })
}
