use std::future::Future;

use br_proto::{
    backup::{BackupRequest, BackupResponse},
    kvrpcpb::LockInfo,
};
use br_types::{Classify, StoreId, TimeStamp};
use futures::stream::BoxStream;

/// What a push needs of the cluster.
pub(crate) trait Stores: Send + Sync + 'static {
    /// Errors of the cluster.
    type Error: Classify + Send + Sync + 'static;

    /// The stores that are to be asked now: alive, no TiFlash, with the label that is wanted.
    fn live(&self) -> impl Future<Output = Result<Vec<LiveStore>, Self::Error>> + Send;

    /// Sends a request; the stream ends when the store is through with it.
    fn backup(
        &self,
        store: StoreId,
        request: BackupRequest,
    ) -> impl Future<Output = Result<Answers<Self::Error>, Self::Error>> + Send;

    /// Does what can be done about locks that stand in the way of reads at `read_ts`.
    fn resolve(
        &self,
        locks: Vec<LockInfo>,
        read_ts: TimeStamp,
    ) -> impl Future<Output = Result<Resolved, Self::Error>> + Send;
}

/// The answers to one request.
pub(crate) type Answers<E> = BoxStream<'static, Result<BackupResponse, E>>;

/// A store that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveStore {
    pub(crate) id: StoreId,
    /// When its process started, in Unix seconds: another value is another process, which knows
    /// nothing of the requests before.
    pub(crate) started_unix_s: i64,
}

/// What became of locks, by the start timestamps of their transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Cannot commit at or before the timestamp of the read any more: it may pass their locks by,
    /// if they are still there at all.
    pub(crate) passable: Vec<TimeStamp>,
    /// Have committed at or before it.
    pub(crate) committed: Vec<TimeStamp>,
    /// Still may do either; the read has to wait.
    pub(crate) alive: Vec<TimeStamp>,
}
