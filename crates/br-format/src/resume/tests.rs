use super::*;
use crate::backupmeta::tests::golden;
use crate::crypter::{Crypter, Iv, Method};
use crate::names::{RESUME_DATA_FOLDER, RESUME_LOCK, RESUME_META};

const DATA_UUID: &str = "5aa45ed9-0bc7-42a7-aba9-93c8aca4d74b";

fn golden_ranges() -> (Vec<u8>, ResumeRanges) {
    let name = format!("{RESUME_DATA_FOLDER}/{}.cpt", hex::encode(DATA_UUID));
    let bytes = golden(&format!("interrupted/{name}"));
    let ranges = ResumeRanges::decode(&name, &bytes, &Crypter::plaintext()).unwrap();
    (bytes, ranges)
}

#[test]
fn golden_files_are_written_byte_for_byte() {
    let bytes = golden(&format!("interrupted/{RESUME_META}"));
    let meta = ResumeMeta::decode(RESUME_META, &bytes).unwrap();
    assert_eq!(meta.backup_ts, TimeStamp(470_614_302_164_779_012));
    assert_eq!(
        meta.gc_service_id,
        "br-b7214186-e556-4152-97e1-76927e358d30"
    );
    assert_eq!(meta.encode(), bytes);

    let bytes = golden(&format!("interrupted/{RESUME_LOCK}"));
    let lock = ResumeLock::decode(RESUME_LOCK, &bytes).unwrap();
    assert_eq!(lock.encode(), bytes);

    let (bytes, ranges) = golden_ranges();
    assert_eq!(ranges.encode(&Crypter::plaintext(), &Iv([0; 16])), bytes);
}

#[test]
fn golden_ranges_are_in_order_and_name_files_that_stood_there() {
    let (_, resumed) = golden_ranges();
    let listed = String::from_utf8(golden("interrupted/sst-files.txt")).unwrap();
    let mut files = 0;
    for pair in resumed.ranges.windows(2) {
        assert!(
            pair[0].range.end <= pair[1].range.start,
            "{} {}",
            pair[0].range,
            pair[1].range
        );
    }
    for range in &resumed.ranges {
        for file in &range.files {
            let line = format!("{} {}", file.name, file.size_bytes);
            assert!(listed.lines().any(|l| l == line), "{line}");
            assert_eq!(file.end_ts, TimeStamp(470_614_302_164_779_012));
            files += 1;
        }
    }
    // One more was written after the last flush.
    let listed_files = listed.lines().filter(|line| line.contains(".sst")).count();
    assert_eq!((files, listed_files), (27, 28));
}

#[test]
fn encrypted_ranges_need_their_key() {
    let (_, ranges) = golden_ranges();
    let crypter = Crypter::new(Method::Aes192Ctr, &[5; 24]).unwrap();
    let bytes = ranges.encode(&crypter, &Iv([9; 16]));
    assert_eq!(ResumeRanges::decode("a", &bytes, &crypter).unwrap(), ranges);
    let other = Crypter::new(Method::Aes192Ctr, &[6; 24]).unwrap();
    let expected = Err(ResumeError::Checksum { object: "a".into() });
    assert_eq!(ResumeRanges::decode("a", &bytes, &other), expected);
    let plain = ResumeRanges::decode("a", &bytes, &Crypter::plaintext());
    assert_eq!(plain, Err(ResumeError::Checksum { object: "a".into() }));
}

#[test]
fn checksums_of_tables() {
    let stats = crate::kv_stats::KvStats {
        crc64_xor: u64::MAX,
        total_kvs: 2,
        total_bytes: 3,
    };
    let checksums = ResumeChecksums {
        tables: vec![TableChecksum {
            table: br_types::TableId(104),
            stats,
        }],
        elapsed: std::time::Duration::from_secs(2),
    };
    let bytes = checksums.encode();
    assert_eq!(ResumeChecksums::decode("a", &bytes).unwrap(), checksums);
    let mut damaged = bytes.to_vec();
    damaged[14] ^= 2;
    assert!(ResumeChecksums::decode("a", &damaged).is_err());
}

#[test]
fn locks_of_other_runs() {
    let at = |ms| TimeStamp::compose(ms, 0);
    let holder = ResumeHolder {
        host: "h".into(),
        pid: 1,
        start_ticks: 2,
        pid_space: "s".into(),
    };
    let lock = ResumeLock::new(at(1_000), at(1_000), holder);
    assert_eq!(ResumeLock::decode("a", &lock.encode()).unwrap(), lock);
    assert_eq!(lock.expire_at_unix_ms, 61_000);
    assert_eq!(lock.state_for(at(1_000), at(2_000)), LockState::Free);
    assert_eq!(
        lock.state_for(at(2_000), at(2_000)),
        LockState::Held { for_ms: 59_000 }
    );
    assert_eq!(lock.state_for(at(2_000), at(61_000)), LockState::Free);
    assert_eq!(
        lock.state_for(at(500), at(61_000)),
        LockState::LostToLaterRun
    );
}

/// The JSON that the official tool hashes, for its default flags.
#[test]
fn the_hash_is_over_the_official_json() {
    let config = ResumeConfig {
        last_backup_ts: 0,
        ignore_stats: true,
        use_checkpoint: true,
        s3: S3Options::default(),
        gcs: GcsOptions::default(),
        azblob: AzureOptions::default(),
        storage: "s3://b/p?endpoint=http://h&force-path-style=true".into(),
        pd: vec!["127.0.0.1:2379".into()],
        send_credentials_to_tikv: true,
        no_credentials: false,
        filter_strings: vec!["*.*".into()],
        cipher: Crypter::plaintext(),
        keyspace_name: String::new(),
    };
    let json = String::from_utf8(config_hash::go_json(&config)).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"last-backup-ts":0,"ignore-stats":true,"use-checkpoint":true,"#,
            r#""s3":{"endpoint":"","region":"","storage-class":"","sse":"","sse-kms-key-id":"","#,
            r#""acl":"","access-key":"","secret-access-key":"","session-token":"","#,
            r#""provider":"","force-path-style":true,"use-accelerate-endpoint":false,"#,
            r#""role-arn":"","external-id":"","profile":"","object-lock-enabled":false},"#,
            r#""gcs":{"endpoint":"","storage-class":"","predefined-acl":"","#,
            r#""credentials-file":""},"azblob":{"endpoint":"","account-name":"","#,
            r#""account-key":"","access-tier":"","sas-token":"","encryption-scope":"","#,
            r#""encryption-key":""},"#,
            r#""storage":"s3://b/p?endpoint=http://h\u0026force-path-style=true","#,
            r#""pd":["127.0.0.1:2379"],"send-credentials-to-tikv":true,"#,
            r#""no-credentials":false,"filter-strings":["*.*"],"cipher":{"cipher_type":1},"#,
            r#""keyspace-name":""}"#,
        ),
    );
}

/// Version 8.5 of the official tool has no profiles: as checked with what 8.5.6 left when it was killed.
#[test]
fn versions_name_different_options() {
    let config = ResumeConfig {
        last_backup_ts: 0,
        ignore_stats: true,
        use_checkpoint: true,
        s3: S3Options::default(),
        gcs: GcsOptions::default(),
        azblob: AzureOptions::default(),
        storage: "local:///backup/big".into(),
        pd: vec!["127.0.0.1:22000".into()],
        send_credentials_to_tikv: true,
        no_credentials: false,
        filter_strings: vec!["`big`.*".into()],
        cipher: Crypter::plaintext(),
        keyspace_name: String::new(),
    };
    let [v8_5, v9] = config.hashes().map(|hash| hash.to_string());
    assert_eq!(
        v8_5,
        "84495652abe6632ea7d383b2174c9e5f1809195a4ac33676158db4df5ac9e1d8"
    );
    assert_eq!(
        v9,
        "58c4b849eeb1ac735e73bfa30e9049b287266abfe19e5c23a08845afb2026072"
    );
}
