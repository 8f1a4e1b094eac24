use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use br_types::{Classify, Code, Kind};

const NAME: &str = "LOCK.cluster";

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    /// Another process has it.
    #[error("the data folder {} is in use by process {holder}", path.display())]
    Held {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, as it wrote it down.
        holder: String,
    },
    /// The system failed.
    #[error("cannot lock the data folder {}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Classify for LockFileError {
    fn kind(&self) -> Kind {
        match self {
            LockFileError::Held { .. } => Kind::Conflict,
            LockFileError::Io { .. } => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        Code::of_kind(self.kind())
    }

    fn next_step(&self) -> Option<String> {
        match self {
            LockFileError::Held { holder, .. } => Some(format!(
                "Stop process {holder}, or choose another folder with --data-dir."
            )),
            LockFileError::Io { .. } => None,
        }
    }
}

/// A folder that no other process uses while this lives. The system lets go of it when the process
/// dies, however that comes about.
#[derive(Debug)]
pub(crate) struct LockFile(#[expect(dead_code, reason = "holds the lock")] File);

impl LockFile {
    /// Locks a folder that exists, and notes who holds it.
    ///
    /// # Errors
    /// [`LockFileError`].
    pub(crate) fn take(folder: &Path) -> Result<LockFile, LockFileError> {
        let failed = |source| LockFileError::Io {
            path: folder.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(NAME))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.take(32).read_to_string(&mut holder).map_err(failed)?;
                let holder = match holder.trim() {
                    "" => "unknown".to_owned(),
                    pid => pid.to_owned(),
                };
                return Err(LockFileError::Held {
                    path: folder.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())?;
            file.sync_data()
        };
        note(&mut file).map_err(failed)?;
        Ok(LockFile(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_learns_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = LockFile::take(folder.path()).unwrap();
        let error = LockFile::take(folder.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(first);
        LockFile::take(folder.path()).unwrap();
    }
}
