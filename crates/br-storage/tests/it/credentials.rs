//! Keys that are right and wrong, on servers that check them.

use br_rt::Rt;
use br_storage::{Backend, Failure, Kms, Secret, Storage, StorageError, StorageOptions};
use br_types::{Classify, Code, Kind};
use test_servers::{Azurite, Moto};

use crate::backends::{BUCKET, Server, run};

fn failure(url: &str) -> StorageError {
    let backend = Backend::parse(url, &StorageOptions::default()).expect("a backend");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Opening a base looks for a keyring.
    let failed = runtime.block_on(Storage::create_base(&Rt::real(), &backend));
    failed.map(drop).expect_err("an error")
}

#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn s3_checks_keys() {
    let (moto, key) = Moto::start_strict(BUCKET);
    let url = |id: &str, secret: &str, more: &str| {
        let endpoint = moto.endpoint();
        format!(
            "s3://{BUCKET}/p?endpoint={endpoint}&access-key={id}&secret-access-key={secret}{more}"
        )
    };
    let whole = |storage: Storage| async move {
        storage.write("a/b c", "one").await.expect("written");
        assert_eq!(storage.read("a/b c").await.expect("there"), "one");
        storage.create("lock", "x").await.expect("created");
        let mut writer = storage.writer("large").expect("a writer");
        writer.write(&vec![1; 20 << 20]).await.expect("taken");
        writer.finish().await.expect("written");
        for name in ["a/b c", "lock", "large"] {
            storage.delete(name).await.expect("deleted");
        }
    };
    run(&url(&key.id, &key.secret, ""), whole);
    // Signed once more, for the sake of a header.
    run(&url(&key.id, &key.secret, "&acl=private"), whole);
    for wrong in [
        url(&key.id, "not-the-secret-at-all", ""),
        url("AKIAIOSFODNN7EXAMPLE", &key.secret, ""),
    ] {
        let error = failure(&wrong);
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert_eq!(error.code(), Code::STORAGE_INVALID_PERMISSION, "{error}");
        assert!(!error.to_string().contains("not-the-secret"), "{error}");
        assert!(!error.to_string().contains(&key.secret), "{error}");
    }
}

#[test]
#[cfg_attr(not(azurite), ignore = "needs Azurite: scripts/install-test-servers")]
fn azure_checks_keys() {
    let url = Server::Azure.url("credentials");
    let (head, _) = url.split_once("&account-key=").expect("a key");
    // Another key of the same length.
    let error = failure(&format!(
        "{head}&account-key={}",
        Azurite::KEY.replace('E', "F")
    ));
    assert_eq!(error.code(), Code::STORAGE_INVALID_PERMISSION, "{error}");
    run(
        &format!("{url}&encryption-scope=scope-1"),
        |storage: Storage| async move {
            // Signed once more, for the sake of a header.
            storage.write("a", "one").await.expect("written");
            storage.delete("a").await.expect("deleted");
        },
    );
}

#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn missing_buckets_are_told() {
    let address = Server::S3.address();
    let url = Server::S3
        .url_by(address, "p")
        .replace(BUCKET, "no-such-bucket");
    let error = failure(&url);
    assert_eq!(error.failure, Failure::NoBucket, "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
    let backend = Backend::parse(&url, &StorageOptions::default()).expect("a backend");
    assert!(!format!("{backend:?}").contains("access-key=k"));
}

#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn keys_of_the_key_management_service() {
    let moto = Moto::start();
    let key_id = moto.create_kms_key();
    let open = |key_id: &str| {
        let secret = Secret::new("s");
        let endpoint = moto.endpoint();
        Kms::open(&Rt::real(), key_id, "us-east-1", &endpoint, "k", &secret).expect("a client")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let kms = open(&key_id);
        let key = kms.generate_data_key().await.expect("a data key");
        assert_eq!(key.plaintext.len(), 32);
        assert_ne!(key.plaintext, key.wrapped);
        let unwrapped = kms.decrypt(&key.wrapped).await.expect("unwrapped");
        assert_eq!(unwrapped, key.plaintext);
        let missing = open("00000000-0000-0000-0000-000000000000");
        let error = missing
            .generate_data_key()
            .await
            .err()
            .expect("no such key");
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        let other = open(&moto.create_kms_key());
        assert!(other.decrypt(&key.wrapped).await.is_err(), "another key");
    });
}
