//! # What it does
//! Keeps one connection to each store and makes typed calls on it.
//!
//! # Ordering and invariants
//! A store is dialled at its peer address first, then at its address: both serve the same.
//!
//! # Retries
//! None: one call is one attempt. [`crate::Router`] and the callers that watch streams repeat.
//! A connection that broke is opened anew by the next call on it; after [`StorePool::forget`] the
//! addresses are asked of PD again.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_proto::{backup, coprocessor, import_sstpb, kvrpcpb, logbackup, metapb, tikvpb};
use br_rt::CancellationToken;
use br_types::StoreId;
use bytes::Bytes;
use tonic::{Streaming, transport::Channel};

use crate::{
    kv_error::KvError,
    pd::PdClient,
    rpc::{self, Dialer, MESSAGE_BYTES_MAX, RpcError, Target},
};

/// A read or write of a few keys.
const KV_LIMIT: Duration = Duration::from_secs(20);
/// Work over whole regions: resolve, split, checksum, delete range.
const REGION_WORK_LIMIT: Duration = Duration::from_secs(120);
/// The store fetches a file from external storage and rewrites it, and waits for its turn before;
/// the official tool waits 200 minutes.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Bytes of one message of an upload; stores take messages of 4 MiB at least.
const UPLOAD_CHUNK_BYTES: usize = 1 << 20;
/// How long a store may take to accept a stream.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Connections to stores. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct StorePool {
    pd: PdClient,
    dialer: Dialer,
    open: Arc<Mutex<BTreeMap<StoreId, Connection>>>,
}

#[derive(Clone)]
struct Connection {
    address: Arc<str>,
    channel: Channel,
}

impl StorePool {
    pub(crate) fn new(pd: PdClient, dialer: Dialer) -> Self {
        Self {
            pd,
            dialer,
            open: Arc::default(),
        }
    }

    pub(crate) fn with_cancel(&self, cancel: &CancellationToken) -> StorePool {
        StorePool {
            pd: self.pd.with_cancel(cancel.clone()),
            ..self.clone()
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<StoreId, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client_on(&self, id: StoreId, connection: Connection) -> StoreClient {
        StoreClient {
            id,
            connection,
            pool: self.clone(),
        }
    }

    /// A client of the store; connects, and asks PD for its address, if it is the first.
    ///
    /// # Errors
    /// There is no such store, it is out of reach, or PD is.
    pub async fn client(&self, id: StoreId) -> Result<StoreClient, KvError> {
        let open = self.open().get(&id).cloned();
        if let Some(connection) = open {
            return Ok(self.client_on(id, connection));
        }
        let store = self.pd.store(id).await?;
        self.client_of(&store).await
    }

    /// A client of a store whose addresses are known.
    ///
    /// # Errors
    /// It is out of reach.
    pub async fn client_of(&self, store: &metapb::Store) -> Result<StoreClient, KvError> {
        let id = StoreId(store.id);
        let open = self.open().get(&id).cloned();
        if let Some(connection) = open {
            return Ok(self.client_on(id, connection));
        }
        let mut failure = RpcError::BadAddress {
            address: store.address.clone(),
        };
        for address in [&store.peer_address, &store.address] {
            if address.is_empty() {
                continue;
            }
            let dialled = tokio::select! {
                biased;
                dialled = self.dialer.dial(address) => dialled,
                () = self.pd.cancel().cancelled() => return Err(KvError::Cancelled),
            };
            match dialled {
                Ok(channel) => {
                    let connection = Connection {
                        address: address.as_str().into(),
                        channel,
                    };
                    // Whoever came second takes over the first connection.
                    let connection = self.open().entry(id).or_insert(connection).clone();
                    return Ok(self.client_on(id, connection));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure.into())
    }

    /// Drops the connection to a store: the next client connects anew, at the addresses that PD
    /// has then.
    pub fn forget(&self, id: StoreId) {
        self.open().remove(&id);
    }
}

/// Calls to one store. Cheap to clone.
#[derive(Clone)]
pub struct StoreClient {
    id: StoreId,
    connection: Connection,
    pool: StorePool,
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident: $stub:ident.$call:ident($request:ty) -> $response:ty, $method:literal, $limit:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// The call got no answer. What the store answers, errors in it included, is the result.
        pub async fn $name(&self, request: $request) -> Result<$response, RpcError> {
            let mut stub = self.$stub();
            self.call($method, $limit, async move { stub.$call(request).await }).await
        }
    )*};
}

impl StoreClient {
    /// The store.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Where it is connected.
    pub fn address(&self) -> &str {
        &self.connection.address
    }

    /// The key-value service, for calls that have no method here.
    pub fn kv(&self) -> tikvpb::tikv_client::TikvClient<Channel> {
        tikvpb::tikv_client::TikvClient::new(self.connection.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The import service, for calls that have no method here.
    pub fn import(&self) -> import_sstpb::import_sst_client::ImportSstClient<Channel> {
        import_sstpb::import_sst_client::ImportSstClient::new(self.connection.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The log-backup service.
    pub fn log_backup(&self) -> logbackup::log_backup_client::LogBackupClient<Channel> {
        logbackup::log_backup_client::LogBackupClient::new(self.connection.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Makes one call with a limit, under the pool's token.
    ///
    /// # Errors
    /// The call got no answer.
    pub fn call<T>(
        &self,
        method: &'static str,
        limit: Duration,
        request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> impl Future<Output = Result<T, RpcError>> {
        let target = Target {
            method,
            address: self.address(),
            limit,
        };
        rpc::call(self.pool.pd.rt(), self.pool.pd.cancel(), target, request)
    }

    /// Starts a scan and upload. The stream gives one answer per finished range; it may pause for
    /// as long as the store needs, so watching it is the caller's business.
    ///
    /// # Errors
    /// The store did not accept the request.
    pub async fn backup(&self, request: backup::BackupRequest) -> Result<BackupStream, RpcError> {
        const METHOD: &str = "Backup";
        let mut stub = backup::backup_client::BackupClient::new(self.connection.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answers = self
            .call(
                METHOD,
                OPEN_LIMIT,
                async move { stub.backup(request).await },
            )
            .await?;
        Ok(BackupStream {
            answers,
            store: self.clone(),
        })
    }

    /// Sends one SST file, which then waits for its ingestion.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn upload(
        &self,
        meta: import_sstpb::SstMeta,
        content: Bytes,
    ) -> Result<(), RpcError> {
        const METHOD: &str = "Upload";
        use import_sstpb::upload_request::Chunk;
        let mut rest = content;
        let data = std::iter::from_fn(move || {
            let next = rest.split_to(rest.len().min(UPLOAD_CHUNK_BYTES));
            (!next.is_empty()).then(|| Chunk::Data(next.into()))
        });
        let requests = std::iter::once(Chunk::Meta(meta)).chain(data);
        let requests = requests.map(|chunk| import_sstpb::UploadRequest { chunk: Some(chunk) });
        let mut stub = self.import();
        let upload = async move { stub.upload(futures::stream::iter(requests)).await };
        self.call(METHOD, DOWNLOAD_LIMIT, upload).await.map(drop)
    }

    unary! {
        /// Reads one key.
        get: kv.kv_get(kvrpcpb::GetRequest) -> kvrpcpb::GetResponse, "KvGet", KV_LIMIT;
        /// Reads keys of one region.
        batch_get: kv.kv_batch_get(kvrpcpb::BatchGetRequest) -> kvrpcpb::BatchGetResponse, "KvBatchGet", KV_LIMIT;
        /// Reads keys in order.
        scan: kv.kv_scan(kvrpcpb::ScanRequest) -> kvrpcpb::ScanResponse, "KvScan", KV_LIMIT;
        /// Writes locks and values.
        prewrite: kv.kv_prewrite(kvrpcpb::PrewriteRequest) -> kvrpcpb::PrewriteResponse, "KvPrewrite", KV_LIMIT;
        /// Turns locks into commits.
        commit: kv.kv_commit(kvrpcpb::CommitRequest) -> kvrpcpb::CommitResponse, "KvCommit", KV_LIMIT;
        /// Takes back a prewrite.
        batch_rollback: kv.kv_batch_rollback(kvrpcpb::BatchRollbackRequest) -> kvrpcpb::BatchRollbackResponse, "KvBatchRollback", KV_LIMIT;
        /// Removes pessimistic locks.
        pessimistic_rollback: kv.kv_pessimistic_rollback(kvrpcpb::PessimisticRollbackRequest) -> kvrpcpb::PessimisticRollbackResponse, "KVPessimisticRollback", KV_LIMIT;
        /// Prolongs a transaction's life.
        txn_heart_beat: kv.kv_txn_heart_beat(kvrpcpb::TxnHeartBeatRequest) -> kvrpcpb::TxnHeartBeatResponse, "KvTxnHeartBeat", KV_LIMIT;
        /// Asks the primary key how its transaction stands.
        check_txn_status: kv.kv_check_txn_status(kvrpcpb::CheckTxnStatusRequest) -> kvrpcpb::CheckTxnStatusResponse, "KvCheckTxnStatus", KV_LIMIT;
        /// Asks the other keys of an async commit.
        check_secondary_locks: kv.kv_check_secondary_locks(kvrpcpb::CheckSecondaryLocksRequest) -> kvrpcpb::CheckSecondaryLocksResponse, "KvCheckSecondaryLocks", KV_LIMIT;
        /// Lists locks.
        scan_lock: kv.kv_scan_lock(kvrpcpb::ScanLockRequest) -> kvrpcpb::ScanLockResponse, "KvScanLock", REGION_WORK_LIMIT;
        /// Commits or rolls back the locks of transactions that have ended.
        resolve_lock: kv.kv_resolve_lock(kvrpcpb::ResolveLockRequest) -> kvrpcpb::ResolveLockResponse, "KvResolveLock", REGION_WORK_LIMIT;
        /// Deletes a range, all versions.
        delete_range: kv.kv_delete_range(kvrpcpb::DeleteRangeRequest) -> kvrpcpb::DeleteRangeResponse, "KvDeleteRange", REGION_WORK_LIMIT;
        /// Splits a region.
        split_region: kv.split_region(kvrpcpb::SplitRegionRequest) -> kvrpcpb::SplitRegionResponse, "SplitRegion", REGION_WORK_LIMIT;
        /// Computes over ranges of a region, such as a checksum.
        coprocessor: kv.coprocessor(coprocessor::Request) -> coprocessor::Response, "Coprocessor", REGION_WORK_LIMIT;
        /// Reads one raw key.
        raw_get: kv.raw_get(kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse, "RawGet", KV_LIMIT;
        /// Writes one raw key.
        raw_put: kv.raw_put(kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse, "RawPut", KV_LIMIT;
        /// Writes raw keys of one region.
        raw_batch_put: kv.raw_batch_put(kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse, "RawBatchPut", KV_LIMIT;
        /// Deletes one raw key.
        raw_delete: kv.raw_delete(kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse, "RawDelete", KV_LIMIT;
        /// Deletes raw keys of one region.
        raw_delete_range: kv.raw_delete_range(kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse, "RawDeleteRange", REGION_WORK_LIMIT;
        /// Reads raw keys in order.
        raw_scan: kv.raw_scan(kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse, "RawScan", KV_LIMIT;
        /// The checksum of raw ranges of one region.
        raw_checksum: kv.raw_checksum(kvrpcpb::RawChecksumRequest) -> kvrpcpb::RawChecksumResponse, "RawChecksum", REGION_WORK_LIMIT;
        /// Switches between normal and import mode.
        switch_mode: import.switch_mode(import_sstpb::SwitchModeRequest) -> import_sstpb::SwitchModeResponse, "SwitchMode", KV_LIMIT;
        /// Limits the rate of downloads.
        set_download_speed_limit: import.set_download_speed_limit(import_sstpb::SetDownloadSpeedLimitRequest) -> import_sstpb::SetDownloadSpeedLimitResponse, "SetDownloadSpeedLimit", KV_LIMIT;
        /// Fetches a file from external storage and rewrites it for a region.
        download: import.download(import_sstpb::DownloadRequest) -> import_sstpb::DownloadResponse, "Download", DOWNLOAD_LIMIT;
        /// Fetches several files into one for a region.
        batch_download: import.batch_download(import_sstpb::DownloadRequest) -> import_sstpb::DownloadResponse, "BatchDownload", DOWNLOAD_LIMIT;
        /// Puts downloaded files into a region, all or none.
        multi_ingest: import.multi_ingest(import_sstpb::MultiIngestRequest) -> import_sstpb::IngestResponse, "MultiIngest", DOWNLOAD_LIMIT;
        /// Writes the events of log files into a region.
        apply: import.apply(import_sstpb::ApplyRequest) -> import_sstpb::ApplyResponse, "Apply", DOWNLOAD_LIMIT;
        /// Removes files that the store keeps of log files.
        clear_files: import.clear_files(import_sstpb::ClearRequest) -> import_sstpb::ClearResponse, "ClearFiles", REGION_WORK_LIMIT;
        /// Lets the store refuse imports for a while.
        suspend_import: import.suspend_import_rpc(import_sstpb::SuspendImportRpcRequest) -> import_sstpb::SuspendImportRpcResponse, "SuspendImportRPC", KV_LIMIT;
        /// Keeps a range apart from others in compactions.
        add_force_partition_range: import.add_force_partition_range(import_sstpb::AddPartitionRangeRequest) -> import_sstpb::AddPartitionRangeResponse, "AddForcePartitionRange", KV_LIMIT;
        /// Takes that back.
        remove_force_partition_range: import.remove_force_partition_range(import_sstpb::RemovePartitionRangeRequest) -> import_sstpb::RemovePartitionRangeResponse, "RemoveForcePartitionRange", KV_LIMIT;
    }
}

/// The answers of a store to one backup request. Dropping it ends the scan.
pub struct BackupStream {
    answers: Streaming<backup::BackupResponse>,
    store: StoreClient,
}

impl BackupStream {
    /// The store that answers.
    pub fn store(&self) -> StoreId {
        self.store.id
    }

    /// The next answer, waited for at most `limit`; `None` when the store is done.
    ///
    /// # Errors
    /// The stream broke, nothing came within the limit, or the token was set.
    pub async fn next(
        &mut self,
        limit: Duration,
    ) -> Result<Option<backup::BackupResponse>, RpcError> {
        const METHOD: &str = "Backup";
        let address = self.store.address();
        let pd = &self.store.pool.pd;
        tokio::select! {
            biased;
            answer = pd.rt().timeout(limit, self.answers.message()) => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(status)) => Err(rpc::failed(METHOD, address, status)),
                Err(_) => Err(RpcError::Timeout {
                    method: METHOD,
                    address: address.to_owned(),
                    limit,
                }),
            },
            () = pd.cancel().cancelled() => Err(RpcError::Cancelled),
        }
    }
}
