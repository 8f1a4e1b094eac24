//! The commands of the key-value service: which region each needs, which keys it touches, and what
//! runs it. Unary calls and `BatchCommands` both come through here.

use std::future::Future;

use br_codec::{ApiVersion, key};
use br_proto::{errorpb, kvrpcpb};
use br_types::{EncodedKey, KeyRange};
use tonic::Status;

use crate::{
    context::StoreContext,
    region_check::{Access, Reject, check, key_not_in_region},
    storage::Storage,
};

/// The region that a command was checked against.
pub(super) type Region = KeyRange<EncodedKey>;

/// A command that works on one region.
pub(super) trait Command: Sized + Send + 'static {
    /// The answer.
    type Answer: Default + Send;

    /// Whether it reads or writes.
    const ACCESS: Access;
    /// Whether its keys are those of transactions, always memcomparable in regions.
    const IS_TRANSACTIONAL: bool;

    /// Region, epoch and peer that the client knows.
    fn context(&self) -> Option<&kvrpcpb::Context>;
    /// The raw keys that must lie in the region.
    fn keys(&self) -> Vec<&[u8]>;
    /// The range that must lie in the region as a whole, for it is not cut to it.
    fn range(&self) -> Option<(&[u8], &[u8])> {
        None
    }
    /// The key below which it begins to read, which must not lie behind the region's end.
    fn begins_below(&self) -> Option<&[u8]> {
        None
    }
    /// Whether it tells what clients suffer: how long it takes depends neither on how much it
    /// reads nor on what others have locked.
    const IS_TYPICAL: bool = false;
    /// The answer with a region error.
    fn refused(error: errorpb::Error) -> Self::Answer;
    /// Does it.
    fn run(self, store: &StoreContext, region: Region)
    -> impl Future<Output = Self::Answer> + Send;
}

/// Checks a command and runs it.
///
/// # Errors
/// A status that ends the call: store down, another cluster, a kind of data that is not served.
pub(super) async fn handle<C: Command>(
    store: &StoreContext,
    command: C,
) -> Result<C::Answer, Status> {
    if C::IS_TRANSACTIONAL && !store.storage.serves_transactions() {
        return Err(Status::invalid_argument(
            "a store of API version V1TTL has raw data only",
        ));
    }
    let is_encoded = C::IS_TRANSACTIONAL || store.api_version() == ApiVersion::V2;
    let encode = |raw: &[u8]| {
        if is_encoded {
            key::encode(raw)
        } else {
            EncodedKey::from(raw)
        }
    };
    let bound = |raw: &[u8]| {
        if raw.is_empty() {
            EncodedKey::default()
        } else {
            encode(raw)
        }
    };
    let range = command.range().map(|(start, end)| KeyRange {
        start: bound(start),
        end: bound(end),
    });
    let below = command.begins_below().map(bound);
    let keys: Vec<EncodedKey> = command.keys().into_iter().map(encode).collect();
    match check(store, command.context(), C::ACCESS, keys.into_iter()) {
        Ok(state) => match outside(&state.range(), range, below) {
            Some(key) => Ok(C::refused(key_not_in_region(&key, &state.region))),
            None if C::IS_TYPICAL => {
                let began = store.rt.now();
                let answer = command.run(store, state.range()).await;
                let took = store.rt.now().since(began);
                store.storage.courtesy().foreground(took);
                Ok(answer)
            }
            None => Ok(command.run(store, state.range()).await),
        },
        Err(Reject::Region(error)) => Ok(C::refused(*error)),
        Err(Reject::Status(status)) => Err(status),
    }
}

/// The bound that makes a command reach beyond its region, if one does.
fn outside(
    region: &Region,
    range: Option<KeyRange<EncodedKey>>,
    below: Option<EncodedKey>,
) -> Option<EncodedKey> {
    let beyond = range.filter(|range| !region.covers(range));
    let end = &region.end;
    let behind = below.filter(|key| !key.is_empty() && !end.is_empty() && key > end);
    beyond.map(|range| range.end).or(behind)
}

/// Runs a read on a blocking thread.
async fn blocking<T: Send + 'static>(
    store: &StoreContext,
    read: impl FnOnce(&Storage) -> T + Send + 'static,
) -> T {
    let storage = store.storage.clone();
    store.rt.blocking(move || read(&storage)).await
}

/// A key that bounds a range has to lie in the region only if it is given.
fn bound(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() {
        Vec::new()
    } else {
        vec![key]
    }
}

fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    keys.iter().map(Vec::as_slice).collect()
}

macro_rules! commands {
    ($($access:ident $transactional:literal $request:ident => $answer:ident
        keys |$this:ident| $keys:expr;
        $(range |$that:ident| $range:expr;)?
        $(below |$this_one:ident| $below:expr;)?
        $(typical $is_typical:literal;)?
        run |$own:ident, $store:ident, $region:ident| $run:expr;)*) => {
        $(impl Command for kvrpcpb::$request {
            type Answer = kvrpcpb::$answer;
            const ACCESS: Access = Access::$access;
            const IS_TRANSACTIONAL: bool = $transactional;
            $(const IS_TYPICAL: bool = $is_typical;)?

            fn context(&self) -> Option<&kvrpcpb::Context> {
                self.context.as_ref()
            }
            fn keys(&self) -> Vec<&[u8]> {
                let $this = self;
                $keys
            }
            $(fn range(&self) -> Option<(&[u8], &[u8])> {
                let $that = self;
                Some($range)
            })?
            $(fn begins_below(&self) -> Option<&[u8]> {
                let $this_one = self;
                $below
            })?
            fn refused(error: errorpb::Error) -> Self::Answer {
                kvrpcpb::$answer { region_error: Some(error), ..Default::default() }
            }
            async fn run(self, $store: &StoreContext, $region: Region) -> Self::Answer {
                let $own = self;
                $run
            }
        })*
    };
}

commands! {
    Read true GetRequest => GetResponse
        keys |r| vec![&r.key];
        typical true;
        run |r, store, _region| blocking(store, move |s| s.get(&r)).await;
    Read true BatchGetRequest => BatchGetResponse
        keys |r| slices(&r.keys);
        run |r, store, _region| blocking(store, move |s| s.batch_get(&r)).await;
    Read true ScanRequest => ScanResponse
        keys |r| if r.reverse { Vec::new() } else { bound(&r.start_key) };
        run |r, store, region| blocking(store, move |s| s.scan(&r, &region)).await;
    Read true ScanLockRequest => ScanLockResponse
        keys |r| bound(&r.start_key);
        run |r, store, region| blocking(store, move |s| s.scan_lock(&r, &region)).await;
    Write true PrewriteRequest => PrewriteResponse
        keys |r| r.mutations.iter().map(|mutation| mutation.key.as_slice()).collect();
        typical true;
        run |r, store, _region| store.storage.prewrite(r).await;
    Write true CommitRequest => CommitResponse
        keys |r| slices(&r.keys);
        typical true;
        run |r, store, _region| store.storage.commit(r).await;
    Write true CleanupRequest => CleanupResponse
        keys |r| vec![&r.key];
        run |r, store, _region| store.storage.cleanup(r).await;
    Write true BatchRollbackRequest => BatchRollbackResponse
        keys |r| slices(&r.keys);
        run |r, store, _region| store.storage.batch_rollback(r).await;
    Write true ResolveLockRequest => ResolveLockResponse
        keys |r| slices(&r.keys);
        run |r, store, region| store.storage.resolve_lock(r, region).await;
    Write true PessimisticLockRequest => PessimisticLockResponse
        keys |r| r.mutations.iter().map(|mutation| mutation.key.as_slice()).collect();
        run |r, store, _region| store.storage.pessimistic_lock(r).await;
    Write true PessimisticRollbackRequest => PessimisticRollbackResponse
        keys |r| slices(&r.keys);
        run |r, store, region| store.storage.pessimistic_rollback(r, region).await;
    Write true CheckTxnStatusRequest => CheckTxnStatusResponse
        keys |r| vec![&r.primary_key];
        run |r, store, _region| store.storage.check_txn_status(r).await;
    Write true CheckSecondaryLocksRequest => CheckSecondaryLocksResponse
        keys |r| slices(&r.keys);
        run |r, store, _region| store.storage.check_secondary_locks(r).await;
    Write true TxnHeartBeatRequest => TxnHeartBeatResponse
        keys |r| vec![&r.primary_lock];
        run |r, store, _region| store.storage.txn_heart_beat(r).await;
    Write true DeleteRangeRequest => DeleteRangeResponse
        keys |r| bound(&r.start_key);
        range |r| (&r.start_key, &r.end_key);
        run |r, store, region| store.storage.delete_range(r, region).await;
    Read true MvccGetByKeyRequest => MvccGetByKeyResponse
        keys |r| vec![&r.key];
        run |r, store, _region| blocking(store, move |s| s.mvcc_get_by_key(&r)).await;

    Read false RawGetRequest => RawGetResponse
        keys |r| vec![&r.key];
        typical true;
        run |r, store, _region| blocking(store, move |s| s.raw_get(&r)).await;
    Read false RawBatchGetRequest => RawBatchGetResponse
        keys |r| slices(&r.keys);
        run |r, store, _region| blocking(store, move |s| s.raw_batch_get(&r)).await;
    Read false RawScanRequest => RawScanResponse
        keys |r| if r.reverse { Vec::new() } else { bound(&r.start_key) };
        below |r| r.reverse.then_some(r.start_key.as_slice());
        run |r, store, region| blocking(store, move |s| s.raw_scan(&r, &region)).await;
    Read false RawBatchScanRequest => RawBatchScanResponse
        keys |_r| Vec::new();
        run |r, store, region| blocking(store, move |s| s.raw_batch_scan(&r, &region)).await;
    Read false RawGetKeyTtlRequest => RawGetKeyTtlResponse
        keys |r| vec![&r.key];
        run |r, store, _region| blocking(store, move |s| s.raw_get_key_ttl(&r)).await;
    Read false RawChecksumRequest => RawChecksumResponse
        keys |r| r.ranges.iter().flat_map(|range| bound(&range.start_key)).collect();
        run |r, store, region| blocking(store, move |s| s.raw_checksum(&r, &region)).await;
    Write false RawPutRequest => RawPutResponse
        keys |r| vec![&r.key];
        typical true;
        run |r, store, _region| store.storage.raw_put(r).await;
    Write false RawBatchPutRequest => RawBatchPutResponse
        keys |r| r.pairs.iter().map(|pair| pair.key.as_slice()).collect();
        run |r, store, _region| store.storage.raw_batch_put(r).await;
    Write false RawDeleteRequest => RawDeleteResponse
        keys |r| vec![&r.key];
        typical true;
        run |r, store, _region| store.storage.raw_delete(r).await;
    Write false RawBatchDeleteRequest => RawBatchDeleteResponse
        keys |r| slices(&r.keys);
        run |r, store, _region| store.storage.raw_batch_delete(r).await;
    Write false RawDeleteRangeRequest => RawDeleteRangeResponse
        keys |r| bound(&r.start_key);
        range |r| (&r.start_key, &r.end_key);
        run |r, store, region| store.storage.raw_delete_range(r, region).await;
    Write false RawCasRequest => RawCasResponse
        keys |r| vec![&r.key];
        run |r, store, _region| store.storage.raw_compare_and_swap(r).await;
}
