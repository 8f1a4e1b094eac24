//! A sealed log into which tools without keys write.

use br_storage::{SealKeys, parse_master_key};

use super::*;

#[tokio::test]
async fn copies_of_tools_without_keys_are_not_believed() {
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("master.key");
    std::fs::write(&file, format!("{}\n", "5a".repeat(32))).unwrap();
    let key = parse_master_key(&format!("local://{}", file.display())).unwrap();
    let plain = Backend::Memory {
        name: "unsealed-copies".to_owned(),
        prefix: String::new(),
    };
    let sealed = plain.clone().sealed(SealKeys::new(vec![key]));
    let rt = Rt::real();
    let storage = Storage::create_base(&rt, &sealed).await.unwrap();
    write_sealed_log(&storage, &[vec![(5, 3)], vec![(7, 2)]]).await;
    let log = LogStorage::new(storage.clone());
    let before = log.bounds().await.unwrap();
    assert_eq!(
        (before.max_ts, before.unsealed.as_deref()),
        (TimeStamp(1000), None)
    );

    let below = Storage::open(&rt, &plain).await.unwrap();
    let copy = || CheckpointCopy::bare(TimeStamp(5000)).encode();
    below
        .write(names::CENTRAL_CHECKPOINT, copy())
        .await
        .unwrap();
    let bounds = log.bounds().await.unwrap();
    assert_eq!(bounds.unsealed.as_deref(), Some(names::CENTRAL_CHECKPOINT));
    assert_eq!(
        (bounds.max_ts, &bounds.checkpoints),
        (before.max_ts, &before.checkpoints)
    );
    // Our own coordinator writes over it.
    storage
        .write(names::CENTRAL_CHECKPOINT, copy())
        .await
        .unwrap();
    let bounds = log.bounds().await.unwrap();
    assert_eq!((bounds.max_ts, bounds.unsealed), (TimeStamp(5000), None));

    // No tool writes this, and no tool writes it there.
    let store = names::global_checkpoint(StoreId(1));
    for (name, bytes) in [
        (names::CENTRAL_CHECKPOINT, vec![0; 9]),
        (names::CENTRAL_CHECKPOINT, Vec::new()),
        (store.as_str(), copy()),
    ] {
        let good = below.read_range(name, 0..64).await.is_err();
        assert!(good, "it was sealed");
        let sealed = storage.read(name).await.unwrap();
        below.write(name, bytes).await.unwrap();
        let error = log.bounds().await.unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("not sealed") || error.contains("cut"),
            "{error}"
        );
        storage.write(name, sealed).await.unwrap();
        log.bounds().await.unwrap();
    }
    forget_memory("unsealed-copies");
}
