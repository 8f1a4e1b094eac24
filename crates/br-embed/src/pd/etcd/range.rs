use std::{cmp::Ordering, collections::BTreeMap};

use br_proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::{Event, KeyValue},
};

use super::{Etcd, EtcdError, KeySpan, State, revision_of};

impl Etcd {
    /// Reads keys; the header of the response is left out.
    ///
    /// # Errors
    /// [`EtcdError::EmptyKey`], [`EtcdError::Compacted`], [`EtcdError::FutureRevision`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, EtcdError> {
        self.lock().range(request, &[])
    }
}

impl State {
    /// As [`Etcd::range`]; `pending` is what the transaction around it has changed already.
    pub(super) fn range(
        &self,
        request: &RangeRequest,
        pending: &[Event],
    ) -> Result<RangeResponse, EtcdError> {
        if request.key.is_empty() {
            return Err(EtcdError::EmptyKey);
        }
        let current = self.revision + i64::from(!pending.is_empty());
        let revision = if request.revision <= 0 {
            current
        } else {
            request.revision
        };
        if revision > current {
            return Err(EtcdError::FutureRevision);
        }
        if revision < self.compacted {
            return Err(EtcdError::Compacted(self.compacted));
        }
        let span = KeySpan::new(&request.key, &request.range_end);
        let mut pairs: Vec<KeyValue> = if revision == current {
            self.pairs(&span).cloned().collect()
        } else {
            self.pairs_at(&span, revision, pending)
        };
        let count = i64::try_from(pairs.len()).unwrap_or(i64::MAX);
        if request.count_only {
            return Ok(RangeResponse {
                header: None,
                kvs: Vec::new(),
                more: false,
                count,
            });
        }
        pairs.retain(|kv| passes_filters(request, kv));
        sort(request, &mut pairs);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && pairs.len() > limit;
        if more {
            pairs.truncate(limit);
        }
        if request.keys_only {
            pairs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse {
            header: None,
            kvs: pairs,
            more,
            count,
        })
    }

    /// What a span held at an older revision: the present, with the newer events undone.
    fn pairs_at(&self, span: &KeySpan, revision: i64, pending: &[Event]) -> Vec<KeyValue> {
        let mut pairs: BTreeMap<&[u8], &KeyValue> =
            self.pairs(span).map(|kv| (kv.key.as_slice(), kv)).collect();
        let newer = self
            .history
            .iter()
            .rev()
            .take_while(|event| revision_of(event) > revision);
        for event in pending.iter().rev().chain(newer) {
            let Some(kv) = event.kv.as_ref().filter(|kv| span.contains(&kv.key)) else {
                continue;
            };
            match &event.prev_kv {
                Some(previous) => pairs.insert(&kv.key, previous),
                None => pairs.remove(kv.key.as_slice()),
            };
        }
        pairs.into_values().cloned().collect()
    }
}

fn passes_filters(request: &RangeRequest, kv: &KeyValue) -> bool {
    let least = |bound: i64, value: i64| bound == 0 || value >= bound;
    let most = |bound: i64, value: i64| bound == 0 || value <= bound;
    least(request.min_mod_revision, kv.mod_revision)
        && most(request.max_mod_revision, kv.mod_revision)
        && least(request.min_create_revision, kv.create_revision)
        && most(request.max_create_revision, kv.create_revision)
}

fn sort(request: &RangeRequest, pairs: &mut [KeyValue]) {
    let target = request.sort_target();
    let order = match request.sort_order() {
        // Keys ascend by themselves; another target asks for an order.
        SortOrder::None if target == SortTarget::Key => return,
        SortOrder::None => SortOrder::Ascend,
        order => order,
    };
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    match order {
        SortOrder::Descend => pairs.sort_by(|a, b| compare(b, a)),
        _ => pairs.sort_by(compare),
    }
}
