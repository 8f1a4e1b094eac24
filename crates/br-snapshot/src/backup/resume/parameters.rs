//! Which options have to be the same for a backup to go on, and which one is not.

use std::collections::BTreeMap;

use br_format::resume::ResumeMeta;
use br_types::ClusterId;
use sha2::{Digest, Sha256};

use super::super::{BackupError, BackupOptions, BackupTime, Scope};

/// Bytes of a digest that stand for a secret: enough to tell two apart, too few to search for it.
const SECRET_DIGEST_LEN: usize = 8;

/// What stands for an option that was not given.
const NOT_GIVEN: &str = "nothing";

/// An option that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The flag, or what else it is.
    pub name: String,
    /// What the interrupted backup had.
    pub was: String,
    /// What this command has.
    pub is: String,
}

/// The options that count, by flag. Where the data goes is not among them, nor with which
/// credentials: a backup is found at its place, and credentials are renewed now and then.
pub(in super::super) fn of(
    options: &BackupOptions,
    cluster: ClusterId,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        all.insert(name.to_owned(), value);
    };
    set("cluster", cluster.to_string());
    set("command", options.title().to_owned());
    if let Some(last) = options.last_backup_ts {
        set("--lastbackupts", last.to_string());
    }
    if let Some(name) = &options.keyspace_name {
        set("--keyspace-name", name.clone());
    }
    let crypter = options.crypter.to_proto();
    set("--crypter.method", options.crypter.method().to_string());
    if !crypter.cipher_key.is_empty() {
        let digest = Sha256::digest(&crypter.cipher_key);
        let digest = digest.get(..SECRET_DIGEST_LEN).unwrap_or_default();
        set("--crypter.key", format!("sha256:{}", hex::encode(digest)));
    }
    match &options.scope {
        Scope::Full { .. } => set("--filter", options.filter_rules.join(" ")),
        Scope::Database { db } => set("--db", db.to_lowercase()),
        Scope::Table { db, table } => {
            set("--db", db.to_lowercase());
            set("--table", table.to_lowercase());
        }
        Scope::Raw { range, cf } => {
            set("--start", hex::encode(range.start.as_bytes()));
            set("--end", hex::encode(range.end.as_bytes()));
            set("--cf", cf.name().to_owned());
        }
        Scope::Txn { range } => {
            set("--start", hex::encode(range.start.as_bytes()));
            set("--end", hex::encode(range.end.as_bytes()));
        }
    }
    all
}

/// Checks that the backup that was found is the one that is asked for.
pub(in super::super) fn check_same(
    options: &BackupOptions,
    cluster: ClusterId,
    found: &ResumeMeta,
    place: &str,
) -> Result<(), BackupError> {
    let mut differences = Vec::new();
    if found.parameters.is_empty() {
        // Of the official tool, which keeps a digest of all of them only.
        if !options.config_hashes.contains(&found.config_hash) {
            return Err(BackupError::OtherConfig {
                place: place.to_owned(),
            });
        }
    } else {
        let ours = of(options, cluster);
        let names: std::collections::BTreeSet<_> =
            ours.keys().chain(found.parameters.keys()).collect();
        for name in names {
            let (was, is) = (found.parameters.get(name), ours.get(name));
            if was != is {
                let text = |value: Option<&String>| {
                    value.map_or_else(|| NOT_GIVEN.to_owned(), String::clone)
                };
                differences.push(Difference {
                    name: name.clone(),
                    was: text(was),
                    is: text(is),
                });
            }
        }
    }
    if let BackupTime::At(ts) = options.at
        && ts != found.backup_ts
    {
        differences.push(Difference {
            name: "--backupts".to_owned(),
            was: found.backup_ts.to_string(),
            is: ts.to_string(),
        });
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(BackupError::OtherParameters {
        place: place.to_owned(),
        differences,
    })
}
