use prost_reflect::{DescriptorPool, prost::Message as _};

use crate::{DESCRIPTORS, backup};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).expect("the descriptors decode")
}

/// Field numbers as published; a slip in one of them would be silent data loss.
#[test]
fn field_numbers_are_the_published_ones() {
    let expected: &[(&str, &[(&str, u32)])] = &[
        (
            "backup.BackupRequest",
            &[
                ("cluster_id", 1),
                ("start_version", 4),
                ("end_version", 5),
                ("rate_limit", 7),
                ("concurrency", 8),
                ("storage_backend", 9),
                ("is_raw_kv", 10),
                ("cf", 11),
                ("compression_type", 12),
                ("cipher_info", 14),
                ("dst_api_version", 15),
                ("sub_ranges", 16),
                ("replica_read", 17),
                ("unique_id", 19),
                ("context", 20),
            ],
        ),
        (
            "backup.File",
            &[
                ("name", 1),
                ("sha256", 2),
                ("start_key", 3),
                ("end_key", 4),
                ("start_version", 5),
                ("end_version", 6),
                ("crc64xor", 7),
                ("total_kvs", 8),
                ("total_bytes", 9),
                ("cf", 10),
                ("size", 11),
                ("cipher_iv", 12),
                ("table_metas", 13),
            ],
        ),
        (
            "backup.Error",
            &[
                ("msg", 1),
                ("cluster_id_error", 3),
                ("kv_error", 4),
                ("region_error", 5),
            ],
        ),
        (
            "import_sstpb.SSTMeta",
            &[
                ("uuid", 1),
                ("range", 2),
                ("cf_name", 5),
                ("end_key_exclusive", 8),
                ("cipher_iv", 12),
            ],
        ),
        (
            "import_sstpb.DownloadRequest",
            &[
                ("ssts", 1),
                ("sst", 2),
                ("name", 9),
                ("rewrite_rule", 13),
                ("storage_backend", 14),
                ("cipher_info", 16),
                ("context", 19),
            ],
        ),
        (
            "kvrpcpb.PrewriteRequest",
            &[
                ("mutations", 2),
                ("primary_lock", 3),
                ("start_version", 4),
                ("lock_ttl", 5),
                ("pessimistic_actions", 7),
                ("min_commit_ts", 10),
                ("use_async_commit", 11),
                ("secondaries", 12),
                ("try_one_pc", 13),
                ("assertion_level", 15),
            ],
        ),
        (
            "kvrpcpb.KeyError",
            &[
                ("locked", 1),
                ("retryable", 2),
                ("abort", 3),
                ("conflict", 4),
                ("txn_not_found", 8),
                ("primary_mismatch", 11),
                ("txn_lock_not_found", 12),
            ],
        ),
        (
            "kvrpcpb.LockInfo",
            &[
                ("primary_lock", 1),
                ("lock_version", 2),
                ("key", 3),
                ("lock_ttl", 4),
                ("txn_size", 5),
                ("lock_type", 6),
                ("use_async_commit", 8),
                ("min_commit_ts", 9),
                ("secondaries", 10),
            ],
        ),
        (
            "kvrpcpb.Context",
            &[
                ("region_id", 1),
                ("region_epoch", 2),
                ("peer", 3),
                ("term", 5),
                ("resolved_locks", 13),
                ("api_version", 21),
                ("committed_locks", 22),
                ("keyspace_id", 32),
                ("cluster_id", 35),
            ],
        ),
        (
            "errorpb.Error",
            &[
                ("message", 1),
                ("not_leader", 2),
                ("region_not_found", 3),
                ("key_not_in_region", 4),
                ("epoch_not_match", 5),
                ("server_is_busy", 6),
                ("stale_command", 7),
                ("store_not_match", 8),
                ("max_timestamp_not_synced", 10),
                ("disk_full", 15),
                ("undetermined_result", 22),
            ],
        ),
        (
            "pdpb.TsoResponse",
            &[("header", 1), ("count", 2), ("timestamp", 3)],
        ),
        (
            "pdpb.ScatterRegionRequest",
            &[
                ("region_id", 2),
                ("group", 5),
                ("regions_id", 6),
                ("retry_limit", 7),
                ("skip_store_limit", 8),
            ],
        ),
        (
            "pdpb.GCState",
            &[
                ("keyspace_scope", 1),
                ("is_keyspace_level_gc", 2),
                ("txn_safe_point", 3),
                ("gc_safe_point", 4),
                ("gc_barriers", 5),
            ],
        ),
        (
            "metapb.Store",
            &[
                ("id", 1),
                ("address", 2),
                ("state", 3),
                ("labels", 4),
                ("peer_address", 6),
                ("status_address", 7),
                ("last_heartbeat", 11),
                ("node_state", 13),
            ],
        ),
        (
            "coprocessor.Request",
            &[
                ("context", 1),
                ("tp", 2),
                ("data", 3),
                ("ranges", 4),
                ("start_ts", 7),
            ],
        ),
        (
            "etcdserverpb.WatchResponse",
            &[
                ("watch_id", 2),
                ("created", 3),
                ("canceled", 4),
                ("compact_revision", 5),
                ("events", 11),
            ],
        ),
    ];
    let pool = pool();
    for (message, fields) in expected {
        let message = pool.get_message_by_name(message).expect(message);
        for (name, number) in *fields {
            let field = message.get_field_by_name(name).expect(name);
            assert_eq!(field.number(), *number, "{}.{name}", message.full_name());
        }
    }
}

/// Each command has the same tag in the request and in the answer.
#[test]
fn batch_commands_have_the_published_tags() {
    let pool = pool();
    let tags = [
        ("Get", 1),
        ("Scan", 2),
        ("Prewrite", 3),
        ("Commit", 4),
        ("BatchGet", 7),
        ("ResolveLock", 10),
        ("RawScan", 19),
        ("Coprocessor", 22),
        ("PessimisticLock", 23),
        ("CheckTxnStatus", 25),
        ("TxnHeartBeat", 26),
        ("CheckSecondaryLocks", 33),
        ("BufferBatchGet", 38),
        ("BroadcastTxnStatus", 40),
        ("Empty", 255),
    ];
    for side in [
        "tikvpb.BatchCommandsRequest.Request",
        "tikvpb.BatchCommandsResponse.Response",
    ] {
        let message = pool.get_message_by_name(side).expect(side);
        let oneof = message
            .oneofs()
            .find(|oneof| oneof.name() == "cmd")
            .expect("cmd");
        for (name, number) in tags {
            let field = oneof
                .fields()
                .find(|field| field.name() == name)
                .expect(name);
            assert_eq!(field.number(), number, "{side}.{name}");
        }
    }
}

#[test]
fn paths_of_methods_are_the_published_ones() {
    let pool = pool();
    let methods = [
        ("tikvpb.Tikv", "KVPessimisticRollback"),
        ("tikvpb.Tikv", "BatchCommands"),
        ("backup.Backup", "backup"),
        ("pdpb.PD", "UpdateServiceGCSafePoint"),
        ("import_sstpb.ImportSST", "MultiIngest"),
        ("logbackup.LogBackup", "GetLastFlushTSOfRegion"),
        ("keyspacepb.Keyspace", "LoadKeyspace"),
        ("etcdserverpb.KV", "Txn"),
        ("grpc.health.v1.Health", "Check"),
    ];
    for (service, method) in methods {
        let service = pool.get_service_by_name(service).expect(service);
        assert!(
            service.methods().any(|found| found.name() == method),
            "{service:?} {method}"
        );
    }
}

#[test]
fn debug_output_hides_secrets() {
    let secret = "0123-secret";
    let s3 = backup::S3 {
        secret_access_key: secret.into(),
        access_key: secret.into(),
        ..Default::default()
    };
    let cipher = backup::CipherInfo {
        cipher_key: secret.into(),
        ..Default::default()
    };
    let text = format!("{s3:?} {cipher:?}");
    assert!(!text.contains(secret) && !text.contains("48, 49"), "{text}");
    assert_eq!(
        backup::S3::decode(&*s3.encode_to_vec()).expect("decodes"),
        s3
    );
}
