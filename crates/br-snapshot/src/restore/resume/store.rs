//! # What it does
//! Keeps small named values: in PD's etcd, or in a folder of a storage.

use br_cluster::{Cluster, Etcd};
use br_rt::CancellationToken;
use br_storage::Storage;
use bytes::Bytes;
use futures::TryStreamExt;

use super::super::error::RestoreError;

/// Where in etcd everything is that is kept of restores. Nothing of TiDB's or PD's lies there.
pub(super) const ETCD_PREFIX: &str = "/holdfast/restore/";

/// A place for the values of one restore.
#[derive(Clone)]
pub(super) enum Store {
    /// In PD's etcd, below [`ETCD_PREFIX`].
    Etcd {
        etcd: Etcd,
        /// With a slash at its end.
        folder: String,
    },
    /// On a storage.
    Storage {
        storage: Storage,
        /// With a slash at its end.
        folder: String,
    },
}

/// Where in etcd the progress of a restore is; with a slash at its end.
pub(super) fn progress_folder(task: &str) -> String {
    format!("{ETCD_PREFIX}progress/{task}/")
}

impl Store {
    pub(super) fn in_etcd(cluster: &Cluster, task: &str) -> Store {
        Store::Etcd {
            // What is done is noted whether the restore was cancelled or not.
            etcd: cluster.etcd().with_cancel(CancellationToken::new()),
            folder: progress_folder(task),
        }
    }

    pub(super) fn on_storage(storage: &Storage, cluster: &Cluster, task: &str) -> Store {
        Store::Storage {
            storage: storage.clone(),
            folder: format!("checkpoints/restore-{}/{task}/", cluster.id()),
        }
    }

    /// Writes a value, in the place of the one that may be there.
    pub(super) async fn put(&self, name: &str, value: Vec<u8>) -> Result<(), RestoreError> {
        match self {
            Store::Etcd { etcd, folder } => {
                let key = format!("{folder}{name}");
                etcd.put(key.as_bytes(), &value, None).await?;
            }
            Store::Storage { storage, folder } => {
                storage.write(&format!("{folder}{name}"), value).await?;
            }
        }
        Ok(())
    }

    /// All values whose names begin so, with the rest of their names.
    pub(super) async fn all(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, RestoreError> {
        let mut all = Vec::new();
        match self {
            Store::Etcd { etcd, folder } => {
                let prefix = format!("{folder}{prefix}");
                for kv in etcd.get_prefix(prefix.as_bytes()).await?.kvs {
                    let name = kv.key.get(prefix.len()..).unwrap_or_default();
                    let name = String::from_utf8_lossy(name).into_owned();
                    all.push((name, Bytes::from(kv.value)));
                }
            }
            Store::Storage { storage, folder } => {
                let prefix = format!("{folder}{prefix}");
                let mut entries = storage.list(&prefix);
                while let Some(entry) = entries.try_next().await? {
                    let bytes = storage.read(&entry.name).await?;
                    let name = entry.name.get(prefix.len()..).unwrap_or_default();
                    all.push((name.to_owned(), bytes));
                }
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Removes all values.
    pub(super) async fn clear(&self) -> Result<(), RestoreError> {
        match self {
            Store::Etcd { etcd, folder } => etcd.delete_prefix(folder.as_bytes()).await?,
            Store::Storage { storage, folder } => {
                let entries: Vec<_> = storage.list(folder).try_collect().await?;
                storage
                    .delete_many(
                        entries
                            .into_iter()
                            .map(|entry| entry.name)
                            .collect::<Vec<_>>(),
                    )
                    .await?;
            }
        }
        Ok(())
    }
}
