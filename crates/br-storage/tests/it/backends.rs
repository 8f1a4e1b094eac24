//! The backends that the suite runs on; servers start once, with the first test that needs them.

use std::sync::LazyLock;

use br_rt::Rt;
use br_storage::{Backend, SealKeys, Storage, StorageOptions, parse_master_key};
use tempfile::TempDir;
use test_servers::{Azurite, FakeGcs, Moto, Proxy};

/// The bucket or container of each server.
pub(crate) const BUCKET: &str = "bucket-1";

static MOTO: LazyLock<Moto> = LazyLock::new(|| {
    let moto = Moto::start();
    moto.create_bucket(BUCKET);
    moto
});

static AZURITE: LazyLock<Azurite> = LazyLock::new(|| {
    let azurite = Azurite::start();
    azurite.create_container(BUCKET);
    azurite
});

static FAKE_GCS: LazyLock<FakeGcs> = LazyLock::new(|| {
    let gcs = FakeGcs::start();
    gcs.create_bucket(BUCKET);
    gcs
});

/// A server with a place for each test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    S3,
    Azure,
    Gcs,
}

impl Server {
    /// `host:port`.
    pub(crate) fn address(self) -> &'static str {
        match self {
            Server::S3 => MOTO.address(),
            Server::Azure => AZURITE.address(),
            Server::Gcs => FAKE_GCS.address(),
        }
    }

    /// The URL of the place `prefix`, by way of `address`.
    pub(crate) fn url_by(self, address: &str, prefix: &str) -> String {
        match self {
            Server::S3 => format!(
                "s3://{BUCKET}/{prefix}?endpoint=http://{address}&access-key=k&secret-access-key=s"
            ),
            Server::Azure => {
                let (account, key) = (Azurite::ACCOUNT, Azurite::KEY);
                format!(
                    "azure://{BUCKET}/{prefix}?endpoint=http://{address}/{account}\
                     &account-name={account}&account-key={key}"
                )
            }
            Server::Gcs => format!("gcs://{BUCKET}/{prefix}?endpoint=http://{address}"),
        }
    }

    /// The URL of the place `prefix`.
    pub(crate) fn url(self, prefix: &str) -> String {
        self.url_by(self.address(), prefix)
    }

    /// A proxy before it, and the place `prefix` by way of that.
    pub(crate) fn by_proxy(self, prefix: &str) -> (Proxy, String) {
        let proxy = Proxy::start(self.address());
        let url = self.url_by(proxy.address(), prefix);
        (proxy, url)
    }
}

/// A master key for sealed storages.
static SEAL_KEYS: LazyLock<(TempDir, SealKeys)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("master.key");
    std::fs::write(&file, format!("{}\n", "5a".repeat(32))).expect("a key file");
    let key = parse_master_key(&format!("local://{}", file.display())).expect("a master key");
    (dir, SealKeys::new(vec![key]))
});

/// Runs a test on a storage of that URL.
pub(crate) fn run<F: Future<Output = ()>>(url: &str, test: impl FnOnce(Storage) -> F) {
    let backend = Backend::parse(url, &StorageOptions::default()).expect("a backend");
    run_on(&backend, test);
}

/// The same with every object sealed.
pub(crate) fn run_sealed<F: Future<Output = ()>>(url: &str, test: impl FnOnce(Storage) -> F) {
    let backend = Backend::parse(url, &StorageOptions::default()).expect("a backend");
    run_on(&backend.sealed(SEAL_KEYS.1.clone()), test);
}

fn run_on<F: Future<Output = ()>>(backend: &Backend, test: impl FnOnce(Storage) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let storage = Storage::create_base(&Rt::real(), backend)
            .await
            .expect("it opens");
        test(storage).await;
    });
}

/// The module of each backend, with a test for each of the cases.
macro_rules! on_servers {
    ($run:path: $($case:ident),* $(,)?) => {
        mod s3 {
            $(#[test]
            #[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
            fn $case() {
                $run(crate::backends::Server::S3, stringify!($case), super::$case);
            })*
        }
        mod azure {
            $(#[test]
            #[cfg_attr(not(azurite), ignore = "needs Azurite: scripts/install-test-servers")]
            fn $case() {
                $run(crate::backends::Server::Azure, stringify!($case), super::$case);
            })*
        }
        mod gcs {
            $(#[test]
            #[cfg_attr(not(fake_gcs), ignore = "needs fake-gcs-server: scripts/install-test-servers")]
            fn $case() {
                $run(crate::backends::Server::Gcs, stringify!($case), super::$case);
            })*
        }
    };
}
pub(crate) use on_servers;
