//! Brings one sealed payload to the storage: data objects, then metadata.
//!
//! # Ordering and invariants
//! - Data before metadata; progress is published only after metadata. What a crash leaves between
//!   them is an object that nothing names.
//! - A payload is planned once: a repeated attempt writes the same files into objects of the same
//!   names, and skips those that are there already.
//! - Metadata is created, never overwritten. Where its name is taken by something else, the next
//!   greater flush timestamp is taken.

use br_format::{
    crypter::{Crypter, Iv, Method},
    log::{
        content::split_into_groups,
        encryption::KeySource,
        file::{LogCompression, LogFile},
        metadata::{LogGroup, LogMeta},
        names::DataName,
        seal::{FlushMark, Seal},
    },
};
use br_rt::Rt;
use br_storage::{MasterKeys, Storage as ExternalStorage};
use br_types::{StoreId, TimeStamp};

use crate::courtesy::Courtesy;

use super::{
    collector::{RegionProgress, Sealed},
    error::FlushError,
    metrics::Metrics,
    pack::Packer,
    payload::SealedFiles,
};

/// Names for metadata that are tried in a row.
const NAMES_TRIED_MAX: u32 = 16;

/// Where a task's log goes and in which form.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) rt: Rt,
    pub(crate) store: StoreId,
    pub(crate) storage: ExternalStorage,
    pub(crate) compression: LogCompression,
    pub(crate) encryption: Encryption,
    pub(crate) courtesy: Courtesy,
}

/// How a task's log is encrypted.
#[derive(Clone)]
pub(crate) enum Encryption {
    /// With the key of the task, or not at all.
    DataKey(Crypter),
    /// With a key of its own for each object, which lies under a master key in the metadata.
    MasterKeys { method: Method, keys: MasterKeys },
}

impl Encryption {
    /// The key for one object, and what its metadata says about it.
    async fn object_key(&self, rt: &Rt) -> Result<(Crypter, KeySource), FlushError> {
        let (method, keys) = match self {
            Encryption::DataKey(crypter) => return Ok((crypter.clone(), KeySource::Task)),
            Encryption::MasterKeys { method, keys } => (*method, keys),
        };
        let random: [u8; 32] = rt.random_bytes();
        let data_key = random.get(..method.key_size_bytes()).unwrap_or(&random);
        let wrapped = keys.wrap(data_key).await?;
        let crypter = Crypter::new(method, data_key)
            .expect("no method has a longer key than the 32 bytes that were drawn");
        Ok((
            crypter,
            KeySource::MasterKey {
                wrapped,
                opened: None,
            },
        ))
    }
}

/// A sealed payload on its way, with the progress that it proves.
pub(crate) struct Upload {
    files: SealedFiles,
    progress: Option<Vec<RegionProgress>>,
    /// See [`LogMeta::resolved_ts`].
    resolved_ts: TimeStamp,
    now: Option<TimeStamp>,
    flush_ts: TimeStamp,
    seal: Option<Seal>,
    groups: Vec<Group>,
}

struct Group {
    name: String,
    /// Indexes of its files.
    files: Vec<usize>,
    done: Option<LogGroup>,
}

impl Upload {
    /// Plans a payload that was resolved with the timestamp `now`; `global`: the global checkpoint
    /// as it is known.
    pub(crate) fn new(
        destination: &Destination,
        sealed: Sealed,
        now: Option<TimeStamp>,
        global: TimeStamp,
        object_bytes_max: u64,
    ) -> Upload {
        let Sealed {
            files,
            progress,
            store_resolved_ts,
        } = sealed;
        let indexed = files.files.iter().map(|file| &file.file).enumerate();
        let split = split_into_groups(indexed, object_bytes_max, |(_, file)| {
            (file.identity, file.length)
        });
        let groups = split.into_iter().map(|members| {
            let in_group = || members.iter().map(|(_, file)| file);
            let name = DataName {
                min_ts: in_group().map(|file| file.min_ts).min().unwrap_or_default(),
                max_ts: in_group().map(|file| file.max_ts).max().unwrap_or_default(),
                store: destination.store,
                is_schema: in_group().any(|file| file.identity.is_schema),
                unique: destination.rt.uuid().to_string(),
            };
            Group {
                name: name.to_name(),
                files: members.iter().map(|(index, _)| *index).collect(),
                done: None,
            }
        });
        let groups = groups.collect();
        Upload {
            groups,
            progress: store_resolved_ts.is_some().then_some(progress),
            resolved_ts: store_resolved_ts.unwrap_or_default().min(global),
            files,
            now,
            flush_ts: TimeStamp::ZERO,
            seal: None,
        }
    }

    /// The timestamp that its seal was resolved with.
    pub(crate) fn now(&self) -> Option<TimeStamp> {
        self.now
    }

    /// Sets the timestamp that its metadata is named after, and where it stands among the flushes of
    /// the store, before it is run for the first time.
    pub(crate) fn set_flush_ts(&mut self, flush_ts: TimeStamp, seal: Seal) {
        self.flush_ts = flush_ts;
        self.seal = Some(seal);
    }

    /// Names it for the flush after it.
    pub(crate) fn mark(&self) -> FlushMark {
        let files = self.files.files.iter().map(|file| &file.file);
        FlushMark {
            flush_ts: self.flush_ts,
            number: self.seal.map_or(1, Seal::number),
            min_ts: files.map(|file| file.min_ts).min().unwrap_or_default(),
            max_ts: self.max_ts().unwrap_or(self.resolved_ts),
        }
    }

    /// The greatest timestamp of a record.
    pub(crate) fn max_ts(&self) -> Option<TimeStamp> {
        let files = self.files.files.iter();
        files.map(|file| file.file.max_ts).max()
    }

    /// Its flush timestamp, greater than the one set if that was in use; zero: none was set.
    pub(crate) fn flush_ts(&self) -> TimeStamp {
        self.flush_ts
    }

    /// The progress that may be published once [`Upload::run`] has succeeded; `None`: there was no
    /// timestamp to resolve with, and what was published stays.
    pub(crate) fn into_progress(self) -> Option<Vec<RegionProgress>> {
        self.progress
    }

    /// Writes what is not on the storage yet. Can be repeated after an error.
    ///
    /// # Errors
    /// [`FlushError`].
    pub(crate) async fn run(
        &mut self,
        destination: &Destination,
        metrics: &Metrics,
    ) -> Result<(), FlushError> {
        for group in &mut self.groups {
            if group.done.is_some() {
                continue;
            }
            let done = write_group(destination, &self.files, group).await?;
            metrics.objects.add(1);
            metrics.uploaded_bytes.add(done.length);
            group.done = Some(done);
            for index in &group.files {
                self.files.release(*index);
            }
        }
        let groups = self.groups.iter().filter_map(|group| group.done.clone());
        let mut meta = LogMeta::new(destination.store, groups.collect(), self.resolved_ts);
        meta.seal = self.seal;
        for _ in 0..NAMES_TRIED_MAX {
            let object = meta.to_object(self.flush_ts);
            let storage = &destination.storage;
            match storage.create(&object.name, object.bytes.clone()).await {
                Ok(()) => {
                    metrics.objects.add(1);
                    return Ok(());
                }
                Err(error) if error.is_already_exists() => {
                    // An earlier attempt of ours, whose answer was lost; or another object.
                    if storage.read(&object.name).await? == object.bytes {
                        return Ok(());
                    }
                    self.flush_ts = self.flush_ts.next();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(FlushError::NamesTaken(NAMES_TRIED_MAX))
    }
}

async fn write_group(
    destination: &Destination,
    files: &SealedFiles,
    group: &Group,
) -> Result<LogGroup, FlushError> {
    let rt = &destination.rt;
    let sources: Vec<(LogFile, _, Iv)> = group
        .files
        .iter()
        .filter_map(|&index| {
            let file = files.files.get(index)?.file.clone();
            Some((file, files.source(index)?, Iv(rt.random_bytes())))
        })
        .collect();
    let (crypter, key) = destination.encryption.object_key(rt).await?;
    let mut packer = Packer::new(sources, destination.compression, crypter);
    let mut writer = destination.storage.writer(&group.name)?;
    let mut worker = destination.courtesy.flush();
    loop {
        worker.give_way().await;
        let chunk;
        (packer, chunk) = rt
            .blocking(move || {
                let chunk = packer.next();
                (packer, chunk)
            })
            .await;
        let chunk = chunk?;
        if chunk.is_empty() {
            break;
        }
        writer.write(&chunk).await?;
    }
    writer.finish().await?;
    let (mut files, length) = packer.finish();
    for encryption in files.iter_mut().filter_map(|file| file.encryption.as_mut()) {
        encryption.key = key.clone();
    }
    Ok(LogGroup::new(group.name.clone(), files, length))
}
