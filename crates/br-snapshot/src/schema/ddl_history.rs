//! The DDL jobs of an incremental backup: what changed the schemas since the last one.
//!
//! # Source
//! TiDB br/pkg/backup/client.go, pkg/meta/model/job.go.

use br_tidb::meta_key;
use serde_json::Value;

use super::{MetaRead, MetaScan, SchemaReadError};
use br_types::RawKey;

/// States of jobs that took effect: done, and done with all servers informed.
const EFFECTIVE_STATES: [i64; 2] = [4, 6];
/// Kinds of jobs that touch placement and attributes only, which backups leave out: 49 to 56 and,
/// in their order, ALTER TABLE and PARTITION ATTRIBUTES, CREATE, ALTER and DROP PLACEMENT POLICY,
/// placement of partitions, databases and tables.
const PLACEMENT_KINDS: std::ops::RangeInclusive<i64> = 49..=56;
/// Jobs that are looked at beyond the first one that is too old. Jobs may end in another order than
/// they began, which their ids follow.
const LOOK_BEYOND: usize = 512;

/// A finished DDL job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdlJob {
    /// Its id; later jobs have greater ones.
    pub id: i64,
    /// The schema version that it led to.
    pub schema_version: i64,
    /// TiDB's JSON, without references to placement policies.
    pub json: Vec<u8>,
}

/// Which jobs are wanted: those that led to a schema version in this range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DdlHistory {
    /// The version at the last backup; jobs up to it are not wanted.
    pub after_version: i64,
    /// The version at this backup, wanted itself.
    pub up_to_version: i64,
}

impl DdlHistory {
    /// Reads the jobs, by id. `read` has to be newer than the backup: a job enters the history a
    /// little after its schema version is out.
    ///
    /// # Errors
    /// [`SchemaReadError`].
    pub async fn jobs<R: MetaRead>(self, read: &R) -> Result<Vec<DdlJob>, SchemaReadError> {
        if self.after_version >= self.up_to_version {
            return Ok(Vec::new());
        }
        let mut jobs = Vec::new();
        let mut too_old = 0;
        // The ids are big-endian, so the newest come first.
        let mut scan = read.scan_reverse(&meta_key::hash_range(meta_key::DDL_JOB_HISTORY));
        while let Some((key, value)) = scan.next().await? {
            let mut job: Value =
                serde_json::from_slice(&value).map_err(|_| damaged(&key, "it is no DDL job"))?;
            let version = schema_version(&job);
            too_old += usize::from(version.is_some_and(|version| version <= self.after_version));
            if too_old > LOOK_BEYOND {
                break;
            }
            if let Some(schema_version) = version.filter(|version| self.wants(&job, *version)) {
                let id = job
                    .get("id")
                    .and_then(Value::as_i64)
                    .ok_or_else(|| damaged(&key, "the job has no id"))?;
                clear_placement(&mut job);
                jobs.push(DdlJob {
                    id,
                    schema_version,
                    json: job.to_string().into_bytes(),
                });
            }
        }
        jobs.sort_by_key(|job| job.id);
        Ok(jobs)
    }

    fn wants(self, job: &Value, version: i64) -> bool {
        let number = |name: &str| job.get(name).and_then(Value::as_i64);
        let is_effective = number("state").is_some_and(|state| EFFECTIVE_STATES.contains(&state));
        let is_placement = number("type").is_some_and(|kind| PLACEMENT_KINDS.contains(&kind));
        is_effective
            && !is_placement
            && version > self.after_version
            && version <= self.up_to_version
    }
}

fn damaged(key: &RawKey, what: &'static str) -> SchemaReadError {
    SchemaReadError::Damaged {
        key: key.clone(),
        what,
    }
}

fn schema_version(job: &Value) -> Option<i64> {
    job.pointer("/binlog/SchemaVersion")?.as_i64()
}

/// Forgets placement policies, whose ids mean nothing in another cluster.
fn clear_placement(job: &mut Value) {
    const POLICY: &str = "policy_ref_info";
    let clear = |object: &mut Value| {
        if let Some(policy) = object.get_mut(POLICY) {
            *policy = Value::Null;
        }
    };
    if let Some(database) = job.pointer_mut("/binlog/DBInfo") {
        clear(database);
    }
    let Some(table) = job.pointer_mut("/binlog/TableInfo") else {
        return;
    };
    clear(table);
    for list in ["definitions", "adding_definitions", "dropping_definitions"] {
        let partitions = table.pointer_mut(&format!("/partition/{list}"));
        if let Some(partitions) = partitions.and_then(Value::as_array_mut) {
            partitions.iter_mut().for_each(clear);
        }
    }
}
