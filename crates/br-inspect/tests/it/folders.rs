//! Golden folders, and copies of them to damage.

use std::path::{Path, PathBuf};

/// A folder of the golden data in the repository.
pub(crate) fn golden(folder: &str) -> PathBuf {
    let golden = Path::new("../../tests/golden/tidb-1");
    golden.join(folder).canonicalize().unwrap()
}

/// Copies all files; what is there already is written over.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::write(&target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}
