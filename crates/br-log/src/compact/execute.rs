use br_codec::{WriteRef, checksum::crc64_of_pair, key};
use br_format::{
    backupmeta::DataFile,
    crypter::Crypter,
    kv_stats::KvStats,
    log::{
        LogFormatError,
        compaction::{ObjectSpans, Subcompaction, region_hint},
        record::Records,
    },
};
use br_rt::kill_point;
use br_types::{Cf, KeyRange, RawKey, TimeStamp};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{CompactError, CompactTarget, collect::Group};
use crate::{read::LogStorage, scratch::ScratchDir};

/// Makes SSTs.
pub(super) struct Executor<'a> {
    pub(super) target: &'a CompactTarget,
    pub(super) scratch: &'a ScratchDir,
    pub(super) log: LogStorage,
    pub(super) folder: &'a str,
    pub(super) from_ts: TimeStamp,
    pub(super) until_ts: TimeStamp,
}

impl Executor<'_> {
    /// Makes and stores the SST of one group.
    ///
    /// # Errors
    /// A file is damaged, or something could not be written.
    pub(super) async fn run(&self, group: &Group) -> Result<Subcompaction, CompactError> {
        let mut inputs = Vec::with_capacity(group.files.len());
        for (object, file) in &group.files {
            let plain = Crypter::plaintext();
            let records = self.log.read_file(object, file, &plain).await?;
            inputs.push((object.clone(), records));
        }
        let rt = &self.target.rt;
        let cf = group.identity.cf;
        let ssts = self.target.ssts.clone();
        let path = self.scratch.new_path("sst");
        let made = rt
            .blocking(move || {
                let made = make(cf, &inputs, &*ssts, &path);
                let read = made.and_then(|made| match std::fs::read(&path) {
                    Ok(content) => Ok((made, Bytes::from(content))),
                    Err(source) => Err(CompactError::LocalFile {
                        path: path.clone(),
                        source,
                    }),
                });
                // Whether it was written or not.
                let _ = std::fs::remove_file(&path);
                read
            })
            .await;
        let (made, content) = made?;
        let min_ts = group.files.iter().map(|(_, file)| file.min_ts).min();
        let max_ts = group.files.iter().map(|(_, file)| file.max_ts).max();
        let (min_ts, max_ts) = (min_ts.unwrap_or_default(), max_ts.unwrap_or_default());
        let region = group.identity.region;
        let name = format!(
            "{}/outputs/{:016X}_{:016X}_{cf}_{region}_{}.sst",
            self.folder,
            min_ts.0,
            max_ts.0,
            rt.uuid()
        );
        let output = DataFile {
            name: name.clone(),
            sha256: Sha256::digest(&content).into(),
            range: made.range,
            cf,
            start_ts: min_ts,
            end_ts: max_ts,
            stats: made.stats,
            size_bytes: content.len() as u64,
            cipher_iv: None,
        };
        self.target.storage.write(&name, content).await?;
        kill_point("compact.sst");
        Ok(self.item(group, output, (min_ts, max_ts)))
    }

    fn item(
        &self,
        group: &Group,
        output: DataFile,
        (min_ts, max_ts): (TimeStamp, TimeStamp),
    ) -> Subcompaction {
        let mut sources: Vec<ObjectSpans> = Vec::new();
        for (object, file) in &group.files {
            match sources.iter_mut().find(|source| source.path == *object) {
                Some(source) => source.spans.push(file.span),
                None => sources.push(ObjectSpans {
                    path: object.clone(),
                    spans: vec![file.span],
                }),
            }
        }
        let files = || group.files.iter().map(|(_, file)| file);
        Subcompaction {
            size_bytes: group.bytes(),
            region: group.identity.region,
            table: group.identity.table,
            cf: group.identity.cf,
            kind: group.identity.kind,
            input_min_ts: min_ts,
            input_max_ts: max_ts,
            compact_from_ts: self.from_ts,
            compact_until_ts: self.until_ts,
            min_key: files()
                .map(|file| file.first_key.clone())
                .min()
                .unwrap_or_default(),
            max_key: files()
                .map(|file| file.last_key.clone())
                .max()
                .unwrap_or_default(),
            sources,
            outputs: vec![output],
            region_hints: files().filter_map(region_hint).collect(),
        }
    }
}

struct Made {
    range: KeyRange<RawKey>,
    stats: KvStats,
}

/// Sorts the records of all inputs, each once, into one SST.
fn make(
    cf: Cf,
    inputs: &[(String, Bytes)],
    ssts: &dyn br_sst::SstFiles,
    path: &std::path::Path,
) -> Result<Made, CompactError> {
    let mut records: Vec<(&[u8], &[u8], usize)> = Vec::new();
    for (input, (object, stream)) in inputs.iter().enumerate() {
        for record in Records::new(stream) {
            let record = record.map_err(|error| malformed(object, &error))?;
            records.push((record.key, record.value, input));
        }
    }
    records.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let mut writer = ssts.create(path)?;
    let mut stats = KvStats::default();
    let mut bounds: Option<(&[u8], &[u8])> = None;
    let mut data_key = Vec::new();
    let mut rest = records.as_slice();
    while let Some((first, _)) = rest.split_first() {
        let same = rest.partition_point(|record| record.0 == first.0);
        let (versions, after) = rest.split_at(same);
        rest = after;
        let value = choose(cf, versions).ok_or_else(|| CompactError::Conflict {
            object: inputs
                .get(first.2)
                .map(|(object, _)| object.clone())
                .unwrap_or_default(),
        })?;
        data_key.clear();
        data_key.push(key::DATA_PREFIX);
        data_key.extend_from_slice(first.0);
        writer.put(&data_key, value)?;
        stats += KvStats {
            crc64_xor: crc64_of_pair(first.0, value),
            total_kvs: 1,
            total_bytes: (first.0.len() + value.len()) as u64,
        };
        bounds = Some((bounds.map_or(first.0, |(start, _)| start), first.0));
    }
    writer.finish()?;
    let object = inputs.first().map_or("", |(object, _)| object);
    let (start, end) = bounds.unwrap_or_default();
    let raw = |stored: &[u8]| {
        let (encoded, _) = key::split_ts(stored).map_err(|error| malformed(object, &error))?;
        key::decode(encoded).map_err(|error| malformed(object, &error))
    };
    Ok(Made {
        range: KeyRange {
            start: raw(start)?,
            end: raw(end)?.successor(),
        },
        stats,
    })
}

/// Of several records of one key and timestamp the one that counts: a commit hides the rollback of
/// another transaction that began at its timestamp, and tells of it; a protected rollback hides
/// one that is not.
fn choose<'r>(cf: Cf, versions: &[(&'r [u8], &'r [u8], usize)]) -> Option<&'r [u8]> {
    let mut versions = versions.iter().map(|version| version.1);
    let first = versions.next()?;
    versions.try_fold(first, |chosen, other| {
        if chosen == other {
            return Some(chosen);
        }
        if cf != Cf::Write {
            return None;
        }
        let rank = |value: &[u8]| {
            let record = WriteRef::parse(value).ok()?;
            let is_rollback = record.kind == br_codec::WriteKind::Rollback;
            Some(match (is_rollback, record.has_overlapped_rollback) {
                (false, true) => 3,
                (false, false) => 2,
                (true, _) if record.is_protected_rollback() => 1,
                (true, _) => 0,
            })
        };
        match rank(chosen)?.cmp(&rank(other)?) {
            std::cmp::Ordering::Less => Some(other),
            std::cmp::Ordering::Greater => Some(chosen),
            std::cmp::Ordering::Equal => None,
        }
    })
}

fn malformed(object: &str, error: &br_codec::DecodeError) -> CompactError {
    LogFormatError::Malformed {
        object: object.to_owned(),
        reason: error.to_string(),
    }
    .into()
}
