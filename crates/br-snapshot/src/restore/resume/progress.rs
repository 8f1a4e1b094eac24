//! # What it does
//! Keeps which groups of files are in the cluster, and which other steps are done: a bit for each.
//!
//! # Ordering and invariants
//! A bit is set after the group was ingested. The groups of one object of metadata are numbered as
//! they are made of it; a digest of them stands beside the bits, and bits of another grouping do
//! not count. The same goes for the steps of a layer on top of the backup, which numbers its own.
//! Too few bits cost time, for a step may be done again.
//!
//! # After a crash
//! Bits of the last [`FLUSH_INTERVAL`] may be missing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Rt, Task, kill_point};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    super::{error::RestoreError, file_groups::FileGroup},
    store::Store,
};

/// How long a bit may stay unwritten: what an interruption costs.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of the digest of a grouping.
const DIGEST_LEN: usize = 8;

/// Where the bits are, below the folder of the restore.
const FOLDER: &str = "done/";

/// Where a layer keeps what it has decided, below the folder of the restore.
const NOTES_FOLDER: &str = "notes/";

/// Bits of steps in one value: 16 KB of text, of which one is written anew each second.
const STEPS_OF_VALUE: usize = 1 << 16;

/// Bytes of a note in one value, far below what etcd takes in one request.
const NOTE_BYTES_OF_VALUE: usize = 256 << 10;

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Bits {
    groups: usize,
    digest: String,
    /// Bit n of byte n / 8, hexadecimal.
    #[serde(with = "hexadecimal")]
    done: Vec<u8>,
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Bits {
    fn has(&self, group: usize) -> bool {
        let byte = self.done.get(group / 8).copied().unwrap_or(0);
        byte & (1 << (group % 8)) != 0
    }

    fn set(&mut self, group: usize) {
        if self.done.len() <= group / 8 {
            self.done.resize(group / 8 + 1, 0);
        }
        if let Some(byte) = self.done.get_mut(group / 8) {
            *byte |= 1 << (group % 8);
        }
    }
}

#[derive(Debug, Default)]
struct Books {
    /// By name: the number of an object of metadata, or steps with the number of their value.
    bits: BTreeMap<String, Bits>,
    /// Those that were set since they were written.
    unwritten: std::collections::BTreeSet<String>,
}

impl Books {
    /// The bits of that name, all zero if they are of something else.
    fn open(&mut self, name: &str, groups: usize, digest: String) -> &Bits {
        let bits = self.bits.entry(name.to_owned()).or_default();
        if bits.groups != groups || bits.digest != digest {
            *bits = Bits {
                groups,
                digest,
                done: Vec::new(),
            };
        }
        bits
    }

    fn mark(&mut self, name: String, number: usize) {
        self.bits.entry(name.clone()).or_default().set(number);
        self.unwritten.insert(name);
    }
}

/// What is done of a restore; see the module.
pub struct DoneSteps {
    store: Store,
    books: Arc<Mutex<Books>>,
    /// Held while bits are written, so that whoever flushes waits for those that are on their way.
    writing: Arc<tokio::sync::Mutex<()>>,
    _flushing: Task<()>,
}

impl DoneSteps {
    /// Reads what earlier commands did.
    pub(super) async fn open(rt: &Rt, store: Store) -> Result<DoneSteps, RestoreError> {
        let mut books = Books::default();
        for (name, value) in store.all(FOLDER).await? {
            if let Ok(bits) = serde_json::from_slice(&value) {
                books.bits.insert(name, bits);
            }
        }
        let books = Arc::new(Mutex::new(books));
        let writing = Arc::default();
        let flushing = {
            let (rt2, store) = (rt.clone(), store.clone());
            let (books, writing) = (Arc::clone(&books), Arc::clone(&writing));
            rt.spawn(async move {
                loop {
                    rt2.sleep(FLUSH_INTERVAL).await;
                    if let Err(error) = flush(&store, &books, &writing).await {
                        tracing::warn!(%error, "progress could not be written down yet");
                    }
                }
            })
        };
        Ok(DoneSteps {
            store,
            books,
            writing,
            _flushing: flushing,
        })
    }

    /// Which groups of the object are not in the cluster yet.
    pub(in super::super) fn missing_groups(
        &self,
        object: usize,
        groups: &[FileGroup],
    ) -> Vec<bool> {
        let mut books = self.books();
        let bits = books.open(&name_of(object), groups.len(), digest_of(groups));
        (0..groups.len()).map(|group| !bits.has(group)).collect()
    }

    /// A group is in the cluster.
    pub(in super::super) fn mark_group(&self, object: usize, group: usize) {
        self.books().mark(name_of(object), group);
    }

    /// Which of so many steps of that name are not done yet. The digest tells them from other steps
    /// that might have had the same numbers.
    pub fn missing(&self, name: &str, steps: usize, digest: &str) -> Vec<bool> {
        let mut books = self.books();
        let mut missing = Vec::with_capacity(steps);
        for (value, first) in (0..steps).step_by(STEPS_OF_VALUE).enumerate() {
            let of_value = STEPS_OF_VALUE.min(steps - first);
            let bits = books.open(&steps_name(name, value), of_value, digest.to_owned());
            missing.extend((0..of_value).map(|step| !bits.has(step)));
        }
        missing
    }

    /// A step is done, of those that [`DoneSteps::missing`] told.
    pub fn mark(&self, name: &str, step: usize) {
        let name = steps_name(name, step / STEPS_OF_VALUE);
        self.books().mark(name, step % STEPS_OF_VALUE);
    }

    /// Writes down what is not yet.
    ///
    /// # Errors
    /// PD or the storage did not help.
    pub async fn flush(&self) -> Result<(), RestoreError> {
        flush(&self.store, &self.books, &self.writing).await
    }

    /// What was decided under that name, for whoever goes on.
    ///
    /// # Errors
    /// PD or the storage did not help, or a part of it is missing.
    pub async fn note(&self, name: &str) -> Result<Option<Vec<u8>>, RestoreError> {
        let values = self.store.all(&format!("{NOTES_FOLDER}{name}/")).await?;
        // The last one is written last, and says how many there are; more of them are of one that
        // was not finished.
        let count = values
            .last()
            .and_then(|(name, _)| name.strip_prefix(NOTE_END)?.parse().ok());
        let parts = count.and_then(|count: usize| values.get(..count));
        let Some(parts) = parts else { return Ok(None) };
        let is_whole = parts
            .iter()
            .enumerate()
            .all(|(number, (name, _))| *name == format!("{number:06}"));
        Ok(is_whole.then(|| parts.iter().flat_map(|(_, part)| part.to_vec()).collect()))
    }

    /// Keeps what was decided under that name. Only what is whole is read again.
    ///
    /// # Errors
    /// PD or the storage did not help.
    pub async fn keep_note(&self, name: &str, note: &[u8]) -> Result<(), RestoreError> {
        let folder = format!("{NOTES_FOLDER}{name}/");
        let parts = note.chunks(NOTE_BYTES_OF_VALUE);
        let count = parts.len();
        for (number, part) in parts.enumerate() {
            let name = format!("{folder}{number:06}");
            self.store.put(&name, part.to_vec()).await?;
        }
        let end = format!("{folder}{NOTE_END}{count:06}");
        self.store.put(&end, b"end".to_vec()).await
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the name of the last value of a note begins with; sorts behind numbers.
const NOTE_END: &str = "end-";

async fn flush(
    store: &Store,
    books: &Mutex<Books>,
    writing: &tokio::sync::Mutex<()>,
) -> Result<(), RestoreError> {
    let _alone = writing.lock().await;
    let unwritten: Vec<(String, Bits)> = {
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        let names = std::mem::take(&mut books.unwritten);
        let bits = |name: String| {
            let bits = books.bits.get(&name)?.clone();
            Some((name, bits))
        };
        names.into_iter().filter_map(bits).collect()
    };
    let mut unwritten = unwritten.into_iter();
    while let Some((name, bits)) = unwritten.next() {
        let value = serde_json::to_vec(&bits).unwrap_or_default();
        if let Err(error) = store.put(&format!("{FOLDER}{name}"), value).await {
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            books.unwritten.insert(name);
            books.unwritten.extend(unwritten.map(|(name, _)| name));
            return Err(error);
        }
        kill_point("restore.progress");
    }
    Ok(())
}

fn name_of(object: usize) -> String {
    format!("{object:09}")
}

fn steps_name(name: &str, value: usize) -> String {
    format!("{name}.{value:06}")
}

/// Of the names of all files, by group.
fn digest_of(groups: &[FileGroup]) -> String {
    let mut digest = Sha256::new();
    for group in groups {
        for file in group.files() {
            digest.update(file.name.as_bytes());
            digest.update([0]);
        }
        digest.update(group.range.end.as_bytes());
        digest.update([1]);
    }
    let digest = digest.finalize();
    hex::encode(digest.get(..DIGEST_LEN).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use br_format::{backupmeta::DataFile, kv_stats::KvStats};
    use br_storage::{Backend, Storage};
    use br_types::{Cf, KeyRange, TimeStamp};

    use super::*;
    use crate::restore::file_groups::{FileUnit, GroupLimit, groups};

    fn made_of(names: &[&str]) -> Vec<FileGroup> {
        let units = names.iter().map(|name| {
            let range = KeyRange::new(name.as_bytes(), format!("{name}z").into_bytes());
            FileUnit {
                rule: None,
                files: vec![DataFile {
                    name: (*name).to_owned(),
                    sha256: [0; 32],
                    range: range.clone(),
                    cf: Cf::Write,
                    start_ts: TimeStamp::ZERO,
                    end_ts: TimeStamp(1),
                    stats: KvStats {
                        total_kvs: 1,
                        ..KvStats::default()
                    },
                    size_bytes: 1,
                    cipher_iv: None,
                }],
                range,
            }
        });
        let limit = GroupLimit {
            size_bytes_max: u64::MAX,
            keys_max: 1,
        };
        groups(units.collect(), limit)
    }

    #[tokio::test]
    async fn groups_that_are_done_are_known_as_long_as_they_are_the_same() {
        let (rt, name) = (Rt::real(), "progress-1");
        let backend = Backend::Memory {
            name: name.to_owned(),
            prefix: String::new(),
        };
        let store = Store::Storage {
            storage: Storage::open(&rt, &backend).await.expect("memory"),
            folder: "task/".to_owned(),
        };
        let names: Vec<String> = (0..20).map(|n| format!("f{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = made_of(&names);
        assert_eq!(all.len(), 20);
        let progress = DoneSteps::open(&rt, store.clone()).await.expect("opened");
        assert!(
            progress
                .missing_groups(3, &all)
                .into_iter()
                .all(|missing| missing)
        );
        for group in [0, 8, 19] {
            progress.mark_group(3, group);
        }
        progress.flush().await.expect("written");
        let again = DoneSteps::open(&rt, store.clone()).await.expect("opened");
        let missing = again.missing_groups(3, &all);
        let done: Vec<_> = (0..20).filter(|group| !missing[*group]).collect();
        assert_eq!(done, [0, 8, 19]);
        assert!(
            again
                .missing_groups(4, &all)
                .into_iter()
                .all(|missing| missing)
        );
        // One file less, or another one: the numbers mean other groups.
        let fewer = made_of(&names[..19]);
        assert!(
            again
                .missing_groups(3, &fewer)
                .into_iter()
                .all(|missing| missing)
        );
        store.clear().await.expect("removed");
        let nothing = DoneSteps::open(&rt, store).await.expect("opened");
        assert!(
            nothing
                .missing_groups(3, &all)
                .into_iter()
                .all(|missing| missing)
        );
        br_storage::forget_memory(name);
    }

    #[tokio::test]
    async fn steps_and_notes_are_known_to_whoever_goes_on() {
        let (rt, name) = (Rt::real(), "progress-2");
        let backend = Backend::Memory {
            name: name.to_owned(),
            prefix: String::new(),
        };
        let store = Store::Storage {
            storage: Storage::open(&rt, &backend).await.expect("memory"),
            folder: "task/".to_owned(),
        };
        let steps = STEPS_OF_VALUE + 3;
        let done = DoneSteps::open(&rt, store.clone()).await.expect("opened");
        assert_eq!(done.missing("log", steps, "a"), vec![true; steps]);
        for step in [0, 7, STEPS_OF_VALUE + 2] {
            done.mark("log", step);
        }
        done.flush().await.expect("written");
        assert_eq!(done.note("cuts").await.expect("read"), None);
        let note: Vec<u8> = (0..NOTE_BYTES_OF_VALUE * 2 + 5)
            .map(|n| (n % 251) as u8)
            .collect();
        done.keep_note("cuts", &note).await.expect("kept");
        done.keep_note("nothing", b"").await.expect("kept");
        let again = DoneSteps::open(&rt, store.clone()).await.expect("opened");
        let missing = again.missing("log", steps, "a");
        let found: Vec<_> = (0..steps).filter(|step| !missing[*step]).collect();
        assert_eq!(found, [0, 7, STEPS_OF_VALUE + 2]);
        assert_eq!(again.note("cuts").await.expect("read"), Some(note));
        assert_eq!(again.note("nothing").await.expect("read"), Some(Vec::new()));
        // A part of a note is none.
        let part = format!("{NOTES_FOLDER}half/000000");
        store.put(&part, b"x".to_vec()).await.expect("put");
        assert_eq!(again.note("half").await.expect("read"), None);
        // Other steps.
        assert_eq!(again.missing("log", steps, "b"), vec![true; steps]);
        br_storage::forget_memory(name);
    }
}
