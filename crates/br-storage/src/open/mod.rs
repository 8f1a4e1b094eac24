//! Makes an object store of a backend.

mod azure;
mod gcs;
mod local;
mod memory;
mod s3;

use std::{sync::Arc, time::Duration};

use br_rt::Rt;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    local::LocalFileSystem, memory::InMemory, path::Path, prefix::PrefixStore,
};

use crate::{Backend, Failure, Faults};

pub(crate) use local::{create_base, failure as local_failure};
pub use memory::{forget_memory, memory_objects, set_memory_faults};

/// A connection is made within this time or tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Retries of one HTTP request within the store; `Storage` tries the operation again above them.
const HTTP_RETRIES_MAX: usize = 4;
/// No further retry of one HTTP request starts after this time.
const HTTP_RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between two of them.
const HTTP_PAUSE_MAX: Duration = Duration::from_secs(5);

/// An opened backend.
pub(crate) struct Opened {
    /// The objects, with names relative to the backend's prefix.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same objects by way of single attempts; see [`Clients`].
    pub(crate) once: Arc<dyn ObjectStore>,
    /// The same once more, if it is a directory.
    pub(crate) local: Option<Arc<LocalFileSystem>>,
    /// What each new object gets.
    pub(crate) attributes: Attributes,
    /// Whether listings come in the order of names.
    pub(crate) sorted: bool,
    /// What goes wrong, in tests.
    pub(crate) faults: Faults,
}

/// Opens the backend; no object is touched.
pub(crate) async fn open(rt: &Rt, backend: &Backend) -> Result<Opened, Failure> {
    match backend {
        Backend::Sealed { .. } => Err(Failure::Settings("a seal is opened by its storage".into())),
        // Reads find nothing in it; writes do not reach it.
        Backend::Noop => Ok(opened(Arc::new(InMemory::new()), "", "", true)),
        Backend::Local { path } => {
            let (rt, path) = (rt.clone(), path.clone());
            let store = Arc::new(rt.blocking(move || local::open(&path)).await?);
            Ok(Opened {
                local: Some(store.clone()),
                ..opened(store, "", "", false)
            })
        }
        Backend::Memory { name, prefix } => {
            let (store, faults) = memory::open(name);
            Ok(Opened {
                faults,
                ..opened(store, prefix, "", true)
            })
        }
        Backend::S3 {
            bucket,
            prefix,
            options,
        } => {
            let clients = s3::open(rt, bucket, options).await?;
            Ok(remote(clients, prefix, &options.storage_class))
        }
        Backend::Gcs {
            bucket,
            prefix,
            options,
        } => {
            let clients = gcs::open(rt, bucket, options)?;
            Ok(remote(clients, prefix, &options.storage_class))
        }
        Backend::Azure {
            container,
            prefix,
            options,
        } => {
            let clients = azure::open(rt, container, options)?;
            Ok(remote(clients, prefix, &options.access_tier))
        }
    }
}

/// Two clients of one place.
struct Clients<S> {
    /// Tries a request again by itself.
    patient: S,
    /// Sends each request once: an object that is to be new would, after a lost answer, be found to
    /// exist by the very attempt that is repeated.
    once: S,
}

impl<S> Clients<S> {
    fn build(
        build: impl Fn(RetryConfig) -> object_store::Result<S>,
    ) -> Result<Clients<S>, Failure> {
        let once = RetryConfig {
            max_retries: 0,
            ..retry_config()
        };
        Ok(Clients {
            patient: build(retry_config()).map_err(settings)?,
            once: build(once).map_err(settings)?,
        })
    }
}

fn remote<S: ObjectStore>(clients: Clients<S>, prefix: &str, storage_class: &str) -> Opened {
    let once = opened(Arc::new(clients.once), prefix, "", true).store;
    Opened {
        once,
        ..opened(Arc::new(clients.patient), prefix, storage_class, true)
    }
}

fn opened(store: Arc<dyn ObjectStore>, prefix: &str, storage_class: &str, sorted: bool) -> Opened {
    let mut attributes = Attributes::new();
    if !storage_class.is_empty() {
        attributes.insert(Attribute::StorageClass, storage_class.to_owned().into());
    }
    let store = match prefix {
        "" => store,
        prefix => Arc::new(PrefixStore::new(store, Path::from(prefix))),
    };
    Opened {
        once: store.clone(),
        store,
        local: None,
        attributes,
        sorted,
        faults: Faults::default(),
    }
}

/// There is no limit on the whole of a request: a large object over a slow line takes what it takes. What
/// stalls is found by [`crate::http`].
fn client_options(endpoint: &str) -> ClientOptions {
    crate::install_tls_provider();
    ClientOptions::new()
        .with_allow_http(endpoint.starts_with("http://"))
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
}

fn retry_config() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            max_backoff: HTTP_PAUSE_MAX,
            ..BackoffConfig::default()
        },
        max_retries: HTTP_RETRIES_MAX,
        retry_timeout: HTTP_RETRY_TIMEOUT,
    }
}

/// Errors of builders are settings that are missing or wrong.
fn settings(error: object_store::Error) -> Failure {
    match Failure::from(error) {
        Failure::Refused(text) | Failure::BadName(text) => Failure::Settings(text),
        other => other,
    }
}
