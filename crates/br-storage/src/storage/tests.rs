use br_rt::UnixMillis;
use br_types::{Classify, Kind};

use super::*;
use crate::{PART_BYTES, StorageOptions, forget_memory};

/// Runs on virtual time over memory of this name, which is empty at the start.
fn simulate(name: &str, seed: u64, run: impl AsyncFnOnce(Storage)) {
    forget_memory(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let url = format!("memory://{name}");
    let backend = Backend::parse(&url, &StorageOptions::default()).unwrap();
    runtime.block_on(async {
        let rt = Rt::simulated(seed, UnixMillis(0));
        run(Storage::open(&rt, &backend).await.unwrap()).await;
    });
    forget_memory(name);
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|i| (i.wrapping_mul(seed | 1) >> 3) as u8)
        .collect()
}

#[test]
fn faults_are_retried_until_the_contents_are_right() {
    for seed in 0..20 {
        simulate("faults", seed, async |storage| {
            let patient = RetryPolicy {
                attempts_max: 50,
                elapsed_max: Duration::MAX,
                ..RETRY
            };
            let faulty = storage.with_retry(patient).with_faults(Faults {
                errors_per_mille: 300,
                lost_answers_per_mille: 300,
                latency_max: Duration::from_secs(2),
                truncated_reads_per_mille: 300,
                ..Faults::default()
            });
            for i in 0..10 {
                let (name, contents) = (format!("d/{i}"), bytes(seed, 100 + i));
                faulty.create(&name, contents.clone()).await.unwrap();
                assert_eq!(faulty.read(&name).await.unwrap(), contents);
                assert_eq!(
                    faulty.read_range(&name, 5..60).await.unwrap(),
                    contents[5..60]
                );
            }
            let mut writer = faulty.writer("large").unwrap().hashed();
            let contents = bytes(seed, PART_BYTES + 77);
            writer.write(&contents).await.unwrap();
            match writer.finish().await {
                Ok(written) => assert_eq!(written.size_bytes, contents.len() as u64),
                Err(error) => assert_eq!(error.kind(), Kind::Retry),
            }
            // It was complete, whether or not the answer came.
            assert_eq!(storage.read("large").await.unwrap(), contents);
            faulty.delete("d/3").await.unwrap();
            let names: Vec<_> = faulty
                .list("d/")
                .map_ok(|entry| entry.name)
                .try_collect()
                .await
                .unwrap();
            assert_eq!(names.len(), 9);
        });
    }
}

#[test]
fn retries_end() {
    simulate("busy", 1, async |storage| {
        let dead = storage.with_faults(Faults {
            errors_per_mille: 1000,
            ..Faults::default()
        });
        let error = dead.read("x").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Retry);
        assert_eq!(
            error.to_string(),
            "cannot read \"x\" on memory://busy: no complete answer: injected: busy"
        );
        assert!(dead.list("").try_collect::<Vec<_>>().await.is_err());
    });
}

#[test]
fn a_name_that_exists_is_a_conflict_even_if_answers_are_lost() {
    for seed in 0..20 {
        simulate("create", seed, async |storage| {
            storage.create("a", "theirs").await.unwrap();
            let faults = Faults {
                errors_per_mille: 400,
                ..Faults::default()
            };
            let error = storage
                .with_faults(faults)
                .create("a", "ours!!")
                .await
                .unwrap_err();
            if error.kind() != Kind::Retry {
                assert!(error.is_already_exists());
                assert_eq!(error.kind(), Kind::Conflict);
            }
            assert_eq!(storage.read("a").await.unwrap(), "theirs");
        });
    }
}

#[test]
fn nothing_is_kept_by_noop() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let storage = Storage::open(&Rt::real(), &Backend::Noop).await.unwrap();
        storage.write("a", "x").await.unwrap();
        storage.create("a", "x").await.unwrap();
        let mut writer = storage.writer("b").unwrap().hashed();
        for _ in 0..3 {
            writer.write(&bytes(1, PART_BYTES)).await.unwrap();
        }
        let written = writer.finish().await.unwrap();
        assert_eq!(written.size_bytes, 3 * PART_BYTES as u64);
        assert!(!storage.exists("a").await.unwrap());
        assert!(
            storage
                .list("")
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_directory_has_to_exist_unless_the_command_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::Local {
        path: dir.path().join("a/b"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let rt = Rt::real();
        let error = Storage::open(&rt, &backend).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        // The official tool recognizes a missing directory by these two words.
        let text = error.to_string().to_lowercase();
        assert!(text.contains("io") && text.contains("notfound"), "{text}");
        Storage::create_base(&rt, &backend)
            .await
            .unwrap()
            .write("x", "1")
            .await
            .unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b/x")).unwrap(), b"1");

        let file = Backend::Local {
            path: dir.path().join("a/b/x"),
        };
        assert!(Storage::open(&rt, &file).await.is_err());
        assert!(Storage::create_base(&rt, &file).await.is_err());
    });
}
