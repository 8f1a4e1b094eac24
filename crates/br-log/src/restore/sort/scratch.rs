use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A folder for files that nobody needs after this process; removed with all in it when dropped.
pub(crate) struct ScratchDir {
    path: PathBuf,
    next: AtomicU64,
}

impl ScratchDir {
    /// Makes a folder of that name in `parent`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(parent: &Path, name: &str) -> io::Result<ScratchDir> {
        let path = parent.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(ScratchDir {
            path,
            next: AtomicU64::new(0),
        })
    }

    /// A path for a new file.
    pub(crate) fn new_path(&self, extension: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{number:08}.{extension}"))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch folder was left behind");
        }
    }
}
