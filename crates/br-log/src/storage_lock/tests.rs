use std::sync::atomic::{AtomicU64, Ordering};

use br_rt::UnixMillis;
use br_storage::Backend;

use super::*;

fn simulate<T>(seed: u64, run: impl AsyncFnOnce(Rt, Storage) -> T) -> T {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let rt = Rt::simulated(seed, UnixMillis(1_800_000_000_000));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let url = format!("memory://locks-{number}-{seed}");
        let backend = Backend::parse(&url, &Default::default()).unwrap();
        let storage = Storage::open(&rt, &backend).await.unwrap();
        run(rt, storage).await
    })
}

fn operator() -> Operator {
    Operator {
        host: "box".into(),
        pid: 17,
    }
}

fn request<'a>(
    rt: &'a Rt,
    storage: &'a Storage,
    operator: &'a Operator,
    cancel: &'a CancellationToken,
) -> LockRequest<'a> {
    LockRequest {
        storage,
        rt,
        cancel,
        operator,
        hint: "a test",
    }
}

async fn names(storage: &Storage) -> Vec<String> {
    let entries: Vec<_> = storage.list("").try_collect().await.unwrap();
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn the_message_says_who_has_it_and_how_to_get_rid_of_it() {
    simulate(1, async |rt, storage| {
        let (who, cancel) = (operator(), CancellationToken::new());
        let request = request(&rt, &storage, &who, &cancel);
        let held = request.truncate().await.unwrap();
        assert_eq!(names(&storage).await, ["truncating.lock"]);
        let error = request.truncate().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Conflict);
        let text = error.to_string();
        for part in ["truncating.lock", "process 17 on box", "(a test)"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(
            error
                .next_step()
                .unwrap()
                .contains("delete the object truncating.lock")
        );
        held.release().await;
        let again = request.truncate().await.unwrap();
        again.release().await;
        assert!(names(&storage).await.is_empty());
    });
}

#[test]
fn readers_share_and_a_writer_does_not() {
    simulate(2, async |rt, storage| {
        let (who, cancel) = (operator(), CancellationToken::new());
        let request = request(&rt, &storage, &who, &cancel);
        let a = request.read_migrations().await.unwrap();
        let b = request.read_migrations().await.unwrap();
        assert!(matches!(
            request.write_migrations().await,
            Err(LockError::Held { .. })
        ));
        // Appending is beside reading.
        let append = request.append_migration().await.unwrap();
        append.release().await;
        a.release().await;
        b.release().await;
        let writer = request.write_migrations().await.unwrap();
        assert!(matches!(
            request.read_migrations().await,
            Err(LockError::Held { .. })
        ));
        writer.release().await;
        assert!(names(&storage).await.is_empty());
    });
}

/// Locks of a process on this machine that is gone.
async fn leave_by_the_dead(storage: &Storage, objects: &[&str]) {
    let here = ProcessName::current();
    let id = LockId([7; 16]);
    let from = (here.host, here.pid);
    let content = LockContent {
        // Another process had this number.
        start_ticks: here.start_ticks - 1,
        pid_space: here.pid_space,
        ..LockContent::new(LockPurpose::MigrationRead, id, 0, from, String::new())
    };
    for object in objects {
        storage.write(object, content.encode()).await.unwrap();
    }
}

#[test]
fn what_the_dead_left_is_in_nobodys_way() {
    simulate(9, async |rt, storage| {
        let (who, cancel) = (operator(), CancellationToken::new());
        let request = request(&rt, &storage, &who, &cancel);
        let left = [
            "truncating.lock",
            "truncating.lock.INTENT.07070707070707070707070707070707",
            "v1/LOCK.WRIT",
            "v1/LOCK.READ.0000000000000001",
            "v1/LOCK.READ.0000000000000001.INTENT.07070707070707070707070707070707",
            "v1/APPEND_LOCK.WRIT",
        ];
        leave_by_the_dead(&storage, &left).await;
        let reader = request.read_migrations().await.unwrap();
        let names_now = names(&storage).await;
        assert!(
            names_now.contains(&reader.object().to_owned()),
            "{names_now:?}"
        );
        assert_eq!(names_now.len(), 4, "{names_now:?}");
        let append = request.append_migration().await.unwrap();
        append.release().await;
        reader.release().await;
        let truncate = request.truncate().await.unwrap();
        truncate.release().await;
        assert!(names(&storage).await.is_empty());
        // A reader that lives is in the way of a writer, whoever else has died.
        let reader = request.read_migrations().await.unwrap();
        leave_by_the_dead(&storage, &left).await;
        assert!(request.write_migrations().await.is_err());
        reader.release().await;
        request.write_migrations().await.unwrap().release().await;
    });
}

#[test]
fn of_many_at_once_at_most_one_writes_and_never_beside_readers() {
    for seed in 0..40 {
        simulate(seed, async |rt, storage| {
            if seed % 2 == 0 {
                leave_by_the_dead(&storage, &["v1/LOCK.WRIT", "v1/LOCK.READ.0000000000000001"])
                    .await;
            }
            let storage = storage.with_faults(br_storage::Faults {
                latency_max: Duration::from_millis(50),
                ..Default::default()
            });
            let held = std::cell::Cell::new((0_u32, 0_u32));
            let work = |is_writer: bool| {
                let (rt, storage, held) = (rt.clone(), storage.clone(), &held);
                async move {
                    let (who, cancel) = (operator(), CancellationToken::new());
                    let request = request(&rt, &storage, &who, &cancel);
                    let taken = match is_writer {
                        true => request.write_migrations().await,
                        false => {
                            request
                                .take("v1/LOCK", Mode::Read, LockPurpose::MigrationRead)
                                .await
                        }
                    };
                    let Ok(lock) = taken else { return };
                    let (readers, writers) = held.get();
                    held.set(if is_writer {
                        (readers, writers + 1)
                    } else {
                        (readers + 1, writers)
                    });
                    let (readers, writers) = held.get();
                    assert!(
                        writers == 0 || (writers, readers) == (1, 0),
                        "{writers} {readers}"
                    );
                    rt.sleep(Duration::from_millis(rt.random_below(100))).await;
                    let (readers, writers) = held.get();
                    held.set(if is_writer {
                        (readers, writers - 1)
                    } else {
                        (readers - 1, writers)
                    });
                    lock.release().await;
                }
            };
            futures::future::join_all((0..6).map(|n| work(n % 3 == 0))).await;
            // Perhaps nobody got it, and nobody removed what the dead left.
            let (who, cancel) = (operator(), CancellationToken::new());
            let request = request(&rt, &storage, &who, &cancel);
            request.write_migrations().await.unwrap().release().await;
            let left = names(&storage).await;
            assert!(left.is_empty(), "{left:?}");
        });
    }
}
