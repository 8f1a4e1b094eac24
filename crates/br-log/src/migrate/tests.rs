use br_format::log::migration::{Migration, MigrationName};
use br_rt::{CancellationToken, Rt};
use br_storage::{CrashPoint, Faults, Storage};
use br_types::TimeStamp;
use futures::TryStreamExt as _;

use super::{carry_out::checked_folder, *};
use crate::{
    Operator,
    model_log::{ModelLog, simulate},
    storage_lock::LockRequest,
};

fn operator() -> Operator {
    Operator {
        host: "box".into(),
        pid: 1,
    }
}

async fn merge_all(rt: &Rt, storage: &Storage, until: MergeUntil) -> Result<Merge, MigrateError> {
    let (operator, cancel) = (operator(), CancellationToken::new());
    let request = LockRequest {
        storage,
        rt,
        cancel: &cancel,
        operator: &operator,
        hint: "test",
    };
    merge(&request, until).await
}

#[test]
fn merging_changes_nothing_of_what_is_read_wherever_it_dies() {
    for seed in 0..3 {
        simulate(seed, async |rt| {
            let log = ModelLog::generate(&rt, seed, true).await;
            for changes in 0.. {
                let name = format!("merge-{seed}-{changes}");
                let storage = log.copy(&name).await;
                let faulty = storage.with_faults(Faults {
                    crash: Some(CrashPoint::after(changes)),
                    ..Faults::default()
                });
                let ended = merge_all(&rt, &faulty, MergeUntil::Newest).await;
                log.check(&storage, TimeStamp::ZERO).await;
                for prefix in ["truncating.lock", "v1/LOCK"] {
                    let locks: Vec<_> = storage.list(prefix).try_collect().await.unwrap();
                    for lock in locks {
                        storage.delete(&lock.name).await.unwrap();
                    }
                }
                merge_all(&rt, &storage, MergeUntil::Newest).await.unwrap();
                log.check(&storage, TimeStamp::ZERO).await;
                let after = load(&storage).await.unwrap();
                assert!(after.names.is_empty());
                let base = after.migrations.base;
                let done = base.edits.iter().all(|edit| edit.delete_objects.is_empty());
                assert!(done && !base.compactions.is_empty());
                log.forget(&name);
                if ended.is_ok() {
                    break;
                }
            }
        });
    }
}

#[test]
fn numbers_go_up_and_a_part_can_be_merged() {
    simulate(9, async |rt| {
        let log = ModelLog::generate(&rt, 9, true).await;
        let storage = log.copy("numbers").await;
        let (operator, cancel) = (operator(), CancellationToken::new());
        let request = LockRequest {
            storage: &storage,
            rt: &rt,
            cancel: &cancel,
            operator: &operator,
            hint: "test",
        };
        let before = load(&storage).await.unwrap().names.len();
        let migration = Migration {
            destruct_prefixes: vec!["v1/compactions/nothing".into()],
            ..Migration::default()
        };
        let name = append(&request, &migration).await.unwrap();
        let MigrationName::Layer { number, .. } = name else {
            panic!("{name:?}")
        };
        assert_eq!(number as usize, before + 1);
        let error = merge(&request, MergeUntil::Number(number + 1))
            .await
            .err()
            .unwrap();
        assert!(matches!(error, MigrateError::NotFound { .. }), "{error}");
        let done = merge(&request, MergeUntil::Number(number - 1))
            .await
            .unwrap();
        assert_eq!(done.layers.len(), before);
        assert_eq!(load(&storage).await.unwrap().names, [name]);
        log.check(&storage, TimeStamp::ZERO).await;
        log.forget("numbers");
    });
}

#[test]
fn a_temporary_base_says_nothing_and_a_stranger_stops_everybody() {
    simulate(10, async |rt| {
        let log = ModelLog::generate(&rt, 10, true).await;
        let storage = log.copy("strangers").await;
        storage
            .write("v1/migrations/BASE_TMP", "half")
            .await
            .unwrap();
        merge_all(&rt, &storage, MergeUntil::Newest).await.unwrap();
        assert!(!storage.exists("v1/migrations/BASE_TMP").await.unwrap());
        storage
            .write("v1/migrations/00000009_new", "?")
            .await
            .unwrap();
        let error = load(&storage).await.err().unwrap();
        assert!(error.to_string().contains("00000009_new"), "{error}");
        log.forget("strangers");
    });
}

#[test]
fn no_migration_may_remove_a_whole_log() {
    for folder in [
        "",
        "/",
        ".",
        "..",
        "v1",
        "/v1",
        "v1/",
        "v1/.",
        "../x",
        "v1/../v1",
        "v1/backupmeta",
        "v1/migrations/",
        "v1/compactions",
        "a//b",
    ] {
        assert!(checked_folder(folder).is_err(), "{folder:?}");
    }
    assert_eq!(
        checked_folder("v1/compactions/a_b/").unwrap(),
        "v1/compactions/a_b"
    );
}
