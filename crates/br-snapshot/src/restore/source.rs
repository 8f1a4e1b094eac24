//! Reads the metadata of the backup, one object in memory at a time.

use br_format::{
    backupmeta::{BackupHead, BackupMeta, DataFile, MetaNode, MetaWalk},
    names::{self, MetaKind},
    schema::SchemaEntry,
};
use br_storage::{Storage, read_again};
use sha2::{Digest, Sha256};

use super::{error::RestoreError, options::RestoreOptions};
use crate::stored_meta;

/// A backup on external storage, opened.
pub struct Source {
    pub(super) storage: Storage,
    pub(super) meta: BackupMeta,
    /// SHA-256 of `backupmeta` as it is stored, hexadecimal: which backup it is.
    pub(super) sha256: String,
}

impl Source {
    /// Reads `backupmeta`.
    ///
    /// # Errors
    /// There is none, or it is damaged or made by a newer tool.
    pub async fn open(storage: Storage, options: &RestoreOptions) -> Result<Source, RestoreError> {
        let stored = match stored_meta::read(&storage).await {
            Ok(stored) => stored?,
            Err(error) if error.is_not_found() => {
                let unfinished = storage.exists(names::BACKUP_LOCK).await?;
                return Err(RestoreError::NoBackup {
                    storage: storage.to_string(),
                    unfinished,
                });
            }
            Err(error) => return Err(error.into()),
        };
        let sha256 = hex::encode(Sha256::digest(&stored));
        let meta = BackupMeta::decode(stored, &options.crypter, options.compatibility)?;
        Ok(Source {
            storage,
            meta,
            sha256,
        })
    }

    /// What the backup says of itself.
    pub fn head(&self) -> &BackupHead {
        &self.meta.head
    }

    /// Hands every schema to `visit`.
    ///
    /// # Errors
    /// An object is damaged, or the first error of `visit`.
    pub async fn schemas<E: From<RestoreError>>(
        &self,
        mut visit: impl AsyncFnMut(SchemaEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = self
            .meta
            .walk(MetaKind::Schema)
            .map_err(RestoreError::from)?;
        let mut node = Some(walk.root().clone());
        while let Some(current) = node {
            for entry in current.schemas() {
                visit(entry.map_err(RestoreError::from)?).await?;
            }
            node = self.next(&mut walk).await?;
        }
        Ok(())
    }

    /// Hands the data files to `visit`, those of one object together.
    ///
    /// # Errors
    /// An object is damaged, or the first error of `visit`.
    pub(super) async fn data_files(
        &self,
        mut visit: impl AsyncFnMut(Vec<DataFile>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let mut walk = self.meta.walk(MetaKind::DataFile)?;
        let mut node = Some(walk.root().clone());
        while let Some(current) = node {
            visit(current.data_files().collect::<Result<_, _>>()?).await?;
            node = self.next(&mut walk).await?;
        }
        Ok(())
    }

    /// Hands every DDL job to `visit`, with the name of the object that it stands in.
    ///
    /// # Errors
    /// An object is damaged, or the first error of `visit`.
    pub(super) async fn ddl_jobs(
        &self,
        mut visit: impl FnMut(&str, Vec<u8>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let mut walk = self.meta.walk(MetaKind::Ddl)?;
        let mut node = Some(walk.root().clone());
        while let Some(current) = node {
            for job in current.ddl_jobs()? {
                visit(current.object(), job)?;
            }
            node = self.next(&mut walk).await?;
        }
        Ok(())
    }

    async fn next(&self, walk: &mut MetaWalk) -> Result<Option<MetaNode>, RestoreError> {
        let Some(object) = walk.next_object() else {
            return Ok(None);
        };
        let name = object.name().to_owned();
        let node = read_again(async || {
            let stored = self.storage.read(&name).await?;
            Ok::<_, RestoreError>(walk.open(stored)?)
        });
        Ok(Some(node.await?))
    }
}
