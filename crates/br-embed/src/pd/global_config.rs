//! Global config: named values that lie in the etcd store, under a path.

use br_proto::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest},
    mvccpb::event::EventType,
    pdpb,
};

use super::etcd::{Etcd, EtcdError, KeySpan, WatchSpec, WatchUpdate, Watching};

/// The path if a request names none.
const PATH_DEFAULT: &str = "/global/config";

fn path_or_default(path: &str) -> &str {
    if path.is_empty() {
        PATH_DEFAULT
    } else {
        path.trim_end_matches('/')
    }
}

/// Sets and removes items.
///
/// # Errors
/// [`EtcdError`]; items before the one that failed are done.
pub(crate) fn store(
    etcd: &Etcd,
    path: &str,
    changes: Vec<pdpb::GlobalConfigItem>,
) -> Result<(), EtcdError> {
    for item in changes {
        let key = format!("{}/{}", path_or_default(path), item.name).into_bytes();
        match item.kind() {
            pdpb::EventType::Put => {
                let value = if item.payload.is_empty() {
                    item.value.into_bytes()
                } else {
                    item.payload
                };
                etcd.put(PutRequest {
                    key,
                    value,
                    ..PutRequest::default()
                })?;
            }
            pdpb::EventType::Delete => {
                etcd.delete_range(&DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                })?;
            }
        }
    }
    Ok(())
}

/// The named items, or all under the path, and the revision.
///
/// # Errors
/// [`EtcdError`].
pub(crate) fn load(
    etcd: &Etcd,
    path: &str,
    names: &[String],
) -> Result<(Vec<pdpb::GlobalConfigItem>, i64), EtcdError> {
    let path = path_or_default(path);
    let revision = etcd.revision();
    if names.is_empty() {
        let (key, range_end) = span_of(path);
        let found = etcd.range(&RangeRequest {
            key,
            range_end,
            ..RangeRequest::default()
        })?;
        let items = found
            .kvs
            .into_iter()
            .map(|kv| item(kv.key, kv.value))
            .collect();
        return Ok((items, revision));
    }
    let mut items = Vec::with_capacity(names.len());
    for name in names {
        let key = format!("{path}/{name}").into_bytes();
        let found = etcd.range(&RangeRequest {
            key,
            ..RangeRequest::default()
        })?;
        items.push(match found.kvs.into_iter().next() {
            Some(kv) => item(name.clone().into_bytes(), kv.value),
            None => pdpb::GlobalConfigItem {
                name: name.clone(),
                error: Some(pdpb::Error {
                    r#type: pdpb::ErrorType::GlobalConfigNotFound.into(),
                    message: format!("global config {name} is not set"),
                }),
                ..pdpb::GlobalConfigItem::default()
            },
        });
    }
    Ok((items, revision))
}

/// Watches everything under a path.
///
/// # Errors
/// [`EtcdError`].
pub(crate) fn watch(etcd: &Etcd, path: &str, revision: i64) -> Result<Watching, EtcdError> {
    let (key, range_end) = span_of(path_or_default(path));
    etcd.watch(WatchSpec {
        span: KeySpan::new(&key, &range_end),
        start_revision: revision,
        prev_kv: false,
        no_put: false,
        no_delete: false,
    })
}

/// What a watch saw, as items.
pub(crate) fn changes(update: WatchUpdate) -> Vec<pdpb::GlobalConfigItem> {
    update
        .events
        .into_iter()
        .filter_map(|event| {
            let kind = match event.r#type() {
                EventType::Put => pdpb::EventType::Put,
                EventType::Delete => pdpb::EventType::Delete,
            };
            let kv = event.kv?;
            let mut item = item(kv.key, kv.value);
            item.kind = kind.into();
            Some(item)
        })
        .collect()
}

fn span_of(path: &str) -> (Vec<u8>, Vec<u8>) {
    let start = format!("{path}/").into_bytes();
    // '0' follows '/'.
    let end = format!("{path}0").into_bytes();
    (start, end)
}

fn item(name: Vec<u8>, value: Vec<u8>) -> pdpb::GlobalConfigItem {
    pdpb::GlobalConfigItem {
        name: String::from_utf8_lossy(&name).into_owned(),
        value: String::from_utf8_lossy(&value).into_owned(),
        payload: value,
        kind: pdpb::EventType::Put.into(),
        ..pdpb::GlobalConfigItem::default()
    }
}
