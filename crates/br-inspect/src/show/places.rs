use std::collections::BTreeMap;

use br_format::names::BACKUPMETA;
use br_storage::Storage;
use futures::TryStreamExt;

use super::ShowError;

/// What every object of a log but its marks begins with, below its folder.
const LOG_FOLDERS: [&str; 2] = ["v1/backupmeta/", "v1/global_checkpoint/"];

/// A folder with a `backupmeta`.
pub(super) struct Found {
    /// Relative; empty: the storage itself.
    pub(super) folder: String,
    /// Whether it has objects of a log.
    pub(super) has_log: bool,
}

/// The folders with a backup or a log; the listing of everything is read once.
pub(super) async fn find(storage: &Storage) -> Result<Vec<Found>, ShowError> {
    let mut folders: BTreeMap<String, bool> = BTreeMap::new();
    let mut marked: BTreeMap<String, ()> = BTreeMap::new();
    let mut listed = storage.list("");
    while let Some(entry) = listed.try_next().await? {
        if let Some(folder) = folder_of_mark(&entry.name) {
            marked.insert(folder.to_owned(), ());
        }
        if let Some(folder) = folder_of_log(&entry.name)
            && !folders.contains_key(folder)
        {
            folders.insert(folder.to_owned(), true);
        }
    }
    let found = marked.into_keys().map(|folder| Found {
        has_log: folders.contains_key(&folder),
        folder,
    });
    Ok(found.collect())
}

/// The folder of a `backupmeta`.
fn folder_of_mark(name: &str) -> Option<&str> {
    match name.strip_suffix(BACKUPMETA)? {
        "" => Some(""),
        folder => folder.strip_suffix('/'),
    }
}

/// The folder of the log that an object is of.
fn folder_of_log(name: &str) -> Option<&str> {
    LOG_FOLDERS.iter().find_map(|inner| {
        let at = name.find(inner)?;
        match name.get(..at)? {
            "" => Some(""),
            folder => folder.strip_suffix('/'),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_logs_are_told_by_name() {
        assert_eq!(folder_of_mark("backupmeta"), Some(""));
        assert_eq!(folder_of_mark("a/b/backupmeta"), Some("a/b"));
        assert_eq!(folder_of_mark("a/backupmeta.schema.000000001"), None);
        assert_eq!(folder_of_mark("a/notbackupmeta"), None);
        assert_eq!(folder_of_log("v1/backupmeta/x.meta"), Some(""));
        assert_eq!(folder_of_log("a/v1/global_checkpoint/1.ts"), Some("a"));
        assert_eq!(folder_of_log("av1/backupmeta/x.meta"), None);
        assert_eq!(folder_of_log("1/2.sst"), None);
    }
}
