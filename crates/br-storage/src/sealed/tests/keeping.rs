use super::*;

#[tokio::test(start_paused = true)]
async fn places_that_are_free_again_are_not_sealed() {
    let world = World::new("sealed-forgotten");
    let storage = world.create().await;
    storage.write("a", "text").await.unwrap();
    storage.write("lock", "mine").await.unwrap();
    assert!(!storage.forget_keyring(&["lock"]).await.unwrap());
    storage.check_keyring().await.unwrap();
    storage.delete("a").await.unwrap();
    // Who has opened it before, and comes later to its lock, is told.
    let late = world.create().await;
    assert!(storage.forget_keyring(&["lock"]).await.unwrap());
    assert!(world.keyrings().await.is_empty());
    assert_eq!(storage.read("lock").await.unwrap(), "mine");
    storage.delete("lock").await.unwrap();
    let rest: Vec<_> = world.plain().await.list("").try_collect().await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    let gone = late.check_keyring().await.unwrap_err();
    assert_eq!(gone.failure, Failure::KeyringChanged);
    assert_eq!(gone.kind(), Kind::Conflict);
    // So is it if somebody else has sealed it anew.
    let next = world.create().await;
    next.check_keyring().await.unwrap();
    assert!(late.check_keyring().await.is_err());
    // A rotation is no reason: the key is there.
    let to = world.keys(&["a", "b"]);
    let rotated = rotate_seal_keys(&world.rt, &world.backend(&["a"]), &to, true).await;
    assert_eq!(rotated.unwrap().generation, 2);
    next.check_keyring().await.unwrap();
    let plain = world.plain().await;
    plain.check_keyring().await.unwrap();
    assert!(!plain.forget_keyring(&[]).await.unwrap());
}

/// The newest keyring goes last.
#[tokio::test(start_paused = true)]
async fn a_removal_is_killed() {
    let world = World::new("sealed-forgotten-killed");
    let storage = world.create().await;
    let below = world.plain().await;
    let name = "holdfast.keys/00000001";
    let first = below.read(name).await.unwrap();
    let to = world.keys(&["a"]);
    rotate_seal_keys(&world.rt, &world.backend(&["a"]), &to, false)
        .await
        .unwrap();
    // As a rotation leaves it that is killed.
    below.write(name, first).await.unwrap();
    let crash = Faults {
        crash: Some(CrashPoint::after(1)),
        ..Faults::default()
    };
    set_memory_faults(world.name, crash);
    let dying = world.open(&["a"]).await.unwrap();
    assert!(dying.forget_keyring(&[]).await.is_err());
    set_memory_faults(world.name, Faults::default());
    assert_eq!(world.keyrings().await, ["holdfast.keys/00000002"]);
    assert!(world.open(&["a"]).await.is_ok());
    assert!(storage.forget_keyring(&[]).await.unwrap());
    assert!(world.keyrings().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_others_put_there_is_told_from_damage() {
    let world = World::new("sealed-foreign");
    let storage = world.create().await;
    storage.write("a", "12345678").await.unwrap();
    let below = world.plain().await;
    below.write("b", "12345678").await.unwrap();
    below.write("empty", "").await.unwrap();
    assert_eq!(storage.foreign_size("a").await.unwrap(), None);
    assert_eq!(storage.foreign_size("b").await.unwrap(), Some(8));
    assert_eq!(storage.foreign_size("empty").await.unwrap(), Some(0));
    assert!(
        storage
            .foreign_size("none")
            .await
            .unwrap_err()
            .is_not_found()
    );
    for name in ["b", "empty"] {
        let failure = storage.read(name).await.unwrap_err().failure;
        assert!(is_damaged(&failure), "{failure}");
    }
    assert_eq!(below.foreign_size("b").await.unwrap(), None);
}
