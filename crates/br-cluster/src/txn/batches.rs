use std::future::Future;

use br_types::RawKey;

use crate::{KvError, RegionResponse, RegionRoute, Router, RpcError, StoreClient, txn::KeyPrefix};

/// Bytes of keys and values in one request: far below a raft entry (8 MiB), large enough that
/// round trips do not count.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Requests of one operation that are under way at a time: enough to keep a few stores busy, little
/// enough that each of them stays quick for others.
pub(crate) const CONCURRENCY: usize = 8;

/// What goes to a store by its key.
pub(crate) trait Keyed {
    /// The key as in requests.
    fn key(&self) -> &RawKey;

    /// About as many bytes as it takes in a request.
    fn size_bytes(&self) -> usize {
        self.key().len()
    }
}

impl Keyed for RawKey {
    fn key(&self) -> &RawKey {
        self
    }
}

/// Cuts items, sorted by key, into runs of one region each (as far as is known) and of limited
/// size.
pub(crate) async fn group<T: Keyed>(
    router: &Router,
    items: Vec<T>,
) -> Result<Vec<Vec<T>>, KvError> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    let mut region: Option<RegionRoute> = None;
    let mut bytes = 0;
    for item in items {
        let encoded = KeyPrefix::routing(item.key());
        let in_region = region
            .as_ref()
            .is_some_and(|route| route.range().contains(&encoded));
        if !in_region {
            region = Some(router.locate(&encoded).await?);
        }
        match runs.last_mut() {
            Some(run) if in_region && bytes + item.size_bytes() <= BATCH_BYTES_MAX => {
                bytes += item.size_bytes();
                run.push(item);
            }
            _ => {
                bytes = item.size_bytes();
                runs.push(vec![item]);
            }
        }
    }
    Ok(runs)
}

/// Sends a run of items, sorted by key. Where the region turns out to be split, each part goes to
/// its own. Gives each answer with the items that it is for.
pub(crate) async fn send_run<T, A, F>(
    router: &Router,
    mut run: Vec<T>,
    send: impl Fn(StoreClient, RegionRoute, &[T]) -> F,
) -> Result<Vec<(A, Vec<T>)>, KvError>
where
    T: Keyed,
    A: RegionResponse,
    F: Future<Output = Result<A, RpcError>>,
{
    let mut answers = Vec::new();
    while let Some(first) = run.first() {
        let routing = KeyPrefix::routing(first.key());
        let (answer, route) = router
            .send(&routing, |client, route| {
                let part = run.get(..held_by(&route, &run)).unwrap_or_default();
                send(client, route, part)
            })
            .await?;
        let rest = run.split_off(held_by(&route, &run));
        answers.push((answer, std::mem::replace(&mut run, rest)));
    }
    Ok(answers)
}

/// How many of the items, from the first on, lie in the region; the first does.
fn held_by<T: Keyed>(route: &RegionRoute, items: &[T]) -> usize {
    let range = route.range();
    items
        .partition_point(|item| range.is_before_end(&KeyPrefix::routing(item.key())))
        .max(1)
        .min(items.len())
}
