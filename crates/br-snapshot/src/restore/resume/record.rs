//! What is kept of a restore that has begun: which one it is, where its tables go, and what it has
//! paused.

use std::collections::BTreeMap;

use br_cluster::{
    Cluster,
    etcd::{ETCD_RETRY, Write},
};
use br_rt::{Backoff, CancellationToken};
use br_tidb::filter::TableFilter;
use br_types::{Cf, Classify, ClusterId, KeyRange, Kind, TimeStamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    super::{
        changes::PointInTime,
        error::RestoreError,
        options::{RestoreOptions, Scope},
        source::Source,
    },
    store::{ETCD_PREFIX, progress_folder},
};

/// The form of a record.
const FORMAT: u32 = 1;

/// Bytes of the digest that names a restore.
const TASK_LEN: usize = 12;

/// A record; the key is `/holdfast/restore/task/<digest>`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) struct Record {
    pub(super) format: u32,
    /// The name of the command.
    pub(super) title: String,
    pub(super) scope: ScopeRecord,
    /// Where the backup is, for people.
    pub(super) backup_place: String,
    /// SHA-256 of its `backupmeta`.
    pub(super) backup_sha256: String,
    pub(super) backup_ts: u64,
    /// Where progress is, if it is not beside this.
    pub(super) progress_place: Option<String>,
    pub(super) began_unix_ms: u64,
    /// The label rule that denies scheduling.
    pub(super) rule_id: String,
    /// How files are grouped: with another grouping progress would mean something else.
    pub(super) group_size_bytes_max: u64,
    pub(super) group_keys_max: u64,
    /// The first id that the restore owns, and one beyond the last.
    pub(super) first_id: i64,
    pub(super) end_id: i64,
    /// What is paused in PD while the restore runs.
    #[serde(default)]
    pub(super) paused: PausedInPd,
    /// Whether all keys of the range are the restore's own: it was empty before. Raw and
    /// transactional keys only.
    #[serde(default)]
    pub(super) is_range_own: bool,
    /// Where those keys are.
    #[serde(default)]
    pub(super) range: Option<RangeRecord>,
    /// The log that comes on top.
    #[serde(default)]
    pub(super) point: Option<PointRecord>,
    /// Whether it changes tables that were there before.
    #[serde(default)]
    pub(super) is_on_base: bool,
    /// Whether placement policies are kept.
    #[serde(default)]
    pub(super) keeps_placement: Option<bool>,
    /// Whether rows of TiDB's own tables are taken over.
    #[serde(default)]
    pub(super) with_system_tables: Option<bool>,
    /// Whether statistics are.
    #[serde(default)]
    pub(super) load_stats: Option<bool>,
}

/// A [`PointInTime`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PointRecord {
    log_place: String,
    start_ts: u64,
    restored_ts: u64,
    newest_only: bool,
}

impl PointRecord {
    pub(super) fn of(point: PointInTime) -> PointRecord {
        PointRecord {
            log_place: point.log_place,
            start_ts: point.start_ts.0,
            restored_ts: point.restored_ts.0,
            newest_only: point.newest_only,
        }
    }

    pub(super) fn point(&self) -> PointInTime {
        PointInTime {
            log_place: self.log_place.clone(),
            start_ts: TimeStamp(self.start_ts),
            restored_ts: TimeStamp(self.restored_ts),
            newest_only: self.newest_only,
        }
    }

    /// The options that tell two of them apart, by flag. The log may be another one of the same
    /// cluster: what it has of the window is the same.
    pub(super) fn parameters(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("--start-ts", self.start_ts.to_string()),
            ("--restored-ts", self.restored_ts.to_string()),
            ("--retain-latest-mvcc-version", self.newest_only.to_string()),
        ])
    }
}

/// What a restore begins with.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Which one it is: the SHA-256 of a backup's `backupmeta`, or words.
    pub(in super::super) digest: String,
    /// Where it is, for people.
    pub(in super::super) place: String,
    /// What it shows.
    pub(in super::super) ts: TimeStamp,
}

impl Origin {
    /// Where a restore of that cluster's log ended, into the cluster that is restored to.
    pub fn of_earlier(log_of: ClusterId, ts: TimeStamp) -> Origin {
        Origin {
            digest: format!("the log of cluster {log_of} from {ts}"),
            place: format!("an earlier restore, which ended at {ts}"),
            ts,
        }
    }

    /// A backup.
    pub fn of(source: &Source) -> Origin {
        Origin {
            digest: source.sha256.clone(),
            place: source.storage.to_string(),
            ts: source.meta.head.backup_ts,
        }
    }
}

/// What is paused in PD, as it was before.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) struct PausedInPd {
    pub(in super::super) schedulers: Vec<String>,
    pub(in super::super) settings_before: Map<String, Value>,
}

/// A range of keys in requests, hexadecimal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) struct RangeRecord {
    pub(in super::super) start: String,
    pub(in super::super) end: String,
    /// Raw keys of this version of the API; transactional ones otherwise.
    pub(in super::super) raw_api_version: Option<u32>,
}

/// What was asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(super) enum ScopeRecord {
    Full {
        rules: Vec<String>,
        is_explicit: bool,
    },
    Database {
        db: String,
    },
    Table {
        db: String,
        table: String,
    },
    Raw {
        start: String,
        end: String,
        cf: String,
    },
    Txn,
}

impl ScopeRecord {
    pub(super) fn of(options: &RestoreOptions) -> ScopeRecord {
        match &options.scope {
            Scope::Full { is_explicit, .. } => ScopeRecord::Full {
                rules: options.filter_rules.clone(),
                is_explicit: *is_explicit,
            },
            Scope::Database { db } => ScopeRecord::Database {
                db: db.to_lowercase(),
            },
            Scope::Table { db, table } => ScopeRecord::Table {
                db: db.to_lowercase(),
                table: table.to_lowercase(),
            },
            Scope::Raw { range, cf } => {
                let KeyRange { start, end } = range;
                ScopeRecord::Raw {
                    start: hex::encode(start.as_bytes()),
                    end: hex::encode(end.as_bytes()),
                    cf: Cf::name(*cf).to_owned(),
                }
            }
            Scope::Txn => ScopeRecord::Txn,
        }
    }

    /// The options that tell two restores apart, by flag.
    pub(super) fn parameters(&self) -> BTreeMap<&'static str, String> {
        match self {
            ScopeRecord::Full { rules, .. } => BTreeMap::from([("--filter", rules.join(" "))]),
            ScopeRecord::Database { db } => BTreeMap::from([("--db", db.clone())]),
            ScopeRecord::Table { db, table } => {
                BTreeMap::from([("--db", db.clone()), ("--table", table.clone())])
            }
            ScopeRecord::Raw { start, end, cf } => BTreeMap::from([
                ("--start", start.clone()),
                ("--end", end.clone()),
                ("--cf", cf.clone()),
            ]),
            ScopeRecord::Txn => BTreeMap::new(),
        }
    }

    /// Whether it may take a table of this name; said of one that cannot be known, too.
    pub(super) fn may_take(&self, db: &str, table: &str) -> bool {
        match self {
            ScopeRecord::Full { rules, .. } => {
                let is_sensitive = rules.iter().any(|rule| rule == CASE_SENSITIVE);
                let rules: Vec<_> = rules
                    .iter()
                    .filter(|rule| *rule != CASE_SENSITIVE)
                    .collect();
                let unread = &mut |_: &str| Err("not read again".to_owned());
                TableFilter::parse(&rules, is_sensitive, unread)
                    .map_or(true, |filter| filter.matches_table(db, table))
            }
            ScopeRecord::Database { db: wanted } => wanted.eq_ignore_ascii_case(db),
            ScopeRecord::Table {
                db: wanted_db,
                table: wanted,
            } => wanted_db.eq_ignore_ascii_case(db) && wanted.eq_ignore_ascii_case(table),
            ScopeRecord::Raw { .. } | ScopeRecord::Txn => false,
        }
    }
}

/// Stands among the rules of a filter that heeds case.
pub const CASE_SENSITIVE: &str = "--case-sensitive";

/// Names a restore: of this backup, with these options.
pub(in super::super) fn task_of(origin: &Origin, options: &RestoreOptions) -> String {
    let scope = ScopeRecord::of(options);
    let text = serde_json::json!([
        options.title(),
        scope,
        origin.digest,
        options.keep_placement,
        options.with_system_tables,
        options.load_stats,
    ]);
    let digest = Sha256::digest(text.to_string());
    hex::encode(digest.get(..TASK_LEN).unwrap_or_default())
}

fn key_of(task: &str) -> String {
    format!("{ETCD_PREFIX}task/{task}")
}

/// All records of the cluster, by task.
pub(super) async fn read_all(cluster: &Cluster) -> Result<BTreeMap<String, Record>, RestoreError> {
    let prefix = key_of("");
    let etcd = cluster.etcd().with_cancel(CancellationToken::new());
    let mut records = BTreeMap::new();
    for kv in etcd.get_prefix(prefix.as_bytes()).await?.kvs {
        let task = kv.key.get(prefix.len()..).unwrap_or_default();
        let task = String::from_utf8_lossy(task).into_owned();
        let record: Record =
            serde_json::from_slice(&kv.value).map_err(|error| RestoreError::BadRecord {
                task: task.clone(),
                problem: error.to_string(),
            })?;
        if record.format > FORMAT {
            let problem = format!("its form {} is newer than {FORMAT}", record.format);
            return Err(RestoreError::BadRecord { task, problem });
        }
        records.insert(task, record);
    }
    Ok(records)
}

impl Record {
    /// The form that this tool writes.
    pub(super) const FORMAT: u32 = FORMAT;

    pub(super) async fn write(&self, cluster: &Cluster, task: &str) -> Result<(), RestoreError> {
        let etcd = cluster.etcd().with_cancel(CancellationToken::new());
        let value = serde_json::to_vec(self).map_err(|error| RestoreError::BadRecord {
            task: task.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(etcd.put(key_of(task).as_bytes(), &value, None).await?)
    }

    /// Removes the record and all progress that is in the cluster, at once.
    pub(super) async fn remove(cluster: &Cluster, task: &str) -> Result<(), RestoreError> {
        let etcd = cluster.etcd().with_cancel(CancellationToken::new());
        let both = || {
            vec![
                Write::Delete(key_of(task).into_bytes()),
                Write::DeletePrefix(progress_folder(task).into_bytes()),
            ]
        };
        // Repeating it changes nothing.
        let rt = cluster.rt();
        let mut backoff = Backoff::new(ETCD_RETRY, rt);
        loop {
            match etcd.commit(Vec::new(), both()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() != Kind::Retry => return Err(error.into()),
                Err(error) => {
                    if !backoff.pause(rt, &CancellationToken::new()).await {
                        return Err(error.into());
                    }
                }
            }
        }
    }
}
