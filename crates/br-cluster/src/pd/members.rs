//! # What it does
//! Knows the members of PD and keeps a connection to their leader.
//!
//! # Ordering and invariants
//! All members belong to one cluster, the one whose id was seen first. At most one search for the
//! leader runs at a time; those who come meanwhile take its result.
//!
//! # Retries
//! None here: a search asks each known address once. Callers repeat.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_proto::pdpb;
use br_rt::CancellationToken;
use br_types::ClusterId;
use tonic::transport::Channel;

use super::PdError;
use crate::rpc::{self, Dialer, MESSAGE_BYTES_MAX, RpcError, Target, host_and_port};

/// A member that does not answer so long is passed over for the next.
const MEMBERS_LIMIT: Duration = Duration::from_secs(3);

pub(crate) type PdStub = pdpb::pd_client::PdClient<Channel>;

/// The leader, as far as is known.
#[derive(Clone)]
pub(crate) struct Leader {
    /// `host:port`.
    pub(crate) address: Arc<str>,
    pub(crate) channel: Channel,
}

impl Leader {
    pub(crate) fn stub(&self) -> PdStub {
        PdStub::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

pub(crate) struct Members {
    dialer: Dialer,
    /// As the user gave them; they stay, whatever the members say of themselves.
    configured: Vec<String>,
    state: Mutex<State>,
    searching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    cluster_id: Option<ClusterId>,
    leader: Option<Leader>,
    /// Addresses that the members gave.
    learned: BTreeSet<String>,
}

impl Members {
    /// `configured` are `host:port` or URLs; nothing is connected yet.
    pub(crate) fn new(dialer: Dialer, configured: Vec<String>) -> Self {
        let configured = configured
            .iter()
            .map(|address| host_and_port(address).to_owned())
            .collect();
        let state = Mutex::default();
        Self {
            dialer,
            configured,
            state,
            searching: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's id; 0 before the first answer.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.state().cluster_id.unwrap_or_default()
    }

    pub(crate) fn header(&self) -> pdpb::RequestHeader {
        pdpb::RequestHeader {
            cluster_id: self.cluster_id().0,
            caller_id: "br".into(),
            ..Default::default()
        }
    }

    /// The leader's address first, then all others that are known.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let state = self.state();
        let mut addresses: Vec<String> = Vec::new();
        let leader = state.leader.iter().map(|leader| leader.address.to_string());
        for address in leader
            .chain(self.configured.iter().cloned())
            .chain(state.learned.iter().cloned())
        {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The leader, searched for if none is known.
    pub(crate) async fn leader(&self, cancel: &CancellationToken) -> Result<Leader, PdError> {
        if let Some(leader) = self.known() {
            return Ok(leader);
        }
        let _one_at_a_time = self.searching.lock().await;
        match self.known() {
            Some(leader) => Ok(leader),
            None => self.search(cancel).await,
        }
    }

    fn known(&self) -> Option<Leader> {
        self.state().leader.clone()
    }

    /// The member at that address does not lead (any more): the next call searches.
    pub(crate) fn lost(&self, address: &str) {
        let mut state = self.state();
        if state
            .leader
            .as_ref()
            .is_some_and(|leader| &*leader.address == address)
        {
            state.leader = None;
        }
    }

    async fn search(&self, cancel: &CancellationToken) -> Result<Leader, PdError> {
        let addresses = self.addresses();
        let mut last = String::from("no address given");
        for address in &addresses {
            match self.ask(address, cancel).await {
                Ok(leader) => {
                    tracing::debug!(address = %leader.address, "leader of PD");
                    self.state().leader = Some(leader.clone());
                    return Ok(leader);
                }
                Err(PdError::Rpc(RpcError::Cancelled)) => return Err(PdError::Cancelled),
                Err(error @ PdError::ClusterIdMismatch { .. }) => return Err(error),
                Err(error @ PdError::Rpc(RpcError::BadAddress { .. })) => return Err(error),
                Err(error) => last = error.to_string(),
            }
        }
        Err(PdError::NoLeader {
            endpoints: addresses.join(", "),
            cause: last,
        })
    }

    /// Asks one member who leads, and connects to that one.
    async fn ask(&self, address: &str, cancel: &CancellationToken) -> Result<Leader, PdError> {
        const METHOD: &str = "GetMembers";
        let asked = Leader {
            address: address.into(),
            channel: self.dialer.dial(address).await?,
        };
        let mut stub = asked.stub();
        let request = pdpb::GetMembersRequest {
            header: Some(self.header()),
        };
        let target = Target {
            method: METHOD,
            address,
            limit: MEMBERS_LIMIT,
        };
        let answer = rpc::call(self.dialer.rt(), cancel, target, stub.get_members(request)).await?;
        self.check_cluster(answer.header.as_ref())?;
        let urls = |member: &pdpb::Member| -> Vec<String> {
            member
                .client_urls
                .iter()
                .map(|url| host_and_port(url).to_owned())
                .collect()
        };
        self.state().learned = answer.members.iter().flat_map(&urls).collect();
        let Some(leader) = answer.leader.as_ref() else {
            return Err(PdError::InvalidResponse {
                method: METHOD,
                what: "names no leader".into(),
            });
        };
        let leader_urls = urls(leader);
        // With one member there is no doubt who leads, and the address that answered works even
        // where the advertised one does not, as behind a port forwarding.
        if leader_urls.iter().any(|url| url == address) || answer.members.len() == 1 {
            return Ok(asked);
        }
        let mut failure = PdError::InvalidResponse {
            method: METHOD,
            what: "names a leader without addresses".into(),
        };
        for url in leader_urls {
            match self.dialer.dial(&url).await {
                Ok(channel) => {
                    return Ok(Leader {
                        address: url.into(),
                        channel,
                    });
                }
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    fn check_cluster(&self, header: Option<&pdpb::ResponseHeader>) -> Result<(), PdError> {
        let found = ClusterId(header.map_or(0, |header| header.cluster_id));
        if found.0 == 0 {
            return Err(PdError::InvalidResponse {
                method: "GetMembers",
                what: "carries no cluster id".into(),
            });
        }
        let mut state = self.state();
        match state.cluster_id {
            None => state.cluster_id = Some(found),
            Some(expected) if expected != found => {
                return Err(PdError::ClusterIdMismatch { expected, found });
            }
            Some(_) => {}
        }
        Ok(())
    }
}
