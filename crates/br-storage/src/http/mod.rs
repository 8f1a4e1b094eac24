//! # What it does
//! Stands between the clients of S3, GCS and Azure and the network: counts requests and bytes,
//! bounds how many are under way by what the server bears and stays away when it says so, gives up on
//! answers that do not come and on bodies that stall, so that they are asked for again or resumed, and adds
//! headers that the clients cannot set.
//!
//! # Retries
//! None here: what fails is tried again by the client, reads from where they broke off.

mod body;
mod gate;
mod headers;
mod traffic;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use ::http::{HeaderMap, Method, StatusCode, header::RETRY_AFTER};
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

/// An answer begins within this time after its request was sent, or is asked for again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for what only reads, which may be asked for twice without harm.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A body is sent at this rate at least: four parts at once over a line of two megabits per second.
const SENT_BYTES_PER_S_MIN: u64 = 64 << 10;

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
        let sent_bytes = request.body().content_length();
        let limit = limit(request.method(), sent_bytes as u64);
        traffic::requested(request.method(), request.uri(), sent_bytes);
        let mut pass = gate.enter().await;
        let answer = rt.timeout(limit, self.inner.execute(request)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Timeout, Silent(limit))));
        let response = match answer {
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
            if let Some(pause) = retry_after(rt, response.headers()) {
                gate.close_for(pause);
            }
        } else {
            pass.verdict(Verdict::Fine);
        }
        let (head, body) = response.into_parts();
        let body = Watched::new(body, pass, rt.clone());
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct Silent(Duration);

/// How long an answer to such a request may take to begin.
fn limit(method: &Method, sent_bytes: u64) -> Duration {
    match *method {
        Method::GET | Method::HEAD => READ_TIMEOUT,
        _ => ANSWER_TIMEOUT + Duration::from_secs(sent_bytes / SENT_BYTES_PER_S_MIN),
    }
}

/// When a server that is busy wants to be asked again: in so many seconds, or at a date.
fn retry_after(rt: &Rt, headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let millis = u64::try_from(date.as_millisecond()).ok()?;
    Some(Duration::from_millis(millis.saturating_sub(rt.wall().0)))
}

fn is_throttle(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

#[cfg(test)]
mod tests {
    use br_rt::UnixMillis;
    use object_store::client::HttpRequestBody;

    use super::*;

    /// A server that never answers.
    #[derive(Debug)]
    struct Deaf;

    impl HttpService for Deaf {
        fn call<'a, 'b>(&'a self, _request: HttpRequest) -> Answer<'b>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_do_not_come_are_given_up() {
        let rt = Rt::simulated(1, UnixMillis(0));
        let service = Service {
            inner: HttpClient::new(Deaf),
            connector: Connector::new(&rt, ExtraHeaders::default()),
        };
        for (method, body_bytes, expected_seconds) in [
            (Method::GET, 0, 30),
            (Method::HEAD, 0, 30),
            (Method::DELETE, 0, 60),
            (Method::PUT, 8 << 20, 60 + 128),
        ] {
            let body = HttpRequestBody::from(vec![0; body_bytes]);
            let request = ::http::Request::builder().method(method).uri("http://h/");
            let begun = rt.now();
            let error = service.send(request.body(body).unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), HttpErrorKind::Timeout);
            assert_eq!(rt.now().since(begun).as_secs(), expected_seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_to_come_again() {
        // 1994-11-06 08:49:30 UTC.
        let rt = Rt::simulated(1, UnixMillis(784_111_770_000));
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&rt, &headers).map(|pause| pause.as_secs())
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(after("soon"), None);
    }
}
