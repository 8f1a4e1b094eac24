//! Databases and tables that belong to TiDB itself.

/// What stands before the name of a system database in backups and while it is restored.
const TEMPORARY_PREFIX: &str = "__TiDB_BR_Temporary_";

const SYSTEM_DBS: [&str; 3] = ["mysql", "sys", "workload_schema"];
const MEMORY_DBS: [&str; 3] = ["information_schema", "performance_schema", "metrics_schema"];

/// Tables of `mysql` that describe one cluster and must not come to another one.
const NEVER_RESTORED: [&str; 36] = [
    "advisory_locks",
    "analyze_jobs",
    "analyze_options",
    "capture_plan_baselines_blacklist",
    "dist_framework_meta",
    "gc_delete_range",
    "gc_delete_range_done",
    "global_variables",
    "help_topic",
    "index_advisor_results",
    "plan_replayer_status",
    "plan_replayer_task",
    "request_unit_by_group",
    "table_cache_meta",
    "tidb",
    "tidb_background_subtask",
    "tidb_background_subtask_history",
    "tidb_ddl_history",
    "tidb_ddl_job",
    "tidb_ddl_notifier",
    "tidb_ddl_reorg",
    "tidb_global_task",
    "tidb_global_task_history",
    "tidb_import_jobs",
    "tidb_masking_policy",
    "tidb_mdl_info",
    "tidb_mdl_view",
    "tidb_pitr_id_map",
    "tidb_restore_registry",
    "tidb_runaway_queries",
    "tidb_runaway_watch",
    "tidb_runaway_watch_done",
    "tidb_timers",
    "tidb_ttl_job_history",
    "tidb_ttl_table_status",
    "tidb_ttl_task",
];

/// Tables of `mysql` with statistics of other tables, whose ids they have.
const STATISTICS: [&str; 11] = [
    "column_stats_usage",
    "stats_buckets",
    "stats_extended",
    "stats_feedback",
    "stats_fm_sketch",
    "stats_histograms",
    "stats_history",
    "stats_meta",
    "stats_meta_history",
    "stats_table_locked",
    "stats_top_n",
];

/// What a restore does with a table of a system database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemTable {
    /// Its rows come over: users, privileges, bindings.
    Restored,
    /// It has statistics, which are restored with the tables that they describe.
    Statistics,
    /// It describes the cluster that was backed up.
    NeverRestored,
}

/// Whether a database exists in memory only and has nothing to back up. Takes the name in lower
/// case.
pub fn is_memory_db(lower: &str) -> bool {
    MEMORY_DBS.contains(&lower)
}

/// Whether a database belongs to TiDB itself. Takes the name in lower case.
pub fn is_system_db(lower: &str) -> bool {
    SYSTEM_DBS.contains(&lower)
}

/// Whether a database is what a restore of a system database left behind.
pub fn is_temporary_system_db(name: &str) -> bool {
    name.strip_prefix(TEMPORARY_PREFIX)
        .is_some_and(|rest| rest == "mysql" || rest == "sys")
}

/// The name of a system database in backups and while it is restored.
pub fn temporary_name(db: &str) -> String {
    format!("{TEMPORARY_PREFIX}{db}")
}

/// The name under which a backup stores a database: the temporary one for system databases.
pub fn stored_db_name(name: &str) -> String {
    if is_system_db(&name.to_lowercase()) {
        temporary_name(name)
    } else {
        name.to_owned()
    }
}

/// The name that users know a database of a backup by.
pub fn strip_temporary_prefix(name: &str) -> &str {
    name.strip_prefix(TEMPORARY_PREFIX).unwrap_or(name)
}

/// What a restore does with a table of a system database. Takes the names that users know, in
/// lower case; `None`: the database is none of TiDB's own.
pub fn system_table(db: &str, table: &str) -> Option<SystemTable> {
    if !is_system_db(db) {
        return None;
    }
    let never = match db {
        "mysql" => NEVER_RESTORED.contains(&table),
        "sys" => table == "schema_unused_indexes",
        _ => true,
    };
    Some(if never {
        SystemTable::NeverRestored
    } else if db == "mysql" && STATISTICS.contains(&table) {
        SystemTable::Statistics
    } else {
        SystemTable::Restored
    })
}
