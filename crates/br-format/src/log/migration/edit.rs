use br_proto::backup::{
    DeleteSpansOfFile, LogFileCompaction as CompactionProto, MetaEdit as EditProto,
};
use br_types::TimeStamp;
use crc_fast::{CrcAlgorithm, Digest, checksum};

use super::extend_new;
use crate::log::compaction::{spans_from_proto, spans_to_proto};
use crate::log::file::Span;

/// Pieces of an object that are no longer part of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedSpans {
    /// The object.
    pub path: String,
    /// The pieces: each is a whole file.
    pub spans: Vec<Span>,
    /// Bytes of the object: once the pieces add up to that, it can be removed.
    pub whole_length: u64,
}

impl DeletedSpans {
    /// Whether the pieces cover the object without a gap.
    pub fn is_whole(&self) -> bool {
        let mut spans = self.spans.clone();
        spans.sort_unstable();
        let mut end = 0;
        for span in spans {
            if span.offset > end {
                return false;
            }
            end = end.max(span.end().unwrap_or(u64::MAX));
        }
        end >= self.whole_length && self.whole_length > 0
    }
}

/// What is taken out of one metadata object.
///
/// # Source
/// `backup.MetaEdit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaEdit {
    /// The metadata.
    pub path: String,
    /// Objects that are no longer part of the log.
    pub delete_objects: Vec<String>,
    /// Files that are no longer part of the log.
    pub delete_spans: Vec<DeletedSpans>,
    /// All of it is no longer part of the log.
    pub destruct_self: bool,
    /// Only schemas are left in it.
    pub all_data_files_compacted: bool,
}

impl MetaEdit {
    pub(super) fn from_proto(edit: EditProto) -> MetaEdit {
        let spans = edit.delete_logical_files.into_iter();
        MetaEdit {
            path: edit.path,
            delete_objects: edit.delete_physical_files,
            delete_spans: spans
                .map(|item| DeletedSpans {
                    spans: spans_from_proto(&item.spans),
                    path: item.path,
                    whole_length: item.whole_file_length,
                })
                .collect(),
            destruct_self: edit.destruct_self,
            all_data_files_compacted: edit.all_data_files_compacted,
        }
    }

    pub(super) fn to_proto(&self) -> EditProto {
        let spans = self.delete_spans.iter();
        EditProto {
            path: self.path.clone(),
            delete_physical_files: self.delete_objects.clone(),
            delete_logical_files: spans
                .map(|item| DeleteSpansOfFile {
                    path: item.path.clone(),
                    spans: spans_to_proto(&item.spans),
                    whole_file_length: item.whole_length,
                })
                .collect(),
            destruct_self: self.destruct_self,
            all_data_files_compacted: self.all_data_files_compacted,
        }
    }

    pub(super) fn hash(&self) -> u64 {
        const ISO: CrcAlgorithm = CrcAlgorithm::Crc64GoIso;
        let objects = self.delete_objects.iter();
        let objects = objects.map(|path| checksum(ISO, path.as_bytes()));
        let spans = self.delete_spans.iter().flat_map(|item| {
            item.spans.iter().map(|span| {
                let mut digest = Digest::new(ISO);
                digest.update(item.path.as_bytes());
                digest.update(&span.offset.to_le_bytes());
                digest.update(&span.length.to_le_bytes());
                digest.finalize()
            })
        });
        let own = checksum(ISO, &[u8::from(self.destruct_self)]);
        objects.chain(spans).fold(own, |hash, item| hash ^ item)
    }

    /// Takes over what another edit of the same object says.
    pub fn merge(&mut self, other: MetaEdit) {
        extend_new(&mut self.delete_objects, other.delete_objects);
        for item in other.delete_spans {
            let known = self
                .delete_spans
                .iter_mut()
                .find(|known| known.path == item.path);
            match known {
                Some(known) => {
                    extend_new(&mut known.spans, item.spans);
                    known.whole_length = known.whole_length.max(item.whole_length);
                }
                None => self.delete_spans.push(item),
            }
        }
        self.destruct_self |= other.destruct_self;
        self.all_data_files_compacted |= other.all_data_files_compacted;
    }
}

/// SSTs that stand for files that were taken out of the log.
///
/// # Source
/// `backup.LogFileCompaction`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// The range of timestamps that was compacted.
    pub from_ts: TimeStamp,
    /// See [`Compaction::from_ts`].
    pub until_ts: TimeStamp,
    /// Its name.
    pub name: String,
    /// JSON of the tool that did it.
    pub comments: String,
    /// The folder of its indices (`*.cmeta`).
    pub artifacts: String,
    /// Of the indices.
    pub artifacts_hash: u64,
    /// The folder of its SSTs.
    pub generated_files: String,
    /// The least timestamp of a record in its SSTs.
    pub input_min_ts: TimeStamp,
    /// The greatest timestamp of a record in its SSTs.
    pub input_max_ts: TimeStamp,
    /// Bytes of the indices.
    pub metas_size_bytes: u64,
    /// Bytes of the SSTs.
    pub ssts_size_bytes: u64,
}

impl Compaction {
    pub(super) fn from_proto(compaction: CompactionProto) -> Compaction {
        Compaction {
            from_ts: TimeStamp(compaction.compaction_from_ts),
            until_ts: TimeStamp(compaction.compaction_until_ts),
            name: compaction.name,
            comments: compaction.comments,
            artifacts: compaction.artifacts,
            artifacts_hash: compaction.artifacts_hash,
            generated_files: compaction.generated_files,
            input_min_ts: TimeStamp(compaction.input_min_ts),
            input_max_ts: TimeStamp(compaction.input_max_ts),
            metas_size_bytes: compaction.generated_cmeta_files_total_size,
            ssts_size_bytes: compaction.generated_sst_files_total_size,
        }
    }

    pub(super) fn to_proto(&self) -> CompactionProto {
        CompactionProto {
            compaction_from_ts: self.from_ts.0,
            compaction_until_ts: self.until_ts.0,
            name: self.name.clone(),
            comments: self.comments.clone(),
            artifacts: self.artifacts.clone(),
            artifacts_hash: self.artifacts_hash,
            generated_files: self.generated_files.clone(),
            input_min_ts: self.input_min_ts.0,
            input_max_ts: self.input_max_ts.0,
            generated_cmeta_files_total_size: self.metas_size_bytes,
            generated_sst_files_total_size: self.ssts_size_bytes,
        }
    }
}
