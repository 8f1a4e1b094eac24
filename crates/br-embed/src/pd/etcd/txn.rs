use std::{cmp::Ordering, collections::BTreeSet};

use br_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp,
        ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::{Event, KeyValue},
};

use super::{Etcd, EtcdError, KeySpan, State};
use crate::pd::meta_kv::MetaBatch;

/// Operations in each branch of a transaction, and comparisons; etcd's default is the same.
pub(super) const OPERATIONS_MAX: usize = 128;
/// Transactions within transactions.
const DEPTH_MAX: usize = 8;

impl Etcd {
    /// Sets a key. Gives the response without header, and the revision.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub fn put(&self, request: PutRequest) -> Result<(PutResponse, i64), EtcdError> {
        let mut state = self.lock();
        check_put(&request)?;
        let mut events = Vec::new();
        let response = state.put_request(request, &mut events)?;
        self.commit(&mut state, events, MetaBatch::default())?;
        Ok((response, state.revision))
    }

    /// Removes keys. Gives the response without header, and the revision.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub fn delete_range(
        &self,
        request: &DeleteRangeRequest,
    ) -> Result<(DeleteRangeResponse, i64), EtcdError> {
        let mut state = self.lock();
        if request.key.is_empty() {
            return Err(EtcdError::EmptyKey);
        }
        let mut events = Vec::new();
        let response = state.delete_request(request, &mut events);
        self.commit(&mut state, events, MetaBatch::default())?;
        Ok((response, state.revision))
    }

    /// Compares, then runs one of the two branches, all at one revision. Gives the response
    /// without headers, and the revision.
    ///
    /// # Errors
    /// [`EtcdError`]; nothing was changed then.
    pub fn txn(&self, request: TxnRequest) -> Result<(TxnResponse, i64), EtcdError> {
        check_txn(&request, 0)?;
        let mut state = self.lock();
        let mut events = Vec::new();
        match state.run(request, &mut events) {
            Ok(response) => {
                self.commit(&mut state, events, MetaBatch::default())?;
                Ok((response, state.revision))
            }
            Err(error) => {
                state.take_back(events);
                Err(error)
            }
        }
    }
}

impl State {
    fn run(
        &mut self,
        request: TxnRequest,
        events: &mut Vec<Event>,
    ) -> Result<TxnResponse, EtcdError> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded {
            request.success
        } else {
            request.failure
        };
        let mut responses = Vec::with_capacity(branch.len());
        for operation in branch {
            let Some(operation) = operation.request else {
                continue;
            };
            let response = match operation {
                Request::RequestRange(request) => {
                    Response::ResponseRange(self.range(&request, events)?)
                }
                Request::RequestPut(request) => {
                    Response::ResponsePut(self.put_request(request, events)?)
                }
                Request::RequestDeleteRange(request) => {
                    Response::ResponseDeleteRange(self.delete_request(&request, events))
                }
                Request::RequestTxn(request) => Response::ResponseTxn(self.run(request, events)?),
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        Ok(TxnResponse {
            header: None,
            succeeded,
            responses,
        })
    }

    fn put_request(
        &mut self,
        request: PutRequest,
        events: &mut Vec<Event>,
    ) -> Result<PutResponse, EtcdError> {
        let previous = self.keys.get(&request.key);
        if previous.is_none() && (request.ignore_value || request.ignore_lease) {
            return Err(EtcdError::KeyNotFound);
        }
        let kept = previous.cloned().unwrap_or_default();
        let value = if request.ignore_value {
            kept.value
        } else {
            request.value
        };
        let lease = if request.ignore_lease {
            kept.lease
        } else {
            request.lease
        };
        if lease != 0 && !self.leases.contains_key(&lease) {
            return Err(EtcdError::LeaseNotFound);
        }
        let event = self.put(request.key, value, lease);
        let prev_kv = if request.prev_kv {
            event.prev_kv.clone()
        } else {
            None
        };
        events.push(event);
        Ok(PutResponse {
            header: None,
            prev_kv,
        })
    }

    fn delete_request(
        &mut self,
        request: &DeleteRangeRequest,
        events: &mut Vec<Event>,
    ) -> DeleteRangeResponse {
        let deleted = self.delete(&KeySpan::new(&request.key, &request.range_end));
        let prev_kvs = if request.prev_kv {
            deleted
                .iter()
                .filter_map(|event| event.prev_kv.clone())
                .collect()
        } else {
            Vec::new()
        };
        let count = i64::try_from(deleted.len()).unwrap_or(i64::MAX);
        events.extend(deleted);
        DeleteRangeResponse {
            header: None,
            deleted: count,
            prev_kvs,
        }
    }

    /// A key that is not there compares as one with revisions, version and lease 0; its value
    /// compares with nothing.
    fn holds(&self, compare: &Compare) -> bool {
        let span = KeySpan::new(&compare.key, &compare.range_end);
        let mut pairs = self.pairs(&span).peekable();
        if pairs.peek().is_none() {
            return compare.target() != CompareTarget::Value
                && pair_holds(compare, &KeyValue::default());
        }
        pairs.all(|kv| pair_holds(compare, kv))
    }
}

fn pair_holds(compare: &Compare, kv: &KeyValue) -> bool {
    let number = |found: i64, get: &dyn Fn(&TargetUnion) -> Option<i64>| {
        found.cmp(&compare.target_union.as_ref().and_then(get).unwrap_or(0))
    };
    let ordering = match compare.target() {
        CompareTarget::Version => number(kv.version, &|target| match target {
            TargetUnion::Version(version) => Some(*version),
            _ => None,
        }),
        CompareTarget::Create => number(kv.create_revision, &|target| match target {
            TargetUnion::CreateRevision(revision) => Some(*revision),
            _ => None,
        }),
        CompareTarget::Mod => number(kv.mod_revision, &|target| match target {
            TargetUnion::ModRevision(revision) => Some(*revision),
            _ => None,
        }),
        CompareTarget::Lease => number(kv.lease, &|target| match target {
            TargetUnion::Lease(lease) => Some(*lease),
            _ => None,
        }),
        CompareTarget::Value => match &compare.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.as_slice().cmp(&[]),
        },
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}

fn check_put(request: &PutRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::Provided("value"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::Provided("lease"));
    }
    Ok(())
}

fn check_txn(request: &TxnRequest, depth: usize) -> Result<(), EtcdError> {
    let longest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if longest > OPERATIONS_MAX || depth > DEPTH_MAX {
        return Err(EtcdError::TooManyOperations);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    for branch in [&request.success, &request.failure] {
        let mut puts = BTreeSet::new();
        let mut deletes = Vec::new();
        check_branch(branch, depth, &mut puts, &mut deletes)?;
        if puts
            .iter()
            .any(|key| deletes.iter().any(|span: &KeySpan| span.contains(key)))
        {
            return Err(EtcdError::DuplicateKey);
        }
    }
    Ok(())
}

fn check_branch<'a>(
    branch: &'a [RequestOp],
    depth: usize,
    puts: &mut BTreeSet<&'a [u8]>,
    deletes: &mut Vec<KeySpan>,
) -> Result<(), EtcdError> {
    for operation in branch {
        match &operation.request {
            Some(Request::RequestRange(request)) if request.key.is_empty() => {
                return Err(EtcdError::EmptyKey);
            }
            Some(Request::RequestPut(request)) => {
                check_put(request)?;
                if !puts.insert(&request.key) {
                    return Err(EtcdError::DuplicateKey);
                }
            }
            Some(Request::RequestDeleteRange(request)) => {
                if request.key.is_empty() {
                    return Err(EtcdError::EmptyKey);
                }
                deletes.push(KeySpan::new(&request.key, &request.range_end));
            }
            Some(Request::RequestTxn(request)) => {
                check_txn(request, depth + 1)?;
                // Only one of its branches runs, but neither may touch what this branch sets.
                for inner in [&request.success, &request.failure] {
                    let mut inner_puts = BTreeSet::new();
                    check_branch(inner, depth + 1, &mut inner_puts, deletes)?;
                    if inner_puts.iter().any(|key| puts.contains(key)) {
                        return Err(EtcdError::DuplicateKey);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}
