use std::time::Duration;

use br_rt::{CancellationToken, Rt};
use br_types::{Classify, Code, Kind};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use super::simulated;
use crate::{Security, rpc::chain, security::SecurityError};

/// One request; statistics over all regions of a large cluster take seconds.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// No answer of these services is larger; what is, is not one.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How much of an error page goes into an error.
const EXCERPT_CHARS: usize = 300;

/// A call over HTTP that did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificates cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// No connection, or it broke.
    #[error("{method} {url} failed: {cause}")]
    Unreachable {
        /// The HTTP method.
        method: Method,
        /// Where.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server refused.
    #[error("{method} {url} answered {status}: {body}")]
    Status {
        /// The HTTP method.
        method: Method,
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// The beginning of what the server says to it.
        body: String,
    },
    /// The answer is not what it should be.
    #[error("{method} {url} answered something else than expected: {cause}")]
    Unexpected {
        /// The HTTP method.
        method: Method,
        /// Where.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Classify for HttpError {
    fn kind(&self) -> Kind {
        match self {
            HttpError::Security(error) => error.kind(),
            HttpError::Unreachable { .. } => Kind::Retry,
            HttpError::Status { status, .. } => match *status {
                StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS => Kind::Retry,
                _ => Kind::Invalid,
            },
            HttpError::Unexpected { .. } => Kind::Internal,
            HttpError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            HttpError::Status { .. } => Code::PD_UPDATE_FAILED,
            HttpError::Unexpected { .. } => Code::PD_INVALID_RESPONSE,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            HttpError::Security(error) => error.next_step(),
            HttpError::Unreachable { url, .. } => {
                Some(format!("Check that {url} is reachable from here"))
            }
            _ => None,
        }
    }
}

impl HttpError {
    /// The status that the server refused with.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            HttpError::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// One request at a time to one address. Knows TLS, limits and errors, and no protocol.
#[derive(Clone)]
pub(crate) struct HttpClient {
    rt: Rt,
    scheme: &'static str,
    client: reqwest::Client,
}

/// A request without its address.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// With the slash.
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(&'a str, String)],
    pub(crate) body: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Request {
            method: Method::GET,
            path,
            query: &[],
            body: None,
        }
    }

    pub(crate) fn with_json(method: Method, path: &'a str, body: &impl Serialize) -> Self {
        // Serializing plain data to memory cannot fail.
        Request {
            method,
            path,
            query: &[],
            body: serde_json::to_vec(body).ok(),
        }
    }

    pub(crate) fn query(mut self, query: &'a [(&'a str, String)]) -> Self {
        self.query = query;
        self
    }
}

impl HttpClient {
    pub(crate) fn new(rt: Rt, security: &Security) -> Result<Self, HttpError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(security.rustls()?)
            // A cluster is inside; a proxy for the outside world does not lead to it.
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| SecurityError {
                what: "TLS setup",
                cause: chain(&error),
            })?;
        Ok(Self {
            rt,
            scheme: security.scheme(),
            client,
        })
    }

    /// Sends, and gives the body of an answer with a status of success.
    pub(crate) async fn send(
        &self,
        cancel: &CancellationToken,
        address: &str,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, HttpError> {
        let url = format!("{}://{address}{}", self.scheme, request.path);
        let unreachable = |cause: String| HttpError::Unreachable {
            method: request.method.clone(),
            url: url.clone(),
            cause,
        };
        let exchange = async {
            let (status, body) = self.exchange(&url, request).await.map_err(unreachable)?;
            if status.is_success() {
                return Ok(body);
            }
            let text = String::from_utf8_lossy(&body);
            let body = text.trim().chars().take(EXCERPT_CHARS).collect();
            Err(HttpError::Status {
                method: request.method.clone(),
                url: url.clone(),
                status,
                body,
            })
        };
        tokio::select! {
            biased;
            answer = self.rt.timeout(CALL_LIMIT, exchange) => match answer {
                Ok(answer) => answer,
                Err(elapsed) => Err(unreachable(elapsed.to_string())),
            },
            () = cancel.cancelled() => Err(HttpError::Cancelled),
        }
    }

    /// Sends, and reads the whole answer.
    async fn exchange(
        &self,
        url: &str,
        request: &Request<'_>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let mut builder = self
            .client
            .request(request.method.clone(), url)
            .header("X-Caller-ID", "br")
            .query(request.query);
        if let Some(body) = &request.body {
            builder = builder
                .header("Content-Type", "application/json")
                .body(body.clone());
        }
        let request = builder.build().map_err(|error| chain(&error))?;
        if let Some(network) = self.rt.network() {
            return simulated::exchange(&self.rt, network, request).await;
        }
        let sent = self.client.execute(request).await;
        let response = sent.map_err(|error| chain(&error))?;
        Ok((response.status(), read_body(response).await?))
    }

    /// Sends, and parses the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        cancel: &CancellationToken,
        address: &str,
        request: &Request<'_>,
    ) -> Result<T, HttpError> {
        let body = self.send(cancel, address, request).await?;
        serde_json::from_slice(&body).map_err(|error| HttpError::Unexpected {
            method: request.method.clone(),
            url: format!("{}://{address}{}", self.scheme, request.path),
            cause: error.to_string(),
        })
    }
}

/// Reads a body, no more than [`ANSWER_BYTES_MAX`].
async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!(
                "the answer is longer than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
