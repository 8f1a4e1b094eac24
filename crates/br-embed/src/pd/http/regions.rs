use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    response::Response,
};
use br_proto::metapb::{Peer, PeerRole};
use br_store::topology::RegionState;
use br_types::{EncodedKey, KeyRange, RegionId};
use serde_json::{Value, json};

use super::{Shared, bad, ok, query::Query};
use crate::pd::Pd;

/// Regions in one answer, as in PD.
const LIMIT_MAX: usize = 10_240;
/// Regions in one answer if the request names no limit.
const LIMIT_DEFAULT: usize = 16;
/// PD tells sizes in MiB.
const MIB: u64 = 1 << 20;

fn peer(peer: &Peer) -> Value {
    let role = match peer.role() {
        PeerRole::Voter => "Voter",
        PeerRole::Learner => "Learner",
        PeerRole::IncomingVoter => "IncomingVoter",
        PeerRole::DemotingVoter => "DemotingVoter",
    };
    json!({ "id": peer.id, "store_id": peer.store_id, "role_name": role })
}

/// A size as PD rounds it: something is at least 1 MiB.
fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

fn region(pd: &Pd, state: &RegionState) -> Value {
    let size = pd.sizes.of(&state.range());
    let epoch = state.region.region_epoch.unwrap_or_default();
    json!({
        "id": state.region.id,
        "start_key": hex::encode_upper(&state.region.start_key),
        "end_key": hex::encode_upper(&state.region.end_key),
        "epoch": { "conf_ver": epoch.conf_ver, "version": epoch.version },
        "peers": state.region.peers.iter().map(peer).collect::<Vec<_>>(),
        "leader": peer(&state.leader),
        "cpu_usage": 0,
        "written_bytes": 0,
        "read_bytes": 0,
        "written_keys": 0,
        "read_keys": 0,
        "approximate_size": mebibytes(size.bytes),
        "approximate_keys": size.keys,
        "approximate_kv_size": mebibytes(size.bytes),
        "approximate_columnar_kv_size": 0,
    })
}

fn list(pd: &Pd, found: &[RegionState]) -> Response {
    let regions: Vec<_> = found.iter().map(|state| region(pd, state)).collect();
    ok(&json!({ "count": regions.len(), "regions": regions }))
}

pub(super) async fn by_id(State(pd): Shared, Path(id): Path<u64>) -> Response {
    match pd.regions.get(RegionId(id)) {
        Some(state) => ok(&region(&pd, &state)),
        None => ok(&()),
    }
}

/// The key in the path is percent-encoded; with `?format=hex` in hexadecimal.
pub(super) async fn by_key(State(pd): Shared, Path(key): Path<String>, query: Query) -> Response {
    let key = match key_bytes(key.as_bytes(), &query) {
        Ok(key) => key,
        Err(message) => return bad(message),
    };
    match pd.regions.find(&EncodedKey::from(key)) {
        Some(state) => ok(&region(&pd, &state)),
        None => ok(&()),
    }
}

pub(super) async fn all(State(pd): Shared) -> Response {
    list(&pd, &pd.regions.all())
}

pub(super) async fn count(State(pd): Shared) -> Response {
    ok(&json!({ "count": pd.regions.count(), "regions": null }))
}

pub(super) async fn of_store(State(pd): Shared, Path(id): Path<u64>) -> Response {
    let mut found = pd.regions.all();
    found.retain(|state| state.region.peers.iter().any(|peer| peer.store_id == id));
    list(&pd, &found)
}

pub(super) async fn scan(State(pd): Shared, query: Query) -> Response {
    let bound = |name| key_bytes(query.get(name).unwrap_or_default(), &query);
    let (start, end) = match (bound("key"), bound("end_key")) {
        (Ok(start), Ok(end)) => (start, end),
        (Err(message), _) | (_, Err(message)) => return bad(message),
    };
    let limit = match query.text("limit") {
        None | Some("") => LIMIT_DEFAULT,
        Some(text) => match text.parse::<i64>() {
            Ok(limit) => usize::try_from(limit)
                .ok()
                .filter(|n| *n > 0)
                .unwrap_or(LIMIT_MAX),
            Err(error) => return bad(error.to_string()),
        },
    };
    list(
        &pd,
        &pd.regions
            .scan(&KeyRange::new(start, end), limit.min(LIMIT_MAX)),
    )
}

fn key_bytes(bytes: &[u8], query: &Query) -> Result<Vec<u8>, String> {
    match query.text("format") {
        Some("hex") => hex::decode(bytes).map_err(|error| error.to_string()),
        _ => Ok(bytes.to_vec()),
    }
}

/// Counts and sizes of a range; with `count`, only the number of regions.
pub(super) async fn stats(State(pd): Shared, query: Query) -> Response {
    let bound = |name| query.get(name).unwrap_or_default();
    let range: KeyRange<EncodedKey> = KeyRange::new(bound("start_key"), bound("end_key"));
    let found = pd.regions.scan(&range, usize::MAX);
    if query.get("count").is_some() {
        return ok(&json!({
            "count": found.len(),
            "empty_count": 0,
            "storage_size": 0,
            "user_storage_size": 0,
            "user_columnar_storage_size": 0,
            "storage_keys": 0,
            "store_leader_count": null,
            "store_peer_count": null,
            "store_leader_size": null,
            "store_leader_keys": null,
            "store_peer_size": null,
        }));
    }
    let mut total = Totals::default();
    for state in &found {
        total.add(&pd, state);
    }
    ok(&json!({
        "count": found.len(),
        "empty_count": total.empty,
        "storage_size": total.size,
        "user_storage_size": total.size,
        "user_columnar_storage_size": 0,
        "storage_keys": total.keys,
        "store_leader_count": total.leader_count,
        "store_peer_count": total.peer_count,
        "store_leader_size": total.leader_size,
        "store_leader_keys": total.leader_keys,
        "store_peer_size": total.peer_size,
        "store_peer_keys": total.peer_keys,
    }))
}

type ByStore = BTreeMap<u64, u64>;

#[derive(Default)]
struct Totals {
    empty: u64,
    size: u64,
    keys: u64,
    leader_count: ByStore,
    peer_count: ByStore,
    leader_size: ByStore,
    leader_keys: ByStore,
    peer_size: ByStore,
    peer_keys: ByStore,
}

impl Totals {
    fn add(&mut self, pd: &Pd, state: &RegionState) {
        let size = pd.sizes.of(&state.range());
        let (mib, keys) = (mebibytes(size.bytes), size.keys);
        self.empty += u64::from(mib <= 1);
        self.size += mib;
        self.keys += keys;
        let leader = state.leader.store_id;
        *self.leader_count.entry(leader).or_default() += 1;
        *self.leader_size.entry(leader).or_default() += mib;
        *self.leader_keys.entry(leader).or_default() += keys;
        for peer in &state.region.peers {
            *self.peer_count.entry(peer.store_id).or_default() += 1;
            *self.peer_size.entry(peer.store_id).or_default() += mib;
            *self.peer_keys.entry(peer.store_id).or_default() += keys;
        }
    }
}
