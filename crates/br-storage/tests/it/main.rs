//! One suite that every backend passes.

use br_rt::Rt;
use br_storage::{Backend, Storage, StorageOptions, forget_memory};

mod conformance;

fn run(url: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let backend = Backend::parse(url, &StorageOptions::default()).expect("a backend");
    runtime.block_on(async {
        let storage = Storage::create_base(&Rt::real(), &backend)
            .await
            .expect("it opens");
        conformance::all(&storage).await;
    });
}

#[test]
fn memory() {
    run("memory://conformance");
    forget_memory("conformance");
}

#[test]
fn memory_below_a_prefix() {
    run("memory://conformance-prefix/a/b");
    forget_memory("conformance-prefix");
}

#[test]
fn local() {
    let dir = tempfile::tempdir().expect("a directory");
    run(&format!(
        "local://{}",
        dir.path().join("base dir").display()
    ));
}

/// `BR_TEST_STORAGE` is the URL of an empty place on S3, GCS or Azure, settings included.
#[test]
#[ignore = "runs with BR_TEST_STORAGE=URL cargo test -p br-storage -- --ignored remote"]
fn remote() {
    run(&std::env::var("BR_TEST_STORAGE").expect("BR_TEST_STORAGE"));
}
