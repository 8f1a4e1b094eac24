use br_format::log::migration::Migration;
use br_log::{
    StoreFlush,
    migrate::{Loaded, Merge},
};
use br_storage::Rotation;
use serde_json::{Value, json};

use super::print;

/// What flushes came to; gives how many stores failed.
pub(crate) fn flushes(flushes: &[StoreFlush]) -> usize {
    let mut failed = 0;
    for flush in flushes {
        let (store, address) = (flush.store, &flush.address);
        let say = |what: &str| print(&format_args!("store {store} at {address}: {what}"));
        match &flush.result {
            Err(error) => {
                failed += 1;
                say(&error.to_string());
            }
            Ok(tasks) if tasks.is_empty() => say("no task runs there"),
            Ok(tasks) => {
                failed += usize::from(tasks.iter().any(|task| task.error.is_some()));
                for task in tasks {
                    let done = task.error.as_deref().unwrap_or("flushed");
                    say(&format!("task {}: {done}", task.task));
                }
            }
        }
    }
    failed
}

/// What a rotation of keys came to.
pub(crate) fn rotated(done: &Rotation) {
    if done.was_done {
        print(&"the keys were rotated before, by a command that was interrupted");
    }
    print(&format_args!(
        "keyring {} with {} data keys opens with {}",
        done.generation,
        done.data_keys,
        done.master_keys.join(", ")
    ));
    if done.has_new_data_key {
        print(&"objects from now on are sealed under a new data key");
    }
    if done.removed > 0 {
        print(&format_args!("{} older keyrings are deleted", done.removed));
    }
}

/// The task of a log names other master keys.
pub(crate) fn renamed_keys(task: &str) {
    print(&format_args!(
        "the task {task} names them; its stores go on from its checkpoint"
    ));
}

/// Nobody has looked for a task.
pub(crate) fn keys_in_tasks() {
    print(
        &"if a task of log backup writes there, it names the old master keys: stop it and start it again \
          with the new ones before its stores restart",
    );
}

/// The migrations of a log.
pub(crate) fn migrations(loaded: &Loaded, as_json: bool) {
    let all = &loaded.migrations;
    if as_json {
        let layers: Vec<Value> = all
            .layers
            .iter()
            .zip(&loaded.names)
            .map(|((number, layer), name)| {
                json!({
                    "number": number,
                    "name": name.to_name(),
                    "content": migration_json(layer),
                })
            })
            .collect();
        return print(&json!({ "base": migration_json(&all.base), "layers": layers }));
    }
    print(&format_args!("base: {}", describe(&all.base)));
    for (number, layer) in &all.layers {
        print(&format_args!("{number}: {}", describe(layer)));
    }
    print(&format_args!(
        "{} migrations beside the base",
        all.layers.len()
    ));
}

/// What a merge would do.
pub(crate) fn merge_plan(merge: &Merge) {
    print(&format_args!(
        "{} migrations are merged; the new base: {}",
        merge.layers.len(),
        describe(&merge.base)
    ));
    for folder in &merge.base.destruct_prefixes {
        print(&format_args!("everything below {folder} is deleted"));
    }
}

fn migration_json(migration: &Migration) -> Value {
    let edits = migration.edits.iter();
    let objects: usize = edits.clone().map(|edit| edit.delete_objects.len()).sum();
    let compactions = migration.compactions.iter().map(|compaction| {
        json!({
            "name": compaction.name,
            "from_ts": compaction.from_ts.0,
            "until_ts": compaction.until_ts.0,
            "input_min_ts": compaction.input_min_ts.0,
            "input_max_ts": compaction.input_max_ts.0,
            "artifacts": compaction.artifacts,
            "generated_files": compaction.generated_files,
        })
    });
    json!({
        "creator": migration.creator,
        "truncated_to": migration.truncated_to.0,
        "edited_metas": edits.len(),
        "deleted_objects": objects,
        "compactions": compactions.collect::<Vec<_>>(),
        "destruct_prefixes": migration.destruct_prefixes,
        "ingested_paths": migration.ingested_paths,
    })
}

fn describe(migration: &Migration) -> String {
    if migration.is_empty() {
        return "says nothing".into();
    }
    let mut parts = Vec::new();
    if !migration.truncated_to.is_zero() {
        parts.push(format!("cut off at {}", migration.truncated_to));
    }
    let mut count = |number: usize, what: &str| {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    };
    count(migration.edits.len(), "edits of metadata");
    count(migration.compactions.len(), "compactions");
    count(migration.destruct_prefixes.len(), "folders to delete");
    count(
        migration.ingested_paths.len(),
        "restores whose SSTs belong to the log",
    );
    if !migration.creator.is_empty() {
        parts.push(format!("by {}", migration.creator));
    }
    parts.join(", ")
}
