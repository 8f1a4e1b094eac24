//! Removes what a restore brought in that ended without success.

use std::time::Duration;

use br_cluster::{Cluster, KvError};
use br_proto::kvrpcpb;
use br_rt::CancellationToken;
use br_tidb::table_key;
use br_types::{KeyRange, RawKey, TableId};

use super::{key_form::KeyForm, table_ids::TableIdMap};

/// The user waits for it after Ctrl-C: what is not removed by then stays under ids that no table
/// has, where it takes room and nothing else.
const CLEANUP_WAIT_MAX: Duration = Duration::from_secs(60);

/// Deletes the keys under the ids that the restore owns. Failing is only told.
pub(super) async fn delete_owned(cluster: &Cluster, ids: &TableIdMap) {
    let owned = ids.owned();
    if owned.is_empty() {
        return;
    }
    let range = KeyRange {
        start: table_key::table_prefix(TableId(owned.start)),
        end: table_key::table_prefix(TableId(owned.end)),
    };
    // The restore's own token may be the reason for being here.
    let cluster = cluster.with_cancel(&CancellationToken::new());
    let work = delete_range(&cluster, KeyForm::Encoded, range);
    match cluster.rt().timeout(CLEANUP_WAIT_MAX, work).await {
        Ok(Ok(())) => tracing::info!(?owned, "data of the failed restore removed"),
        Ok(Err(error)) => {
            tracing::warn!(%error, ?owned, "data under ids that no table has was left behind");
        }
        Err(_) => tracing::warn!(?owned, "data under ids that no table has was left behind"),
    }
}

/// Deletes the keys of tables and partitions that are gone. Failing is only told.
pub(super) async fn delete_abandoned(cluster: &Cluster, ids: &[TableId]) {
    for id in ids {
        let range = table_key::table_range(*id);
        if let Err(error) = delete_range(cluster, KeyForm::Encoded, range).await {
            tracing::warn!(%error, %id, "data of a table that was dropped was left behind");
        }
    }
}

/// Deletes all keys of a range, region by region.
pub(super) async fn delete_range(
    cluster: &Cluster,
    form: KeyForm,
    range: KeyRange<RawKey>,
) -> Result<(), KvError> {
    let mut next = range.start.clone();
    loop {
        let key = form.encode(&next);
        let (answer, route) = cluster
            .router()
            .send(&key, |client, route| {
                let inside = form
                    .decode_range(&route.range())
                    .ok()
                    .and_then(|region| {
                        region.intersect(&KeyRange {
                            start: next.clone(),
                            end: range.end.clone(),
                        })
                    })
                    .unwrap_or_default();
                let request = kvrpcpb::DeleteRangeRequest {
                    context: Some(route.context()),
                    start_key: inside.start.into_bytes(),
                    end_key: inside.end.into_bytes(),
                    ..Default::default()
                };
                async move { client.delete_range(request).await }
            })
            .await?;
        if !answer.error.is_empty() {
            return Err(KvError::Refused {
                method: "KvDeleteRange",
                message: answer.error,
            });
        }
        let region_end = route.range().end;
        if region_end.is_empty() || !range.end.is_empty() && region_end >= form.encode(&range.end) {
            return Ok(());
        }
        next = form
            .decode_range(&KeyRange {
                start: region_end,
                end: Default::default(),
            })
            .map_err(|error| KvError::InvalidResponse {
                method: "KvDeleteRange",
                what: format!("is of a region whose boundary is not a key: {error}"),
            })?
            .start;
    }
}
