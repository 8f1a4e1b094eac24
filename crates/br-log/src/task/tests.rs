use br_proto::mvccpb::KeyValue;
use br_types::{StoreId, TimeStamp};

use super::store::read_tasks;

/// Everything below `/tidb/br-stream` that a real cluster had while a task ran.
fn golden() -> Vec<KeyValue> {
    let path = "../../tests/golden/tidb-1/etcd-br-stream.json";
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let bytes = |value: &serde_json::Value| -> Vec<u8> {
        let text = value.as_str().unwrap();
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    let kvs = json.as_array().unwrap().iter();
    kvs.map(|kv| KeyValue {
        key: bytes(&kv["key_hex"]),
        value: bytes(&kv["value_hex"]),
        mod_revision: kv["mod_revision"].as_i64().unwrap(),
        ..Default::default()
    })
    .collect()
}

#[test]
fn the_task_of_a_real_cluster() {
    let all = read_tasks(&golden()).unwrap();
    assert!(all.has_coordinator);
    let [task] = all.tasks.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((task.name(), task.info_revision), ("golden", 429));
    assert_eq!(task.start_ts(), TimeStamp(470_613_951_373_377_538));
    let ranges: Vec<String> = task.ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["[6D, 6E)", "[74, 75)"]);
    let checkpoint = TimeStamp(470_613_990_642_548_738);
    assert_eq!(task.global_checkpoint(), checkpoint);
    assert_eq!(task.storage_checkpoint(), checkpoint);
    assert_eq!(
        task.checkpoints.storage.keys().collect::<Vec<_>>(),
        [&StoreId(1), &StoreId(4), &StoreId(5)]
    );
    assert_eq!(task.pause, None);
}

#[test]
fn what_belongs_to_no_task_or_another_is_left_alone() {
    let mut kvs = golden();
    let put = |key: &str, value: &[u8]| KeyValue {
        key: key.into(),
        value: value.to_vec(),
        ..Default::default()
    };
    kvs.push(put("/tidb/br-stream/pause/golden2", b""));
    kvs.push(put("/tidb/br-stream/storage-checkpoint/golden2/9", &[0; 8]));
    kvs.push(put("/tidb/br-stream/something/new", b"?"));
    // A key of a range may be anything.
    kvs.push(put("/tidb/br-stream/ranges/golden/a/b\u{1}", b"c/d"));
    let all = read_tasks(&kvs).unwrap();
    let task = &all.tasks[0];
    assert_eq!(task.pause, None);
    assert!(!task.checkpoints.storage.contains_key(&StoreId(9)));
    assert_eq!(task.ranges[0].start.as_bytes(), b"a/b\x01");
    assert_eq!(task.ranges[0].end.as_bytes(), b"c/d");
}

#[test]
fn a_pause_that_cannot_be_read_is_a_pause() {
    for value in [&b""[..], b"not json", b"{}"] {
        let mut kvs = golden();
        kvs.push(KeyValue {
            key: b"/tidb/br-stream/pause/golden".to_vec(),
            value: value.to_vec(),
            ..Default::default()
        });
        let all = read_tasks(&kvs).unwrap();
        assert!(all.tasks[0].pause.is_some(), "{value:?}");
    }
}

#[test]
fn without_a_coordinator_the_stores_say_how_far_it_is() {
    let mut all = read_tasks(&golden()).unwrap();
    let task = &mut all.tasks[0];
    task.checkpoints.global = None;
    task.checkpoints.storage.clear();
    assert_eq!(task.global_checkpoint(), task.start_ts());
    assert_eq!(task.storage_checkpoint(), task.start_ts());
    let later = |n| TimeStamp(task.start_ts().0 + n);
    let stores = [(StoreId(1), later(9)), (StoreId(2), later(7))];
    let mut task = task.clone();
    task.checkpoints.stores.extend(stores);
    assert_eq!(task.global_checkpoint(), stores[1].1);
}
