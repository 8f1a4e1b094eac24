use br_rt::{CancellationToken, Rt, Silent};
use br_storage::{CrashPoint, Faults, Storage};
use br_types::TimeStamp;
use futures::TryStreamExt as _;

use super::*;
use crate::{
    Operator, migrate,
    model_log::{ModelLog, simulate},
    storage_lock::LockRequest,
};

fn operator() -> Operator {
    Operator {
        host: "box".into(),
        pid: 1,
    }
}

async fn truncate(
    rt: &Rt,
    storage: &Storage,
    options: &TruncateOptions,
) -> Result<Truncated, TruncateError> {
    let (operator, cancel) = (operator(), CancellationToken::new());
    let request = LockRequest {
        storage,
        rt,
        cancel: &cancel,
        operator: &operator,
        hint: "test",
    };
    let truncation = Truncation::begin(request, options.clone()).await?;
    let silent: std::sync::Arc<dyn br_rt::Progress> = std::sync::Arc::new(Silent);
    truncation.run(&silent).await
}

/// What an operator does after a crash, once the message has told which objects are in the way.
async fn remove_locks(storage: &Storage) {
    for prefix in ["truncating.lock", "v1/LOCK", "v1/APPEND_LOCK"] {
        let locks: Vec<_> = storage.list(prefix).try_collect().await.unwrap();
        for lock in locks {
            storage.delete(&lock.name).await.unwrap();
        }
    }
}

async fn objects(storage: &Storage) -> usize {
    let all: Vec<_> = storage.list("v1/").try_collect().await.unwrap();
    all.len()
}

/// For every restore at or after the safe point, the log is the same, wherever the process dies.
async fn at_every_crash_point(seed: u64, rt: Rt, with_compaction: bool) {
    let log = ModelLog::generate(&rt, seed, with_compaction).await;
    let until = log.some_ts(rt.random_below(100));
    let options = TruncateOptions {
        until,
        clean_up_compactions: with_compaction,
    };
    for changes in 0.. {
        let storage = log.copy(&format!("{seed}-{changes}")).await;
        let faulty = storage.with_faults(Faults {
            crash: Some(CrashPoint::after(changes)),
            ..Faults::default()
        });
        let ended = truncate(&rt, &faulty, &options).await;
        log.check(&storage, until).await;
        let is_over = ended.as_ref().is_ok_and(|done| done.left.is_empty());
        remove_locks(&storage).await;
        // The next one finishes what this one left.
        truncate(&rt, &storage, &options).await.unwrap();
        log.check(&storage, until).await;
        let left = plan(&storage, &options).await.unwrap();
        assert_eq!((left.files, left.metas, left.empty_metas), (0, 0, 0));
        assert_eq!(left.truncated_to, until);
        let names: Vec<_> = storage.list("truncating").try_collect().await.unwrap();
        assert!(names.is_empty(), "{names:?}");
        log.forget(&format!("{seed}-{changes}"));
        // A process that died while it released a lock has done all the rest.
        if is_over && changes > 0 {
            let untouched = log.copy("again").await;
            let before = objects(&untouched).await;
            truncate(&rt, &untouched, &options).await.unwrap();
            if !with_compaction {
                assert!(objects(&untouched).await <= before);
            }
            log.forget("again");
            return;
        }
    }
}

#[test]
fn the_log_stays_the_same_for_promised_restores_at_every_crash_point() {
    for seed in 0..3 {
        simulate(seed, async |rt| at_every_crash_point(seed, rt, false).await);
    }
}

#[test]
fn and_so_it_does_with_compactions_and_migrations() {
    for seed in 100..103 {
        simulate(seed, async |rt| at_every_crash_point(seed, rt, true).await);
    }
}

#[test]
fn a_value_written_before_the_cut_for_a_commit_after_it_stays() {
    for seed in 0..30 {
        simulate(seed, async |rt| {
            let log = ModelLog::generate(&rt, seed, seed % 3 == 0).await;
            let storage = log.copy("cut").await;
            for step in [20, 10, 50, 90, 100] {
                let until = log.some_ts(step);
                let options = TruncateOptions {
                    until,
                    clean_up_compactions: step == 50,
                };
                truncate(&rt, &storage, &options).await.unwrap();
                let safe_point = migrate::truncate_safe_point(&storage).await.unwrap();
                assert!(safe_point >= until);
                log.check(&storage, safe_point).await;
            }
            log.forget("cut");
        });
    }
}

#[test]
fn nothing_is_left_of_a_log_that_ended_before_the_cut_but_its_values() {
    simulate(1, async |rt| {
        let log = ModelLog::generate(&rt, 1, false).await;
        let storage = log.copy("end").await;
        let before = objects(&storage).await;
        let until = log.some_ts(100);
        let options = TruncateOptions {
            until,
            clean_up_compactions: false,
        };
        let planned = plan(&storage, &options).await.unwrap();
        assert_eq!(objects(&storage).await, before, "a plan changes nothing");
        assert!(planned.empty_metas > 0);
        let done = truncate(&rt, &storage, &options).await.unwrap();
        assert_eq!(
            (done.files, done.size_bytes),
            (planned.files, planned.size_bytes)
        );
        assert!(objects(&storage).await < before / 3);
        log.forget("end");
    });
}

#[test]
fn a_cut_beyond_the_end_or_without_a_log_is_refused() {
    simulate(2, async |rt| {
        let log = ModelLog::generate(&rt, 2, false).await;
        let storage = log.copy("beyond").await;
        let options = TruncateOptions {
            until: TimeStamp(log.some_ts(100).0 + 1),
            clean_up_compactions: false,
        };
        let error = truncate(&rt, &storage, &options).await.err().unwrap();
        assert!(matches!(error, TruncateError::BeyondEnd { .. }), "{error}");
        let all: Vec<_> = storage.list("").try_collect().await.unwrap();
        for entry in all {
            storage.delete(&entry.name).await.unwrap();
        }
        let error = truncate(&rt, &storage, &options).await.err().unwrap();
        assert!(matches!(error, TruncateError::Log(_)), "{error}");
        log.forget("beyond");
    });
}

#[test]
fn two_at_once_do_not_work() {
    simulate(3, async |rt| {
        let log = ModelLog::generate(&rt, 3, false).await;
        let storage = log.copy("two").await;
        let options = TruncateOptions {
            until: log.some_ts(50),
            clean_up_compactions: false,
        };
        let (operator, cancel) = (operator(), CancellationToken::new());
        let request = LockRequest {
            storage: &storage,
            rt: &rt,
            cancel: &cancel,
            operator: &operator,
            hint: "test",
        };
        let first = Truncation::begin(request.clone(), options.clone())
            .await
            .unwrap();
        let second = truncate(&rt, &storage, &options).await.err().unwrap();
        assert!(matches!(second, TruncateError::Lock(_)), "{second}");
        first.give_up().await;
        // Nor beside a reader, such as a restore.
        let reader = request.read_migrations().await.unwrap();
        let beside = truncate(&rt, &storage, &options).await.err().unwrap();
        assert!(matches!(beside, TruncateError::Lock(_)), "{beside}");
        reader.release().await;
        truncate(&rt, &storage, &options).await.unwrap();
        log.forget("two");
    });
}
