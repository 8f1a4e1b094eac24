//! # What it does
//! Stands between the clients of S3, GCS and Azure and the network: counts requests and bytes,
//! bounds how many are under way by what the server bears, gives up on bodies that stall so that
//! they are resumed, and adds headers that the clients cannot set.
//!
//! # Retries
//! None here: what fails is tried again by the client, reads from where they broke off.

mod body;
mod gate;
mod headers;
mod traffic;

use std::{fmt, future::Future, pin::Pin};

use ::http::{Method, StatusCode};
use br_rt::Rt;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService, ReqwestConnector,
    },
};

pub(crate) use headers::{ExtraHeaders, Signer};
pub use traffic::{Traffic, traffic_of_process};

use body::Watched;
use gate::{Gate, Verdict};

/// Makes the HTTP clients of one storage.
#[derive(Clone)]
pub(crate) struct Connector {
    rt: Rt,
    gate: Gate,
    headers: ExtraHeaders,
}

impl Connector {
    pub(crate) fn new(rt: &Rt, headers: ExtraHeaders) -> Connector {
        Connector {
            rt: rt.clone(),
            gate: Gate::new(rt),
            headers,
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service {
            inner,
            connector: self.clone(),
        }))
    }
}

struct Service {
    inner: HttpClient,
    connector: Connector,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

/// The trait is written for a macro; this is the type that the macro makes.
type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Service {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

impl Service {
    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Connector { rt, gate, headers } = &self.connector;
        headers.add(&mut request).await?;
        let is_read = request.method() == Method::GET;
        traffic::requested(
            request.method(),
            request.uri(),
            request.body().content_length(),
        );
        let mut pass = gate.enter().await;
        let response = match self.inner.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                traffic::broken();
                let is_late = error.kind() == HttpErrorKind::Timeout;
                pass.verdict(if is_late {
                    Verdict::Slower
                } else {
                    Verdict::Unknown
                });
                return Err(error);
            }
        };
        if is_throttle(response.status()) {
            traffic::throttled();
            pass.verdict(Verdict::Slower);
            return Ok(response);
        }
        pass.verdict(Verdict::Fine);
        if !is_read {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = Watched::new(body, pass, rt.clone());
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

fn is_throttle(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}
