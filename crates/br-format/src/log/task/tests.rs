use br_proto::backup::storage_backend::Backend;
use br_proto::backup::{Local, StorageBackend};
use br_types::{RawKey, RegionId, StoreId, TimeStamp};
use proptest::prelude::*;

use super::*;
use crate::crypter::{Crypter, Method};
use crate::log::checkpoint::decode_etcd_checkpoint;
use crate::log::file::LogCompression;

/// Everything that etcd held of the task `golden`, see the golden data's README.
const GOLDEN: &str = include_str!("../../../../../tests/golden/tidb-1/etcd-br-stream.json");

fn golden() -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(GOLDEN).unwrap();
    let bytes = |entry: &serde_json::Value, field: &str| {
        hex::decode(entry[field].as_str().unwrap()).unwrap()
    };
    entries
        .iter()
        .map(|entry| (bytes(entry, "key_hex"), bytes(entry, "value_hex")))
        .collect()
}

#[test]
fn golden_keys_and_values() {
    let task = TaskName::new("golden").unwrap();
    let checkpoint = TimeStamp(0x0687_f4ee_5a94_0002);
    let mut stores = Vec::new();
    for (key, value) in golden() {
        let parsed = TaskKey::parse(&key).unwrap();
        assert_eq!(parsed.to_bytes(), key);
        match parsed {
            TaskKey::GlobalCheckpoint(_) => {
                assert_eq!(decode_etcd_checkpoint("x", &value), Ok(checkpoint));
            }
            TaskKey::StorageCheckpoint(name, store) => {
                assert_eq!(name, task);
                assert_eq!(decode_etcd_checkpoint("x", &value), Ok(checkpoint));
                stores.push(store.0);
            }
            TaskKey::Range(_, start) => {
                let expected = [(&b"m"[..], &b"n"[..]), (b"t", b"u")];
                assert!(expected.contains(&(start.as_bytes(), &value)));
            }
            TaskKey::Info(name) => {
                let info = TaskInfo::decode("x", &value).unwrap();
                assert_eq!(info.name, name);
                assert_eq!(info.end_ts, END_TS_NONE);
                assert_eq!(info.table_filter, ["*.*"]);
                assert_eq!(info.compression, LogCompression::Zstd);
                let path = Local {
                    path: "/data/golden/log".into(),
                };
                assert_eq!(info.storage.backend, Some(Backend::Local(path)));
                assert_eq!(info.encode(), value);
            }
            TaskKey::Owner(lease) => assert_eq!(lease, 0x2231_a1fd_387f_bae9),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stores, [1, 4, 5]);
}

#[test]
fn keys_of_the_task_itself_are_in_its_prefixes() {
    let task = TaskName::new("a").unwrap();
    let other = TaskName::new("ab").unwrap();
    let key = |task: &TaskName| TaskKey::StorageCheckpoint(task.clone(), StoreId(1)).to_bytes();
    assert!(key(&task).starts_with(&prefixes::storage_checkpoints_of(&task)));
    assert!(!key(&other).starts_with(&prefixes::storage_checkpoints_of(&task)));
}

#[test]
fn names_of_tasks() {
    for name in ["a", "A_9", "_"] {
        assert!(TaskName::new(name).is_ok(), "{name}");
    }
    for name in ["", "a b", "a/b", "ä", "a-b"] {
        assert!(TaskName::new(name).is_err(), "{name}");
    }
}

#[test]
fn pauses_of_all_tools() {
    assert_eq!(Pause::decode("x", b""), Ok(Pause::V1));
    assert_eq!(Pause::V1.encode(), b"");
    assert!(!Pause::V1.is_error());
    let of_a_tool = br#"{"severity":"MANUAL","operation_hostname":"h","operation_pid":3,
        "operation_time":"2026-08-21T10:00:00+08:00","payload_type":"text/plain;charset=UTF-8",
        "payload":"aGVsbG8="}"#;
    let Ok(Pause::V2(pause)) = Pause::decode("x", of_a_tool) else {
        panic!()
    };
    assert_eq!(pause.severity, Severity::Manual);
    assert_eq!(pause.reason, PauseReason::Text("hello".into()));

    let error = TaskError {
        happened_at_unix_ms: 5,
        code: "KV:LogBackup:RaftReq".into(),
        message: "[store = 4] …".into(),
        store: StoreId(4),
    };
    let reason = PauseReason::Error(error);
    let from = ("h".to_owned(), 3);
    let ours = Pause::V2(PauseV2::new(
        Severity::Error,
        from,
        1_700_000_000_123,
        reason,
    ));
    let encoded = ours.encode();
    assert_eq!(Pause::decode("x", &encoded).as_ref(), Ok(&ours));
    assert!(ours.is_error());
    let text = String::from_utf8(encoded).unwrap();
    assert!(
        text.contains(r#""operation_time":"2023-11-14T22:13:20.123Z""#),
        "{text}"
    );
    let of_a_store = text.replace("messagetype", "messageType");
    assert_eq!(Pause::decode("x", of_a_store.as_bytes()), Ok(ours));
    assert!(Pause::decode("x", b"{").is_err());
}

#[test]
fn a_key_of_the_task_comes_back_and_is_not_shown() {
    let crypter = Crypter::new(Method::Aes256Ctr, &[7; 32]).unwrap();
    let info = TaskInfo {
        name: TaskName::new("t").unwrap(),
        storage: StorageBackend::default(),
        start_ts: TimeStamp(1),
        end_ts: END_TS_NONE,
        table_filter: vec!["*.*".into()],
        compression: LogCompression::None,
        encryption: TaskEncryption::DataKey(crypter),
    };
    assert_eq!(TaskInfo::decode("x", &info.encode()).unwrap(), info);
    assert!(!format!("{info:?}").contains('7'));
}

fn any_key() -> impl Strategy<Value = TaskKey> {
    let task = "[0-9a-zA-Z_]{1,8}".prop_map(|name| TaskName::new(name).unwrap());
    let store = any::<u64>().prop_map(StoreId);
    (task, store, any::<u64>(), any::<Vec<u8>>(), 0..9).prop_map(|(task, store, n, raw, kind)| {
        match kind {
            0 => TaskKey::Info(task),
            1 => TaskKey::Range(task, RawKey::from(raw)),
            2 => TaskKey::Pause(task),
            3 => TaskKey::GlobalCheckpoint(task),
            4 => TaskKey::StoreCheckpoint(task, store),
            5 => TaskKey::RegionCheckpoint(task, RegionId(store.0), n),
            6 => TaskKey::StorageCheckpoint(task, store),
            7 => TaskKey::LastError(task, store),
            _ => TaskKey::Owner(i64::from_be_bytes(n.to_be_bytes()).saturating_abs()),
        }
    })
}

proptest! {
    #[test]
    fn keys_come_back(key in any_key()) {
        prop_assert_eq!(TaskKey::parse(&key.to_bytes()), Some(key));
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        let _ = TaskKey::parse(&noise);
        let _ = TaskKey::parse(&[PREFIX.as_bytes(), b"/checkpoint/a/", &noise].concat());
        let _ = TaskInfo::decode("x", &noise);
        let _ = Pause::decode("x", &noise);
        let _ = TaskError::decode("x", &noise);
    }
}
