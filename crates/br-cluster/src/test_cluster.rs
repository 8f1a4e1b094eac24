//! A cluster for tests: PD members and stores behind real gRPC on loopback, over one shared state.
//! Small and slow on purpose; it knows as much of regions and locks as the tests need.

mod fake_pd;
mod fake_store;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use br_codec::key;
use br_proto::{pdpb::pd_server::PdServer, tikvpb::tikv_server::TikvServer};
use br_rt::{CancellationToken, Rt, Task};
use br_types::RawKey;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

pub(crate) use self::state::{FakeLock, State};
use crate::{Cluster, ClusterConfig, Security};

/// The cluster. Its servers end with it.
pub(crate) struct TestCluster {
    state: Arc<Mutex<State>>,
    _servers: Vec<Task<()>>,
    pub(crate) rt: Rt,
}

impl TestCluster {
    /// Two members of PD, two stores, one region that store 1 leads.
    pub(crate) async fn start() -> TestCluster {
        let rt = Rt::real();
        let state = Arc::new(Mutex::new(State::new()));
        let mut servers = Vec::new();
        for member in 0..2 {
            let (listener, address) = listen().await;
            locked(&state).members.push(address);
            let service = PdServer::new(fake_pd::FakePd {
                member,
                state: state.clone(),
            });
            servers.push(rt.spawn(async move {
                let incoming = TcpListenerStream::new(listener);
                let _ = Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming)
                    .await;
            }));
        }
        for store in 1..=2 {
            let (listener, address) = listen().await;
            locked(&state).stores.push((store, address));
            let service = TikvServer::new(fake_store::FakeStore {
                store,
                state: state.clone(),
            });
            servers.push(rt.spawn(async move {
                let incoming = TcpListenerStream::new(listener);
                let _ = Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming)
                    .await;
            }));
        }
        TestCluster {
            state,
            _servers: servers,
            rt,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(crate) async fn connect(&self) -> Cluster {
        let pd = self.state().members.join(",");
        let config = ClusterConfig::new(&pd, Security::default());
        Cluster::connect(self.rt.clone(), CancellationToken::new(), config)
            .await
            .expect("the fake PD answers")
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn raw(text: &str) -> RawKey {
    RawKey::from(text.as_bytes())
}

pub(crate) fn encoded(text: &str) -> Vec<u8> {
    key::encode(text.as_bytes()).into_bytes()
}
