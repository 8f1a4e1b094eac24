//! A client of the protocols as they are on the wire, without anything around.

use std::{collections::BTreeMap, path::Path};

use br_codec::{ApiVersion, key};
use br_embed::{Cluster, Options};
use br_proto::{
    errorpb,
    kvrpcpb::{self, Context},
    pdpb::{self, pd_client::PdClient},
    tikvpb::tikv_client::TikvClient,
};
use br_rt::Rt;
use tonic::transport::Channel;

pub(crate) fn options(folder: Option<&Path>, api_version: ApiVersion) -> Options {
    Options {
        data_dir: folder.map(Path::to_owned),
        api_version,
        ..Options::new(Rt::real())
    }
}

/// A client that asks PD for the leader of each key, as all clients do.
pub(crate) struct Client {
    pd: PdClient<Channel>,
    pub(crate) cluster_id: u64,
    stores: BTreeMap<u64, TikvClient<Channel>>,
}

impl Client {
    pub(crate) async fn connect(cluster: &Cluster) -> Client {
        let url = format!("http://{}", cluster.pd_addr());
        let mut pd = PdClient::connect(url.clone()).await.unwrap();
        let members = pd
            .get_members(pdpb::GetMembersRequest::default())
            .await
            .unwrap();
        let members = members.into_inner();
        assert_eq!(members.leader.unwrap().client_urls, [url]);
        let cluster_id = members.header.unwrap().cluster_id;
        Client {
            pd,
            cluster_id,
            stores: BTreeMap::new(),
        }
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader {
            cluster_id: self.cluster_id,
            ..Default::default()
        })
    }

    pub(crate) async fn tso(&mut self) -> u64 {
        let request = pdpb::TsoRequest {
            header: self.header(),
            count: 1,
            ..Default::default()
        };
        let answers = self.pd.tso(futures::stream::iter([request])).await.unwrap();
        let ts = answers
            .into_inner()
            .message()
            .await
            .unwrap()
            .unwrap()
            .timestamp
            .unwrap();
        u64::try_from((ts.physical << 18) + ts.logical).unwrap()
    }

    /// The leader of a key's region, and the context for requests to it.
    pub(crate) async fn route(&mut self, region_key: Vec<u8>) -> (TikvClient<Channel>, Context) {
        let request = pdpb::GetRegionRequest {
            header: self.header(),
            region_key,
            ..Default::default()
        };
        let found = self.pd.get_region(request).await.unwrap().into_inner();
        let (region, leader) = (found.region.unwrap(), found.leader.unwrap());
        let context = Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            ..Default::default()
        };
        if !self.stores.contains_key(&leader.store_id) {
            let request = pdpb::GetStoreRequest {
                header: self.header(),
                store_id: leader.store_id,
            };
            let store = self
                .pd
                .get_store(request)
                .await
                .unwrap()
                .into_inner()
                .store
                .unwrap();
            let url = format!("http://{}", store.address);
            let client = TikvClient::connect(url).await.unwrap();
            self.stores.insert(leader.store_id, client);
        }
        (self.stores[&leader.store_id].clone(), context)
    }

    pub(crate) async fn raw_put(&mut self, key: &str, value: &str) {
        let (mut store, context) = self.route(key.into()).await;
        let request = kvrpcpb::RawPutRequest {
            context: Some(context),
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        let answer = store.raw_put(request).await.unwrap().into_inner();
        assert_eq!((answer.region_error, answer.error), (None, String::new()));
    }

    pub(crate) async fn raw_get(&mut self, key: &str) -> String {
        let (mut store, context) = self.route(key.into()).await;
        let request = kvrpcpb::RawGetRequest {
            context: Some(context),
            key: key.into(),
            ..Default::default()
        };
        let answer = store.raw_get(request).await.unwrap().into_inner();
        assert_eq!(answer.region_error, None);
        String::from_utf8(answer.value).unwrap()
    }

    /// One transaction of one key: prewrite and commit, each routed anew, again when the region
    /// was split in between.
    pub(crate) async fn txn_put(&mut self, name: &str, value: &str) {
        let encoded = key::encode(name.as_bytes()).into_bytes();
        let start_version = self.tso().await;
        let mutation = kvrpcpb::Mutation {
            op: kvrpcpb::Op::Put.into(),
            key: name.into(),
            value: value.into(),
            ..Default::default()
        };
        let mut request = kvrpcpb::PrewriteRequest {
            mutations: vec![mutation],
            primary_lock: name.into(),
            start_version,
            lock_ttl: 3000,
            ..Default::default()
        };
        loop {
            let (mut store, context) = self.route(encoded.clone()).await;
            request.context = Some(context);
            let answer = store.kv_prewrite(request.clone()).await.unwrap();
            let answer = answer.into_inner();
            assert_eq!(answer.errors, []);
            if was_routed_well(answer.region_error) {
                break;
            }
        }
        let mut request = kvrpcpb::CommitRequest {
            start_version,
            keys: vec![name.into()],
            commit_version: self.tso().await,
            ..Default::default()
        };
        loop {
            let (mut store, context) = self.route(encoded.clone()).await;
            request.context = Some(context);
            let answer = store.kv_commit(request.clone()).await.unwrap();
            let answer = answer.into_inner();
            assert_eq!(answer.error, None);
            if was_routed_well(answer.region_error) {
                return;
            }
        }
    }

    pub(crate) async fn txn_get(&mut self, name: &str) -> String {
        let encoded = key::encode(name.as_bytes()).into_bytes();
        let mut request = kvrpcpb::GetRequest {
            key: name.into(),
            version: self.tso().await,
            ..Default::default()
        };
        loop {
            let (mut store, context) = self.route(encoded.clone()).await;
            request.context = Some(context);
            let answer = store.kv_get(request.clone()).await.unwrap().into_inner();
            assert_eq!(answer.error, None);
            if was_routed_well(answer.region_error) {
                return String::from_utf8(answer.value).unwrap();
            }
        }
    }
}

/// `false`: the region changed its shape in the meantime.
fn was_routed_well(error: Option<errorpb::Error>) -> bool {
    let is_outdated = error
        .as_ref()
        .is_some_and(|error| error.epoch_not_match.is_some());
    assert!(is_outdated || error.is_none(), "{error:?}");
    !is_outdated
}
