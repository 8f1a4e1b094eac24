//! A cluster with its client, and the way from one to another: backup and restore.

use std::sync::Arc;

use br_cluster::{Cluster, ClusterConfig, KeyPrefix, Security};
use br_embed::Options;
use br_format::crypter::Crypter;
use br_rt::{CancellationToken, Rt, Silent};
use br_snapshot::{
    backup::{self, BackupContext, BackupOptions, BackupSummary},
    restore::{self, RestoreOptions, RestoreSummary, RestoreTarget},
};
use br_storage::{Backend, Storage, StorageOptions};
use br_tidb::filter::TableFilter;
use br_types::TimeStamp;
use tempfile::TempDir;

/// A cluster in this process, and a client that knows it by its address only.
pub(crate) struct Site {
    pub(crate) embedded: br_embed::Cluster,
    pub(crate) cluster: Cluster,
}

impl Site {
    pub(crate) async fn start(options: Options) -> Site {
        let rt = options.rt.clone();
        let embedded = Box::pin(br_embed::Cluster::start(options)).await.unwrap();
        let config = ClusterConfig::new(&embedded.pd_addr(), Security::default());
        let cluster = Cluster::connect(rt, CancellationToken::new(), config)
            .await
            .unwrap();
        Site { embedded, cluster }
    }

    pub(crate) async fn now(&self) -> TimeStamp {
        self.cluster.pd().tso().await.unwrap()
    }

    pub(crate) async fn back_up(&self, to: &Place, options: &BackupOptions) -> BackupSummary {
        back_up(&self.cluster, to, options).await
    }

    pub(crate) async fn restore(&self, from: &Place, options: &RestoreOptions) -> RestoreSummary {
        restore_from(&self.cluster, from, options).await
    }

    /// What a restore from there works on.
    pub(crate) async fn target(&self, from: &Place) -> RestoreTarget {
        target(&self.cluster, from).await
    }

    pub(crate) async fn stop(self) {
        self.embedded.stop().await;
    }
}

pub(crate) async fn back_up(
    cluster: &Cluster,
    to: &Place,
    options: &BackupOptions,
) -> BackupSummary {
    let context = BackupContext {
        cluster: cluster.clone(),
        key_prefix: KeyPrefix::default(),
        storage: Storage::create_base(cluster.rt(), &to.backend)
            .await
            .unwrap(),
        backend: to.backend.clone(),
        progress: Arc::new(Silent),
    };
    let done = Box::pin(backup::run(&context, options)).await;
    done.unwrap_or_else(|error| panic!("backup: {error}: {error:?}"))
}

async fn target(cluster: &Cluster, from: &Place) -> RestoreTarget {
    RestoreTarget {
        cluster: cluster.clone(),
        storage: Storage::open(cluster.rt(), &from.backend).await.unwrap(),
        backend: from.backend.clone(),
        progress: Arc::new(Silent),
    }
}

pub(crate) async fn restore_from(
    cluster: &Cluster,
    from: &Place,
    options: &RestoreOptions,
) -> RestoreSummary {
    let target = target(cluster, from).await;
    let done = Box::pin(restore::restore(&target, options)).await;
    done.unwrap_or_else(|error| panic!("restore: {error}: {error:?}"))
}

/// External storage for one backup.
pub(crate) struct Place {
    pub(crate) backend: Backend,
    url: Option<String>,
    _folder: Option<TempDir>,
}

impl Place {
    /// A folder that goes with this.
    pub(crate) fn temporary() -> Place {
        let folder = tempfile::tempdir().unwrap();
        Place {
            backend: Backend::Local {
                path: folder.path().join("backup"),
            },
            url: None,
            _folder: Some(folder),
        }
    }

    /// Memory of this process: names of files without folders.
    pub(crate) fn memory(name: &str) -> Place {
        Place {
            backend: Backend::Memory {
                name: name.to_owned(),
                prefix: "backup".to_owned(),
            },
            url: None,
            _folder: None,
        }
    }

    /// Where a URL says.
    pub(crate) fn at(url: &str) -> Place {
        let backend = Backend::parse(url, &StorageOptions::default()).unwrap();
        Place {
            backend,
            url: Some(url.to_owned()),
            _folder: None,
        }
    }

    /// As a command takes it, with all settings.
    pub(crate) fn url(&self) -> String {
        let url = self.url.clone();
        url.unwrap_or_else(|| self.backend.to_string())
    }

    /// A backup that exists.
    pub(crate) fn existing(path: std::path::PathBuf) -> Place {
        let path = path.canonicalize().unwrap();
        Place {
            backend: Backend::Local { path },
            url: None,
            _folder: None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Backend::Memory { name, .. } = &self.backend {
            br_storage::forget_memory(name);
        }
    }
}

pub(crate) fn options() -> Options {
    Options::new(Rt::real())
}

pub(crate) fn filter(rules: &[&str]) -> TableFilter {
    let mut no_files = |path: &str| Err(format!("no file {path}"));
    TableFilter::parse(rules, false, &mut no_files).unwrap()
}

/// A restore of everything into a fresh cluster, or of what `rules` take into any.
pub(crate) fn restore_tables(rules: Option<&[&str]>) -> RestoreOptions {
    let mut options = RestoreOptions::new(restore::Scope::Full {
        filter: filter(rules.unwrap_or(&["*.*"])),
        is_explicit: rules.is_some(),
    });
    options.checksum = true;
    options
}

pub(crate) fn back_up_tables(rules: &[&str], crypter: Crypter) -> BackupOptions {
    let scope = backup::Scope::Full {
        filter: filter(rules),
    };
    let mut options = BackupOptions::new(scope, "e2e");
    options.crypter = crypter;
    options.checksum = true;
    options
}
