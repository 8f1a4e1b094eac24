use std::{
    fs, io,
    path::{Path, PathBuf},
};

use br_rt::Rt;

/// A file of its own name in a scratch folder; removed when this is dropped, unless it was moved
/// away or kept.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    path: PathBuf,
}

impl ScratchFile {
    /// Picks a name; makes no file.
    pub(crate) fn new(rt: &Rt, dir: &Path, extension: &str) -> ScratchFile {
        ScratchFile {
            path: dir.join(format!("{}.{extension}", rt.uuid().simple())),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place.
    ///
    /// # Errors
    /// Of the file system; the file is removed then.
    pub(crate) fn keep_as(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a scratch file");
            }
            _ => {}
        }
    }
}

/// Makes an empty folder: what a process that died left in it is removed.
///
/// # Errors
/// Of the file system.
pub(crate) fn empty_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(path)
}
