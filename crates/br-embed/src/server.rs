//! Serves HTTP/1.1 and HTTP/2 (gRPC) on one port, in plain text or with TLS.
//!
//! # Cancellation
//! [`Server::stop`] lets requests end for [`GRACE`]; [`Server::kill`], and dropping the server, cut
//! every connection at once, as the death of a process would.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use br_rt::{CancellationToken, Connection, Listener, Rt, Task};
use hyper::body::Incoming;
use hyper_util::{rt::TokioIo, server::conn::auto, service::TowerToHyperService};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tower::ServiceExt;

/// How long requests that are under way may take when a server stops.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// Connections at one time. Each holds buffers of some 100 KiB at most.
const CONNECTIONS_MAX: usize = 4096;
/// Requests at one time on one HTTP/2 connection: client-go keeps hundreds of streams open.
const STREAMS_MAX: u32 = 4096;
/// HTTP/2 flow-control windows: large enough that SST uploads on loopback do not wait for them.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// TLS is agreed on within this time.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// The pause after the system refused to give a connection, such as for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a port serves: gRPC requests go to one router, all others to the other.
#[derive(Clone)]
pub(crate) struct Services {
    /// Requests whose content type is `application/grpc`.
    pub(crate) grpc: Router,
    /// All others.
    pub(crate) http: Router,
}

/// A server at work.
pub(crate) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    accept: Task<()>,
}

impl Server {
    /// Begins to serve.
    ///
    /// # Errors
    /// The system's, if the listener is not usable.
    pub(crate) fn start(
        rt: &Rt,
        listener: Listener,
        services: Services,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let serving = Serving {
            rt: rt.clone(),
            services,
            tls: tls.map(TlsAcceptor::from),
            stop: stop.clone(),
        };
        let accept = rt.spawn(accept(listener, serving));
        Ok(Server {
            address,
            stop,
            accept,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets requests end for [`GRACE`], and ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.accept.await;
    }

    /// Cuts every connection.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

/// What each connection gets.
#[derive(Clone)]
struct Serving {
    rt: Rt,
    services: Services,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
}

async fn accept(mut listener: Listener, serving: Serving) {
    let Serving { rt, stop, .. } = &serving;
    // Dropping the tasks, and with them the connections, is what ends them.
    let mut connections: Vec<Task<()>> = Vec::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        connections.retain(|connection| !connection.is_finished());
        match accepted {
            Ok(connection) if connections.len() < CONNECTIONS_MAX => {
                connections.push(rt.spawn(greet(connection, serving.clone())));
            }
            Ok(_) => tracing::warn!("more than {CONNECTIONS_MAX} connections; one is refused"),
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                rt.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = futures::future::join_all(connections);
    if rt.timeout(GRACE, ended).await.is_err() {
        tracing::debug!("connections were cut that did not end in time");
    }
}

/// Agrees on TLS, if there is any, and serves.
async fn greet(connection: Connection, serving: Serving) {
    let Some(tls) = serving.tls.clone() else {
        return serve(connection, serving).await;
    };
    match serving
        .rt
        .timeout(GREETING_LIMIT, tls.accept(connection))
        .await
    {
        Ok(Ok(stream)) => serve(stream, serving).await,
        Ok(Err(error)) => tracing::warn!(%error, "a client could not agree on TLS"),
        Err(error) => tracing::warn!(%error, "a client did not agree on TLS"),
    }
}

async fn serve<S>(stream: S, serving: Serving)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving {
        rt, services, stop, ..
    } = serving;
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let router = if is_grpc(&request) {
            &services.grpc
        } else {
            &services.http
        };
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(Spawn(rt));
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended");
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Starts hyper's tasks through the seam.
#[derive(Clone)]
struct Spawn(Rt);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future).detach();
    }
}
