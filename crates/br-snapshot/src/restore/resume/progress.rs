//! # What it does
//! Keeps which groups of files are in the cluster: a bit for each.
//!
//! # Ordering and invariants
//! A bit is set after the group was ingested. The groups of one object of metadata are numbered as
//! they are made of it; a digest of them stands beside the bits, and bits of another grouping do
//! not count. Too few bits cost time, for a group may be ingested again.
//!
//! # After a crash
//! Bits of the last [`FLUSH_INTERVAL`] may be missing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_rt::{Rt, Task, kill_point};
use bytes::Bytes;
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
    objects: BTreeMap<usize, Bits>,
    /// Objects whose bits were set since they were written.
    unwritten: std::collections::BTreeSet<usize>,
}

/// See the module.
pub(in super::super) struct Progress {
    store: Store,
    books: Arc<Mutex<Books>>,
    _flushing: Task<()>,
}

impl Progress {
    /// Reads what earlier commands did.
    pub(super) async fn open(rt: &Rt, store: Store) -> Result<Progress, RestoreError> {
        let mut books = Books::default();
        for (name, value) in store.all(FOLDER).await? {
            if let Some((object, bits)) = read(&name, &value) {
                books.objects.insert(object, bits);
            }
        }
        let books = Arc::new(Mutex::new(books));
        let flushing = {
            let (rt2, store, books) = (rt.clone(), store.clone(), books.clone());
            rt.spawn(async move {
                loop {
                    rt2.sleep(FLUSH_INTERVAL).await;
                    if let Err(error) = flush(&store, &books).await {
                        tracing::warn!(%error, "progress could not be written down yet");
                    }
                }
            })
        };
        Ok(Progress {
            store,
            books,
            _flushing: flushing,
        })
    }

    /// Which groups of the object are not in the cluster yet.
    pub(in super::super) fn missing(&self, object: usize, groups: &[FileGroup]) -> Vec<bool> {
        let digest = digest_of(groups);
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = books.objects.entry(object).or_default();
        if bits.groups != groups.len() || bits.digest != digest {
            *bits = Bits {
                groups: groups.len(),
                digest,
                done: Vec::new(),
            };
        }
        (0..groups.len()).map(|group| !bits.has(group)).collect()
    }

    /// A group is in the cluster.
    pub(in super::super) fn mark(&self, object: usize, group: usize) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.objects.entry(object).or_default().set(group);
        books.unwritten.insert(object);
    }

    /// Writes down what is not yet.
    pub(super) async fn flush(&self) -> Result<(), RestoreError> {
        flush(&self.store, &self.books).await
    }
}

async fn flush(store: &Store, books: &Mutex<Books>) -> Result<(), RestoreError> {
    let unwritten: Vec<(usize, Bits)> = {
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = std::mem::take(&mut books.unwritten);
        let bits = |object| Some((object, books.objects.get(&object)?.clone()));
        objects.into_iter().filter_map(bits).collect()
    };
    for (object, bits) in unwritten {
        let value = serde_json::to_vec(&bits).unwrap_or_default();
        if let Err(error) = store.put(&name_of(object), value).await {
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            books.unwritten.insert(object);
            return Err(error);
        }
        kill_point("restore.progress");
    }
    Ok(())
}

fn name_of(object: usize) -> String {
    format!("{FOLDER}{object:09}")
}

fn read(name: &str, value: &Bytes) -> Option<(usize, Bits)> {
    let object = name.parse().ok()?;
    let bits = serde_json::from_slice(value).ok()?;
    Some((object, bits))
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
        let progress = Progress::open(&rt, store.clone()).await.expect("opened");
        assert!(progress.missing(3, &all).into_iter().all(|missing| missing));
        for group in [0, 8, 19] {
            progress.mark(3, group);
        }
        progress.flush().await.expect("written");
        let again = Progress::open(&rt, store.clone()).await.expect("opened");
        let missing = again.missing(3, &all);
        let done: Vec<_> = (0..20).filter(|group| !missing[*group]).collect();
        assert_eq!(done, [0, 8, 19]);
        assert!(again.missing(4, &all).into_iter().all(|missing| missing));
        // One file less, or another one: the numbers mean other groups.
        let fewer = made_of(&names[..19]);
        assert!(again.missing(3, &fewer).into_iter().all(|missing| missing));
        store.clear().await.expect("removed");
        let nothing = Progress::open(&rt, store).await.expect("opened");
        assert!(nothing.missing(3, &all).into_iter().all(|missing| missing));
        br_storage::forget_memory(name);
    }
}
