//! One call over gRPC: connect, wait no longer than the limit, say what went wrong.

use std::{future::Future, time::Duration};

use br_rt::{CancellationToken, Rt};
use br_types::{Classify, Code, Kind};
use hyper_util::rt::TokioIo;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::Security;

/// The greatest message that is sent or taken, as the official tools set it: a backup answer
/// or a page of regions of a large cluster does not fit into gRPC's 4 MiB.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// A connection attempt is given up after this; the next address or attempt comes then.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// An idle connection is probed this often, so that a peer that vanished without a word is seen.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// No answer to the probe for so long: the connection is dead. Generous, for stores that pause
/// in the middle of an ingest.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(20);

/// A call that got no answer from its server.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The address is not one.
    #[error("{address:?} is not an address of a server")]
    BadAddress {
        /// As it was given.
        address: String,
    },
    /// Nobody answers there, or TLS does not come about.
    #[error("no connection to {address}: {cause}")]
    Connect {
        /// Where.
        address: String,
        /// Why, all causes in one line.
        cause: String,
    },
    /// The call ended with a gRPC status.
    #[error("{method} on {address} failed: {} ({:?})", whole(status), status.code())]
    Status {
        /// The method.
        method: &'static str,
        /// Where.
        address: String,
        /// As the server or the transport gave it.
        status: Box<Status>,
    },
    /// The call took too long.
    #[error("{method} on {address} gave no answer within {limit:?}")]
    Timeout {
        /// The method.
        method: &'static str,
        /// Where.
        address: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl RpcError {
    /// Whether the server does not know the method: an older version.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, RpcError::Status { status, .. } if status.code() == tonic::Code::Unimplemented)
    }

    /// Whether the request may have reached the server all the same.
    pub fn may_have_run(&self) -> bool {
        match self {
            RpcError::BadAddress { .. } | RpcError::Connect { .. } => false,
            RpcError::Timeout { .. } | RpcError::Cancelled => true,
            RpcError::Status { status, .. } => !matches!(
                status.code(),
                tonic::Code::Unimplemented | tonic::Code::InvalidArgument
            ),
        }
    }
}

impl Classify for RpcError {
    fn kind(&self) -> Kind {
        match self {
            RpcError::BadAddress { .. } => Kind::Invalid,
            RpcError::Connect { .. } | RpcError::Timeout { .. } => Kind::Retry,
            RpcError::Cancelled => Kind::Cancelled,
            RpcError::Status { status, .. } => match status.code() {
                // Unknown is what connections that break in the middle of an answer give.
                tonic::Code::Cancelled
                | tonic::Code::Unavailable
                | tonic::Code::Aborted
                | tonic::Code::DeadlineExceeded
                | tonic::Code::ResourceExhausted
                | tonic::Code::Internal
                | tonic::Code::Unknown => Kind::Retry,
                tonic::Code::InvalidArgument
                | tonic::Code::FailedPrecondition
                | tonic::Code::Unimplemented
                | tonic::Code::PermissionDenied
                | tonic::Code::Unauthenticated => Kind::Invalid,
                tonic::Code::DataLoss => Kind::Data,
                _ => Kind::Internal,
            },
        }
    }

    fn code(&self) -> Code {
        match self {
            RpcError::Status { status, .. } if status.message().contains("mismatch cluster id") => {
                Code::KV_CLUSTER_ID_MISMATCH
            }
            RpcError::Connect { .. } | RpcError::Timeout { .. } => Code::FAILED_TO_CONNECT,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            RpcError::BadAddress { .. } => Some("Write it as host:port".into()),
            RpcError::Connect { cause, .. } if cause.contains("ertificate") => Some(
                "Check --ca, --cert and --key: who signed the certificates, and that none has \
                 expired"
                    .into(),
            ),
            RpcError::Connect { address, .. } | RpcError::Timeout { address, .. } => Some(format!(
                "Check that {address} is up and reachable from here"
            )),
            RpcError::Status { .. } | RpcError::Cancelled => None,
        }
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    rt: Rt,
    security: Security,
}

impl Dialer {
    pub(crate) fn new(rt: Rt, security: Security) -> Self {
        Self { rt, security }
    }

    pub(crate) fn rt(&self) -> &Rt {
        &self.rt
    }

    /// Connects to `host:port` or a URL; the scheme is that of [`Security`], whatever the URL says,
    /// as a cluster is either encrypted as a whole or not at all.
    pub(crate) async fn dial(&self, address: &str) -> Result<Channel, RpcError> {
        let uri = format!("{}://{}", self.security.scheme(), host_and_port(address));
        let bad = || RpcError::BadAddress {
            address: address.to_owned(),
        };
        let refused = |cause: &dyn std::error::Error| RpcError::Connect {
            address: host_and_port(address).to_owned(),
            cause: chain(cause),
        };
        let mut endpoint = Endpoint::from_shared(uri)
            .map_err(|_| bad())?
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_LIMIT)
            .keep_alive_while_idle(true)
            .http2_adaptive_window(true);
        if let Some(tls) = self.security.grpc() {
            endpoint = endpoint.tls_config(tls).map_err(|error| refused(&error))?;
        }
        // The library's limit covers TCP alone; a peer that accepts and then says nothing counts too.
        match self
            .rt
            .timeout(CONNECT_LIMIT * 2, Box::pin(self.connect(endpoint)))
            .await
        {
            Ok(connected) => connected.map_err(|error| refused(&error)),
            Err(elapsed) => Err(refused(&elapsed)),
        }
    }

    async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        let Some(network) = self.rt.network().cloned() else {
            return endpoint.connect().await;
        };
        let rt = self.rt.clone();
        let connector = tower::service_fn(move |uri: tonic::transport::Uri| {
            let (rt, network) = (rt.clone(), network.clone());
            async move {
                let address = uri.authority().map_or("", |authority| authority.as_str());
                network.connect(&rt, address).await.map(TokioIo::new)
            }
        });
        endpoint.connect_with_connector(connector).await
    }
}

/// An address without scheme and path.
pub(crate) fn host_and_port(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

/// An error with all its causes, in one line, no text twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The text of a status with what lies below it, such as the other side's word on a certificate.
fn whole(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None => status.message().to_owned(),
    }
}

/// Runs one call: with a limit, cancellable, with an error that names method and server.
///
/// The request is boxed: tonic's futures have some 18 KiB, too much for the stacks of those that
/// hold several.
pub(crate) fn call<T>(
    rt: &Rt,
    cancel: &CancellationToken,
    target: Target<'_>,
    request: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> impl Future<Output = Result<T, RpcError>> {
    let request = Box::pin(request);
    let Target {
        method,
        address,
        limit,
    } = target;
    async move {
        let answer = tokio::select! {
            biased;
            answer = rt.timeout(limit, request) => answer,
            () = cancel.cancelled() => return Err(RpcError::Cancelled),
        };
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(failed(method, address, status)),
            Err(_) => Err(RpcError::Timeout {
                method,
                address: address.to_owned(),
                limit,
            }),
        }
    }
}

/// Whom a call goes to, and how long it may take.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) method: &'static str,
    pub(crate) address: &'a str,
    pub(crate) limit: Duration,
}

/// The error of a call that ended with a status.
pub(crate) fn failed(method: &'static str, address: &str, status: Status) -> RpcError {
    RpcError::Status {
        method,
        address: address.to_owned(),
        status: Box::new(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_scheme_and_path() {
        assert_eq!(host_and_port("http://127.0.0.1:2379/"), "127.0.0.1:2379");
        assert_eq!(host_and_port("pd.example:2379"), "pd.example:2379");
    }

    #[test]
    fn statuses_say_what_the_caller_does() {
        let of = |status: Status| failed("Get", "a:1", status).kind();
        assert_eq!(of(Status::unavailable("not leader")), Kind::Retry);
        assert_eq!(of(Status::unimplemented("")), Kind::Invalid);
        let mismatch = failed(
            "Get",
            "a:1",
            Status::failed_precondition("mismatch cluster id, need 1 but got 2"),
        );
        assert_eq!(mismatch.code(), Code::KV_CLUSTER_ID_MISMATCH);
    }
}
