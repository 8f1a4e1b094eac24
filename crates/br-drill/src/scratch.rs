use std::path::{Path, PathBuf};

use br_rt::Rt;

use crate::DrillError;

/// A folder that goes when this is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn create(rt: &Rt, below: &Path) -> Result<Scratch, DrillError> {
        let path = below.join(format!("br-rehearsal-{}", rt.uuid()));
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(Scratch(path)),
            Err(source) => Err(DrillError::Local { path, source }),
        }
    }

    /// A folder in it.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, DrillError> {
        let path = self.0.join(name);
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(DrillError::Local { path, source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a temporary folder stays behind");
        }
    }
}
