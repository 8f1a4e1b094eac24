//! # What it does
//! Takes a finished local file into a storage that is a directory of the same file system, by
//! renaming it: not a byte is copied.
//!
//! # Ordering and invariants
//! As each write to a directory: the bytes are synced, then the name appears, then the directory
//! is synced.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{Failure, Operation, Storage, StorageError, open::local_failure};

impl Storage {
    /// Whether [`Storage::adopt`] can take files out of the folder `from`.
    pub fn can_adopt_from(&self, from: &Path) -> bool {
        let Some(store) = self.local_store().filter(|_| !self.is_sealed()) else {
            return false;
        };
        // The folder itself is no name of an object; that of any object in it is.
        let Ok(inside) = store.path_to_filesystem(&object_store::path::Path::from("object")) else {
            return false;
        };
        let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
        let there = inside.parent().and_then(device);
        there.is_some() && there == device(from)
    }

    /// Moves `file` to the object `name`, in the place of one that may be there; only where
    /// [`Storage::can_adopt_from`] says so.
    ///
    /// # Errors
    /// As [`Storage::write`]; the file is still where it was then, or the object is there.
    pub async fn adopt(&self, file: &Path, name: &str) -> Result<(), StorageError> {
        let path = self.path(Operation::Write, name)?;
        let mut is_repeated = false;
        self.retry(Operation::Write, name, || {
            let is_first = !std::mem::replace(&mut is_repeated, true);
            let to = match self.local_store() {
                Some(store) if !self.is_sealed() => {
                    store.path_to_filesystem(&path).map_err(Failure::from)
                }
                _ => Err(Failure::Settings(
                    "it is not a directory of plain files".into(),
                )),
            };
            let file = file.to_owned();
            async move {
                let to = to?;
                let rt = self.rt();
                let moved = rt.blocking(move || move_file(&file, &to, is_first)).await;
                moved.map_err(|error| local_failure(&error))?;
                self.faults().after_change(rt)
            }
        })
        .await
    }
}

fn move_file(from: &Path, to: &Path, is_first: bool) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    match File::open(from) {
        Ok(file) => file.sync_all()?,
        // An attempt whose answer was lost has moved it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_first && to.exists() => {
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    fs::create_dir_all(folder)?;
    fs::rename(from, to)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use br_rt::{Rt, UnixMillis};

    use super::*;
    use crate::{Backend, Faults, StorageOptions};

    #[tokio::test(start_paused = true)]
    async fn a_file_becomes_an_object() {
        let dir = tempfile::tempdir().unwrap();
        let (base, scratch) = (dir.path().join("base"), dir.path().join("scratch"));
        fs::create_dir_all(&scratch).unwrap();
        let url = format!("local://{}", base.display());
        let backend = Backend::parse(&url, &StorageOptions::default()).unwrap();
        let rt = Rt::simulated(7, UnixMillis(0));
        let storage = Storage::create_base(&rt, &backend).await.unwrap();
        let storage = storage.with_faults(Faults {
            errors_per_mille: 100,
            lost_answers_per_mille: 150,
            ..Faults::default()
        });
        assert!(storage.can_adopt_from(&scratch));
        for number in 0..20_u8 {
            let file = scratch.join("file");
            fs::write(&file, [number; 3]).unwrap();
            let name = format!("1/{}", number / 2);
            storage.adopt(&file, &name).await.unwrap();
            assert!(!file.exists());
            assert_eq!(storage.read(&name).await.unwrap(), vec![number; 3]);
        }
        let missing = scratch.join("missing");
        assert!(storage.adopt(&missing, "2").await.is_err());
        assert!(!storage.exists("2").await.unwrap());
    }

    #[tokio::test]
    async fn only_directories_adopt() {
        let backend = Backend::parse("memory://adopt", &StorageOptions::default()).unwrap();
        let storage = Storage::open(&Rt::real(), &backend).await.unwrap();
        assert!(!storage.can_adopt_from(Path::new("/")));
        assert!(storage.adopt(Path::new("/nothing"), "a").await.is_err());
    }
}
