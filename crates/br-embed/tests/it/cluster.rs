//! Data through splits, leader moves, store failures and restarts; what PD answers on its port.

use br_codec::{ApiVersion, key};
use br_embed::{Cluster, ClusterError, Options};
use br_proto::{errorpb, kvrpcpb};
use br_rt::Rt;
use br_types::{Classify, EncodedKey, Kind};

use crate::client::{Client, options};

fn names(prefix: char) -> impl Iterator<Item = String> {
    (0..40).map(move |number| format!("{prefix}{number:03}"))
}

/// Splits where the data is, and moves every leader to the next of its region's stores.
fn stir(cluster: &Cluster, bounds: &[EncodedKey]) {
    cluster.split_at(bounds).unwrap();
    for state in cluster.regions() {
        let peers = &state.region.peers;
        let at = peers.iter().position(|peer| *peer == state.leader).unwrap();
        let next = peers[(at + 1) % peers.len()].store_id;
        cluster
            .transfer_leader(state.id(), br_types::StoreId(next))
            .unwrap();
    }
}

#[tokio::test]
async fn transactions_survive_splits_leader_moves_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(options(Some(folder.path()), ApiVersion::V1))
        .await
        .unwrap();
    let mut client = Client::connect(&cluster).await;
    for (at, name) in names('t').enumerate() {
        client.txn_put(&name, &format!("first {name}")).await;
        if at % 10 == 5 {
            stir(&cluster, &[key::encode(name.as_bytes())]);
        }
    }
    let merged = cluster.regions();
    cluster.merge(merged[1].id(), merged[0].id()).unwrap();
    for name in names('t').step_by(2) {
        client.txn_put(&name, &format!("second {name}")).await;
    }
    let last_ts = client.tso().await;
    let before = cluster.regions();
    assert_eq!(before.len(), 4);
    let cluster_id = client.cluster_id;
    cluster.stop().await;

    let cluster = Cluster::start(options(Some(folder.path()), ApiVersion::V1))
        .await
        .unwrap();
    let mut client = Client::connect(&cluster).await;
    assert_eq!(client.cluster_id, cluster_id);
    assert!(client.tso().await > last_ts);
    assert_eq!(cluster.regions(), before);
    for (at, name) in names('t').enumerate() {
        let round = if at % 2 == 0 { "second" } else { "first" };
        assert_eq!(client.txn_get(&name).await, format!("{round} {name}"));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn raw_data_survives_a_store_that_fails_and_comes_back() {
    let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
    let mut client = Client::connect(&cluster).await;
    for name in names('r') {
        client.raw_put(&name, &format!("value {name}")).await;
    }
    stir(
        &cluster,
        &[
            EncodedKey::from(&b"r010"[..]),
            EncodedKey::from(&b"r030"[..]),
        ],
    );
    let (mut old_store, old_context) = client.route(b"r020".to_vec()).await;
    let failed = cluster
        .region_of(&EncodedKey::from(&b"r020"[..]))
        .unwrap()
        .leader_store();
    cluster.kill_store(failed).unwrap();
    let request = kvrpcpb::RawGetRequest {
        context: Some(old_context.clone()),
        key: b"r020".to_vec(),
        ..Default::default()
    };
    assert!(
        old_store.raw_get(request.clone()).await.is_err(),
        "the store must be gone"
    );
    for name in names('r') {
        assert_eq!(client.raw_get(&name).await, format!("value {name}"));
    }
    assert!(
        cluster
            .regions()
            .iter()
            .all(|state| state.leader_store() != failed)
    );

    cluster.revive_store(failed).await.unwrap();
    // On its old port, but no leader any more.
    let answer = old_store.raw_get(request).await.unwrap().into_inner();
    let Some(errorpb::Error {
        not_leader: Some(not_leader),
        ..
    }) = answer.region_error
    else {
        panic!("{answer:?}")
    };
    assert_ne!(not_leader.leader.unwrap().store_id, failed.0);
    cluster.stop().await;
}

#[tokio::test]
async fn grpc_and_http_share_pds_port() {
    let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
    let url = format!("http://{}", cluster.pd_addr());
    // The client wants one, although nothing here is encrypted. Another test may have set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let answer = http
            .get(format!("{url}/pd/api/v1/{path}"))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(
        get("config/cluster-version").await,
        (200, "\"8.5.0\"\n".to_owned())
    );
    let (_, stores) = get("stores").await;
    let stores: serde_json::Value = serde_json::from_str(&stores).unwrap();
    assert_eq!(stores["count"], 3);
    assert_eq!(stores["stores"][0]["store"]["state_name"], "Up");
    assert_eq!(get("no-such-thing").await.0, 404);
    let status = stores["stores"][0]["store"]["status_address"]
        .as_str()
        .unwrap();
    let config = http
        .get(format!("http://{status}/config"))
        .send()
        .await
        .unwrap();
    let config: serde_json::Value = config.json().await.unwrap();
    assert_eq!(config["coprocessor"]["region-split-keys"], 2_560_000);

    let rule = r#"{"id":"schema/a/b","index":0,"labels":[{"key":"schedule","value":"deny","ttl":"5m0s"}],
        "rule_type":"key-range","data":[{"start_key":"7480","end_key":"7481"}]}"#;
    let rules = format!("{url}/pd/api/v1/config/region-label/rule");
    let set = http.post(&rules).body(rule).send().await.unwrap();
    assert_eq!(
        set.text().await.unwrap(),
        "\"Update region label rule successfully.\"\n"
    );
    let ids = http
        .get(format!("{rules}s/ids"))
        .body(r#"["schema/a/b"]"#)
        .send()
        .await
        .unwrap();
    let ids: serde_json::Value = ids.json().await.unwrap();
    assert_eq!(ids[0]["labels"][0]["value"], "deny");
    let gone = http
        .delete(format!("{rules}/schema%2Fa%2Fb"))
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 200);

    let ttl = format!("{url}/pd/api/v1/config?ttlSecond=300");
    let body = r#"{"schedule.leader-schedule-limit":0}"#;
    let set = http.post(ttl).body(body).send().await.unwrap();
    assert_eq!(
        set.text().await.unwrap(),
        "\"The ttl config is updated.\"\n"
    );
    assert_eq!(
        cluster.pd().config.number("schedule.leader-schedule-limit"),
        0
    );
    let unknown = http
        .post(format!("{url}/pd/api/v1/schedulers/nobody"))
        .body(r#"{"delay":1}"#);
    assert_eq!(unknown.send().await.unwrap().status(), 500);
    let mut client = Client::connect(&cluster).await;
    let ahead = client.tso().await + (3_600_000 << 18);
    let body = format!(r#"{{"tso":"{ahead}","force-use-larger":true}}"#);
    let reset = http
        .post(format!("{url}/pd/api/v1/admin/reset-ts"))
        .body(body)
        .send()
        .await;
    assert_eq!(
        reset.unwrap().text().await.unwrap(),
        "\"Reset ts successfully.\"\n"
    );
    assert!(client.tso().await > ahead);
    cluster.stop().await;
}

#[tokio::test]
async fn regions_split_by_size_between_keys() {
    let mut options = options(None, ApiVersion::V1);
    options.region_split_size_bytes = 64 << 10;
    let cluster = Cluster::start(options).await.unwrap();
    let mut client = Client::connect(&cluster).await;
    let value = "v".repeat(4 << 10);
    for _ in 0..3 {
        for name in names('s') {
            client.txn_put(&name, &value).await;
        }
    }
    let rt = Rt::real();
    for _ in 0..300 {
        if cluster.regions().len() > 3 {
            break;
        }
        rt.sleep(std::time::Duration::from_millis(100)).await;
    }
    let bounds: Vec<_> = cluster
        .regions()
        .into_iter()
        .map(|state| state.region.start_key)
        .skip(1)
        .collect();
    assert!(bounds.len() >= 3, "{bounds:?}");
    for bound in bounds {
        let raw = key::decode(&bound).unwrap();
        assert!(
            names('s').any(|name| name.as_bytes() == raw.as_bytes()),
            "{raw}"
        );
    }
    for name in names('s') {
        assert_eq!(client.txn_get(&name).await, value);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn wrong_options_and_a_held_folder_are_refused() {
    let refused = async |change: fn(&mut Options)| {
        let mut options = options(None, ApiVersion::V1);
        change(&mut options);
        let error = Cluster::start(options).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    };
    refused(|options| options.stores = 0).await;
    refused(|options| options.pd_addr = ([0, 0, 0, 0], 0).into()).await;
    refused(|options| options.region_split_keys = 0).await;

    let folder = tempfile::tempdir().unwrap();
    let first = Cluster::start(options(Some(folder.path()), ApiVersion::V2))
        .await
        .unwrap();
    let second = Cluster::start(options(Some(folder.path()), ApiVersion::V2)).await;
    let error = second.err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    let mut taken = options(None, ApiVersion::V1);
    taken.pd_addr = first.pd_addr().parse().unwrap();
    let error = Cluster::start(taken).await.err().unwrap();
    assert!(matches!(error, ClusterError::Listen { .. }), "{error}");
    first.stop().await;

    let other = Cluster::start(options(Some(folder.path()), ApiVersion::V1)).await;
    assert!(matches!(other.err(), Some(ClusterError::Mismatch { .. })));
}
