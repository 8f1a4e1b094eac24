use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use br_rt::{ProcessName, Rt};

/// What the names of all scratch folders begin with.
const PREFIX: &str = "br-scratch-";

/// A folder for files that nobody needs after this process; removed with all in it when dropped, and
/// by the next process on this machine if this one dies.
pub(crate) struct ScratchDir {
    path: PathBuf,
    next: AtomicU64,
}

impl ScratchDir {
    /// Makes a folder in `parent`, and removes those that dead processes left there.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(rt: &Rt, parent: &Path) -> io::Result<ScratchDir> {
        let process = ProcessName::current();
        std::fs::create_dir_all(parent)?;
        remove_left_behind(parent, &process);
        let path = parent.join(format!(
            "{}{}-{}-{}",
            space_prefix(&process),
            process.pid,
            process.start_ticks,
            rt.uuid()
        ));
        std::fs::create_dir(&path)?;
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

/// The folder may be seen from several spaces of process numbers.
fn space_prefix(process: &ProcessName) -> String {
    let space = format!("{}/{}", process.host, process.pid_space);
    format!("{PREFIX}{:08x}-", crc32fast::hash(space.as_bytes()))
}

/// Failing leaves them to the next one.
fn remove_left_behind(parent: &Path, here: &ProcessName) {
    let prefix = space_prefix(here);
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let Some(owner) = owner.and_then(|rest| owner_of(rest, here)) else {
            continue;
        };
        if owner.is_surely_dead() {
            let path = entry.path();
            tracing::info!(path = %path.display(), "removed what a dead process left");
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::debug!(path = %path.display(), %error, "not removed");
            }
        }
    }
}

fn owner_of(rest: &str, here: &ProcessName) -> Option<ProcessName> {
    let mut parts = rest.split('-');
    Some(ProcessName {
        pid: parts.next()?.parse().ok()?,
        start_ticks: parts.next()?.parse().ok()?,
        ..here.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_goes_and_what_the_living_have_stays() {
        let parent = tempfile::tempdir().expect("a folder");
        let rt = Rt::real();
        let here = ProcessName::current();
        let dead = parent.path().join(format!(
            "{}{}-{}-x",
            space_prefix(&here),
            here.pid,
            here.start_ticks - 1
        ));
        let elsewhere = parent.path().join(format!("{PREFIX}00000000-1-1-x"));
        let other = parent.path().join("other");
        for folder in [&dead, &elsewhere, &other] {
            std::fs::create_dir(folder).expect("made");
            std::fs::write(folder.join("file"), b"x").expect("written");
        }
        let first = ScratchDir::create(&rt, parent.path()).expect("made");
        let second = ScratchDir::create(&rt, parent.path()).expect("made");
        assert!(!dead.exists());
        for folder in [&elsewhere, &other, &first.path, &second.path] {
            assert!(folder.exists(), "{}", folder.display());
        }
        let path = first.path.clone();
        drop(first);
        assert!(!path.exists());
    }
}
