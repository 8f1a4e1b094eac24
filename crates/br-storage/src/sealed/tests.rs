use std::path::{Path, PathBuf};

use br_format::sealed::{SealedError, keyring::FOLDER};
use br_rt::{Rt, UnixMillis};
use br_types::{Classify, Kind};
use futures::TryStreamExt;
use tempfile::TempDir;

use super::{SealKeys, rotate_seal_keys};
use crate::{
    Backend, CrashPoint, Failure, Faults, SendCredentials, Storage, forget_memory,
    parse_master_key, set_memory_faults,
};

mod keeping;

/// A place in memory and a folder of master keys.
struct World {
    rt: Rt,
    name: &'static str,
    keys: TempDir,
}

impl World {
    fn new(name: &'static str) -> World {
        World {
            // Other randomness for each place.
            rt: Rt::simulated(name.len() as u64, UnixMillis(1_700_000_000_000)),
            name,
            keys: tempfile::tempdir().unwrap(),
        }
    }

    fn key_file(&self, digit: &str) -> PathBuf {
        let path = self.keys.path().join(digit);
        std::fs::write(&path, format!("{}\n", digit.repeat(64))).unwrap();
        path
    }

    /// Master keys, each made of one hexadecimal digit.
    fn keys(&self, digits: &[&str]) -> SealKeys {
        let url = |digit: &&str| format!("local://{}", self.key_file(digit).display());
        let keys = digits
            .iter()
            .map(|digit| parse_master_key(&url(digit)).unwrap());
        SealKeys::new(keys.collect())
    }

    fn plain_backend(&self) -> Backend {
        Backend::Memory {
            name: self.name.to_owned(),
            prefix: "p".to_owned(),
        }
    }

    fn backend(&self, digits: &[&str]) -> Backend {
        self.plain_backend().sealed(self.keys(digits))
    }

    async fn create(&self) -> Storage {
        Storage::create_base(&self.rt, &self.backend(&["a"]))
            .await
            .unwrap()
    }

    async fn open(&self, digits: &[&str]) -> Result<Storage, Failure> {
        let opened = Storage::open(&self.rt, &self.backend(digits)).await;
        opened.map_err(|error| error.failure)
    }

    async fn plain(&self) -> Storage {
        Storage::open(&self.rt, &self.plain_backend())
            .await
            .unwrap()
    }

    async fn keyrings(&self) -> Vec<String> {
        let listed = self.plain().await.list(FOLDER);
        let mut names: Vec<String> = listed
            .map_ok(|entry| entry.name)
            .try_collect()
            .await
            .unwrap();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        forget_memory(self.name);
    }
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

fn is_damaged(failure: &Failure) -> bool {
    matches!(failure, Failure::Damaged(_))
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_content_is_stored() {
    let world = World::new("sealed-content");
    let storage = world.create().await;
    let plain = content(200_000);
    storage.write("v1/a.log", plain.clone()).await.unwrap();
    assert_eq!(storage.size("v1/a.log").await.unwrap(), 200_000);
    assert_eq!(storage.read("v1/a.log").await.unwrap(), plain);
    let listed: Vec<_> = storage.list("").try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].size_bytes, 200_000);

    let below = world.plain().await;
    let stored = below.read_range("v1/a.log", 1..300).await.unwrap();
    assert!(
        !stored
            .windows(8)
            .any(|window| plain.windows(8).any(|w| w == window))
    );
    // Who has no key is told so.
    let error = below.read("v1/a.log").await.unwrap_err();
    assert_eq!(error.failure, Failure::IsSealed);
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.next_step().unwrap().contains("--seal-key"));
}

#[tokio::test(start_paused = true)]
async fn ranges_of_many_sizes() {
    let world = World::new("sealed-ranges");
    let storage = world.create().await;
    const CHUNK: usize = 64 << 10;
    for size in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
        let plain = content(size);
        storage.write("a", plain.clone()).await.unwrap();
        let edges = [
            0,
            1,
            9,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            2 * CHUNK,
            3 * CHUNK,
            size - 1,
            size,
        ];
        for start in edges {
            for end in edges {
                if start >= end || end > size {
                    continue;
                }
                let read = storage
                    .read_range("a", start as u64..end as u64)
                    .await
                    .unwrap();
                assert_eq!(read, plain[start..end], "{start}..{end} of {size}");
            }
        }
        for beyond in [0..size + 1, size..size + 1, size + CHUNK..size + CHUNK + 1] {
            let range = beyond.start as u64..beyond.end as u64;
            let error = storage.read_range("a", range.clone()).await.unwrap_err();
            let expected = Failure::Truncated {
                expected: range.end,
                found: size as u64,
            };
            assert_eq!(error.failure, expected, "{beyond:?} of {size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_stored_bytes_are_seen() {
    let world = World::new("sealed-changes");
    let storage = world.create().await;
    let below = world.plain().await;
    let size = 150_000;
    storage.write("a", content(size)).await.unwrap();
    storage.write("b", content(size)).await.unwrap();
    let stored = raw(&below, "a").await;
    let other = raw(&below, "b").await;
    let mut states = vec![other];
    for at in [0, 7, 8, 20, 63, 64, 65_000, 65_616, stored.len() - 1] {
        let mut flipped = stored.clone();
        flipped[at] ^= 1;
        states.push(flipped);
    }
    for length in [0, 40, 64, 80, 64 + 65_552, stored.len() - 1] {
        states.push(stored[..length].to_vec());
    }
    let mut longer = stored.clone();
    longer.push(0);
    states.push(longer);
    // Somebody puts a plain object there.
    states.push(b"{}".to_vec());
    states.push(content(size));
    for (number, state) in states.into_iter().enumerate() {
        below.write("a", state).await.unwrap();
        let error = storage.read("a").await.unwrap_err();
        assert!(is_damaged(&error.failure), "{number}: {error}");
        assert_eq!(error.kind(), Kind::Data);
        // By ranges: one of them at least.
        let mut seen = false;
        for start in (0..size as u64).step_by(65_536) {
            let end = (start + 65_536).min(size as u64);
            seen |= storage.read_range("a", start..end).await.is_err();
        }
        assert!(seen, "{number}");
    }
    below.write("a", stored).await.unwrap();
    assert_eq!(storage.read("a").await.unwrap(), content(size));
}

/// The bytes as they are stored; reading them from byte 0 on is refused.
async fn raw(below: &Storage, name: &str) -> Vec<u8> {
    let size = below.size(name).await.unwrap();
    let mut bytes = vec![7];
    bytes.extend(below.read_range(name, 1..size).await.unwrap());
    bytes
}

/// A reader that holds the key of an object meets another object under its name.
#[tokio::test(start_paused = true)]
async fn objects_are_replaced_under_readers() {
    let world = World::new("sealed-replaced");
    let storage = world.create().await;
    let reader = world.open(&["a"]).await.unwrap();
    storage.write("a", content(100_000)).await.unwrap();
    assert_eq!(
        reader.read_range("a", 70_000..70_004).await.unwrap(),
        content(100_000)[70_000..70_004]
    );
    storage.write("a", vec![1; 100_000]).await.unwrap();
    assert_eq!(
        reader.read_range("a", 70_000..70_004).await.unwrap(),
        vec![1; 4]
    );
    storage.create("c", "new").await.unwrap();
    assert!(
        storage
            .create("c", "newer")
            .await
            .unwrap_err()
            .is_already_exists()
    );
}

#[tokio::test(start_paused = true)]
async fn parts_are_sealed() {
    let world = World::new("sealed-parts");
    let storage = world.create().await;
    for size in [
        0,
        1000,
        crate::PART_BYTES,
        crate::PART_BYTES + 1,
        3 * crate::PART_BYTES + 77,
    ] {
        let plain = content(size);
        let mut writer = storage.writer("a").unwrap();
        for piece in plain.chunks(1_000_003) {
            writer.write(piece).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap().size_bytes, size as u64);
        assert_eq!(storage.read("a").await.unwrap(), plain, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn keyrings_are_made_where_nothing_is() {
    let world = World::new("sealed-made");
    let error = world.open(&["a"]).await.unwrap_err();
    assert_eq!(error, Failure::NoKeyring { is_empty: true });
    let storage = world.create().await;
    storage.write("a", "text").await.unwrap();
    // Again, as a resumed backup does.
    assert_eq!(world.create().await.read("a").await.unwrap(), "text");
    assert_eq!(world.keyrings().await, ["holdfast.keys/00000001"]);
    let wrong = world.open(&["b"]).await.unwrap_err();
    let text = wrong.to_string();
    assert!(
        text.contains("another master key") && text.contains("/a"),
        "{text}"
    );
    assert_eq!(wrong.kind(), Kind::Invalid);
    // One of several is enough.
    assert!(world.open(&["b", "a"]).await.is_ok());

    let plain = Storage::create_base(&world.rt, &world.plain_backend()).await;
    assert_eq!(plain.unwrap_err().failure, Failure::IsSealed);

    let used = World::new("sealed-used");
    used.plain()
        .await
        .write("backupmeta", "plain")
        .await
        .unwrap();
    let error = Storage::create_base(&used.rt, &used.backend(&["a"]))
        .await
        .unwrap_err();
    assert_eq!(error.failure, Failure::NotEmpty);
    let error = used.open(&["a"]).await.unwrap_err();
    assert_eq!(error, Failure::NoKeyring { is_empty: false });
}

#[tokio::test(start_paused = true)]
async fn master_keys_are_rotated() {
    let world = World::new("sealed-rotated");
    let writer = world.create().await;
    writer.write("old", "old").await.unwrap();
    let (rt, backend) = (&world.rt, world.backend(&["a"]));
    let before = raw(&world.plain().await, "old").await;
    let done = rotate_seal_keys(rt, &backend, &world.keys(&["b", "c"]), true)
        .await
        .unwrap();
    assert_eq!((done.generation, done.data_keys, done.removed), (2, 2, 1));
    assert!(done.has_new_data_key && !done.was_done);
    assert_eq!(raw(&world.plain().await, "old").await, before);
    assert_eq!(world.keyrings().await, ["holdfast.keys/00000002"]);
    assert!(world.open(&["a"]).await.is_err());
    for digit in ["b", "c"] {
        let storage = world.open(&[digit]).await.unwrap();
        assert_eq!(storage.read("old").await.unwrap(), "old");
        storage.write("new", digit).await.unwrap();
    }
    // Who had it open before goes on: with the key that it knows, although its master key is gone.
    writer.write("late", "late").await.unwrap();
    rt.sleep(std::time::Duration::from_secs(3600)).await;
    writer.write("later", "later").await.unwrap();
    let storage = world.open(&["c"]).await.unwrap();
    for (name, text) in [("late", "late"), ("later", "later"), ("new", "c")] {
        assert_eq!(storage.read(name).await.unwrap(), text);
    }
    // Who still has a key that fits finds data keys that are newer than what it has read.
    let reader = world.open(&["b"]).await.unwrap();
    let done = rotate_seal_keys(rt, &world.backend(&["c"]), &world.keys(&["b"]), true)
        .await
        .unwrap();
    assert_eq!((done.generation, done.data_keys), (3, 3));
    let newest = world.open(&["b"]).await.unwrap();
    newest.write("newest", "newest").await.unwrap();
    assert_eq!(reader.read("newest").await.unwrap(), "newest");
    let wrong = rotate_seal_keys(rt, &world.backend(&["c"]), &world.keys(&["d"]), false).await;
    assert!(matches!(
        wrong.unwrap_err().failure,
        Failure::MasterKeys { .. }
    ));
}

/// At every change that a rotation makes: the storage opens with one of both master keys, and the same
/// rotation brings it to its end.
#[tokio::test(start_paused = true)]
async fn rotations_are_killed() {
    for changes in 0..4 {
        let world = World::new("sealed-killed");
        let storage = world.create().await;
        storage.write("a", "text").await.unwrap();
        let crash = Faults {
            crash: Some(CrashPoint::after(changes)),
            ..Faults::default()
        };
        set_memory_faults(world.name, crash);
        let backend = world.backend(&["a"]);
        let to = world.keys(&["b"]);
        let cut = rotate_seal_keys(&world.rt, &backend, &to, true).await;
        assert_eq!(cut.is_ok(), changes >= 2, "{changes}");
        set_memory_faults(world.name, Faults::default());
        let opened = match world.open(&["a"]).await {
            Ok(storage) => storage,
            Err(_) => world.open(&["b"]).await.unwrap(),
        };
        assert_eq!(opened.read("a").await.unwrap(), "text");
        opened.write("during", "during").await.unwrap();
        let again = rotate_seal_keys(&world.rt, &backend, &to, true)
            .await
            .unwrap();
        assert_eq!(again.was_done, changes >= 1, "{changes}");
        assert_eq!(world.keyrings().await, ["holdfast.keys/00000002"]);
        assert!(world.open(&["a"]).await.is_err());
        let storage = world.open(&["b"]).await.unwrap();
        assert_eq!(storage.read("a").await.unwrap(), "text");
        assert_eq!(storage.read("during").await.unwrap(), "during");
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_keyrings_are_refused() {
    let world = World::new("sealed-keyring");
    let storage = world.create().await;
    storage.write("a", "text").await.unwrap();
    let below = world.plain().await;
    let name = "holdfast.keys/00000001";
    let good = String::from_utf8(below.read(name).await.unwrap().to_vec()).unwrap();
    for bad in [
        String::new(),
        good.replacen("1", "2", 1),
        good.replace("\"sum\": \"", "\"sum\": \"0"),
    ] {
        below.write(name, bad).await.unwrap();
        assert!(is_damaged(&world.open(&["a"]).await.unwrap_err()));
    }
    // Another storage's keyring has other keys.
    let other = World::new("sealed-keyring-other");
    other.create().await.write("a", "other").await.unwrap();
    let foreign = other.plain().await.read(name).await.unwrap();
    below.write(name, foreign).await.unwrap();
    let opened = world.open(&["a"]).await.unwrap();
    let error = opened.read("a").await.unwrap_err();
    assert!(matches!(
        error.failure,
        Failure::Damaged(SealedError::UnknownKey(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn requests_carry_the_names_of_master_keys() {
    let world = World::new("sealed-wire");
    let backend = world.backend(&["a"]);
    let proto = backend.to_proto(SendCredentials::Yes).unwrap();
    assert_eq!(Backend::from_proto(&proto).unwrap(), backend);
    assert!(!format!("{proto:?} {backend:?}").contains("aaaa"));
    let key = "aws-kms:///k?REGION=r&AWS_ACCESS_KEY_ID=i&AWS_SECRET_ACCESS_KEY=hidden";
    let keys = SealKeys::new(vec![parse_master_key(key).unwrap()]);
    assert!(keys.have_credentials());
    let backend = world.plain_backend().sealed(keys);
    let sent = backend.to_proto(SendCredentials::Yes).unwrap();
    assert!(!format!("{sent:?} {backend:?} {backend}").contains("hidden"));
    let Backend::Sealed { keys, .. } =
        Backend::from_proto(&backend.to_proto(SendCredentials::No).unwrap()).unwrap()
    else {
        panic!("not sealed")
    };
    assert!(!keys.have_credentials());
    // A request that says sealed without keys must not lead to plain objects.
    let mut bare = sent;
    bare.sealed = Some(br_proto::backup::SealedStorage::default());
    assert!(Backend::from_proto(&bare).is_err());
}

#[tokio::test]
async fn files_are_not_adopted() {
    let world = World::new("sealed-adopt");
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::Local {
        path: dir.path().join("base"),
    };
    let backend = backend.sealed(world.keys(&["a"]));
    let storage = Storage::create_base(&Rt::real(), &backend).await.unwrap();
    assert!(!storage.can_adopt_from(dir.path()));
    let file = dir.path().join("file");
    std::fs::write(&file, "plain").unwrap();
    assert!(storage.adopt(&file, "a").await.is_err());
    assert!(Path::new(&file).exists());
}
