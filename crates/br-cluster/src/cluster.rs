use br_codec::api_version::ApiVersion;
use br_rt::{CancellationToken, Rt};
use br_types::{ClusterId, TimeStamp};

use crate::{
    Etcd, HttpError, KeyPrefix, LockResolver, PdClient, PdError, PdHttp, RawClient, RawLayout,
    RegionCache, Router, Security, SecurityError, Snapshot, StorePool, StoreStatus, TidbStatus,
    Transaction, http::HttpClient, rpc::Dialer,
};

/// Where a cluster is and how to talk to it.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// PD's addresses, `host:port` or URLs; one that works is enough.
    pub pd: Vec<String>,
    /// TLS.
    pub security: Security,
    /// What stands before every transactional key: nothing, or a keyspace of API v2.
    pub key_prefix: KeyPrefix,
}

impl ClusterConfig {
    /// From a list such as `--pd` takes it, separated by commas.
    pub fn new(pd_addresses: &str, security: Security) -> ClusterConfig {
        let pd = pd_addresses
            .split(',')
            .map(|address| address.trim().to_owned())
            .filter(|address| !address.is_empty())
            .collect();
        ClusterConfig {
            pd,
            security,
            key_prefix: KeyPrefix::default(),
        }
    }
}

/// A cluster: PD and its stores. Cheap to clone; clones share connections and what they learned of
/// regions.
#[derive(Clone)]
pub struct Cluster {
    pd: PdClient,
    http: PdHttp,
    status_http: HttpClient,
    etcd: Etcd,
    router: Router,
    resolver: LockResolver,
    key_prefix: KeyPrefix,
}

impl Cluster {
    /// Connects to PD. Stores are connected when they are first needed. All calls end when `cancel`
    /// is set.
    ///
    /// # Errors
    /// An address is none, a certificate cannot be used, or no leader of PD is found within ten
    /// seconds.
    pub async fn connect(
        rt: Rt,
        cancel: CancellationToken,
        config: ClusterConfig,
    ) -> Result<Cluster, PdError> {
        let ClusterConfig {
            pd: endpoints,
            security,
            key_prefix,
        } = config;
        if !security.is_tls() && endpoints.iter().any(|url| url.starts_with("https://")) {
            let cause = "it needs the certificate of its authority".into();
            return Err(HttpError::from(SecurityError {
                what: "https address",
                cause,
            })
            .into());
        }
        let http = HttpClient::new(rt.clone(), &security)?;
        let pd = PdClient::connect(rt.clone(), cancel.clone(), endpoints, security.clone()).await?;
        let members = pd.members().clone();
        let stores = StorePool::new(pd.clone(), Dialer::new(rt.clone(), security));
        let router = Router::new(pd.clone(), stores, RegionCache::default());
        Ok(Cluster {
            http: PdHttp::new(rt.clone(), http.clone(), members.clone(), cancel.clone()),
            status_http: http,
            etcd: Etcd::new(rt, members, cancel),
            resolver: LockResolver::new(router.clone(), key_prefix),
            router,
            pd,
            key_prefix,
        })
    }

    /// The same cluster under another token: for undo after Ctrl-C, and for parts of an operation
    /// that end before the whole.
    #[must_use]
    pub fn with_cancel(&self, cancel: &CancellationToken) -> Cluster {
        let router = self.router.with_cancel(cancel);
        Cluster {
            pd: self.pd.with_cancel(cancel.clone()),
            http: self.http.with_cancel(cancel.clone()),
            status_http: self.status_http.clone(),
            etcd: self.etcd.with_cancel(cancel.clone()),
            resolver: self.resolver.with_router(router.clone()),
            router,
            key_prefix: self.key_prefix,
        }
    }

    /// The cluster's id.
    pub fn id(&self) -> ClusterId {
        self.pd.cluster_id()
    }

    /// Time, randomness, tasks.
    pub fn rt(&self) -> &Rt {
        self.pd.rt()
    }

    /// The token of this client.
    pub fn cancel(&self) -> &CancellationToken {
        self.pd.cancel()
    }

    /// PD over gRPC.
    pub fn pd(&self) -> &PdClient {
        &self.pd
    }

    /// PD over HTTP.
    pub fn http(&self) -> &PdHttp {
        &self.http
    }

    /// etcd on PD's port.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The status ports of stores.
    pub fn store_status(&self) -> StoreStatus {
        StoreStatus::new(self.status_http.clone(), self.cancel().clone())
    }

    /// The TiDB servers and their status ports.
    pub fn tidb_status(&self) -> TidbStatus {
        let etcd = self.etcd.clone();
        TidbStatus::new(self.status_http.clone(), etcd, self.cancel().clone())
    }

    /// Connections to stores.
    pub fn stores(&self) -> &StorePool {
        self.router.stores()
    }

    /// Requests to the leaders of regions.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What resolves the locks of ended transactions.
    pub fn lock_resolver(&self) -> &LockResolver {
        &self.resolver
    }

    /// Reads of transactional data at a timestamp.
    pub fn snapshot(&self, ts: TimeStamp) -> Snapshot {
        Snapshot::new(
            self.router.clone(),
            self.resolver.clone(),
            self.key_prefix,
            ts,
        )
    }

    /// A transaction that begins now.
    ///
    /// # Errors
    /// PD gives no timestamp.
    pub async fn begin(&self) -> Result<Transaction, PdError> {
        let start = self.pd.tso().await?;
        Ok(Transaction::new(self.snapshot(start)))
    }

    /// Raw key-value data of stores with that API version, in the default keyspace.
    pub fn raw(&self, version: ApiVersion) -> RawClient {
        RawClient::new(self.router.clone(), RawLayout::new(version))
    }
}
