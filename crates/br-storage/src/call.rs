//! Single calls of small services over HTTP: tokens, roles, keys, and the metadata of machines.

use std::{net::IpAddr, time::Duration};

use ::http::{Method, Request};
use br_rt::{CancellationToken, RetryPolicy, Rt};
use futures::TryStreamExt;
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpRequest, HttpResponseBody, ReqwestConnector},
};
use serde_json::Value;
use url::Url;

use crate::{Failure, install_tls_provider};

/// A call of a service somewhere takes no longer than this.
const FAR_TIMEOUT: Duration = Duration::from_secs(15);
/// A service of this machine is connected to within this time, or is not there.
const NEAR_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// And answers within this one.
const NEAR_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer of these services is small.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Short, as every operation on the storage waits for it.
const RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(3),
    attempts_max: 4,
    elapsed_max: Duration::from_secs(30),
};

/// While it is not known whether there is such a service at all: a machine that has none is told so
/// within three seconds, and within eleven if something is there that never answers.
const LOOK: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_millis(500),
    attempts_max: 2,
    elapsed_max: Duration::from_secs(6),
};

/// Calls services.
pub(crate) struct Caller {
    rt: Rt,
    client: HttpClient,
}

/// How long it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The service is there and may be busy.
    Known,
    /// Perhaps there is none.
    Unknown,
}

/// One call.
pub(crate) struct Call {
    method: Method,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Call {
    fn new(method: Method, url: impl Into<String>) -> Call {
        Call {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn get(url: impl Into<String>) -> Call {
        Call::new(Method::GET, url)
    }

    pub(crate) fn put(url: impl Into<String>) -> Call {
        Call::new(Method::PUT, url)
    }

    pub(crate) fn post(url: impl Into<String>, body: String) -> Call {
        Call {
            body,
            ..Call::new(Method::POST, url)
        }
    }

    /// Posts the fields of a form.
    pub(crate) fn form(url: impl Into<String>, fields: &[(&str, &str)]) -> Call {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let form_type = "application/x-www-form-urlencoded; charset=utf-8";
        Call::post(url, form).header("content-type", form_type)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    /// The URL without what stands behind the question mark.
    fn place(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }

    fn request(&self) -> Result<HttpRequest, Failure> {
        let mut request = Request::builder().method(&self.method).uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let wrong = |_| Failure::Settings(format!("{:?} cannot be asked", self.place()));
        request.body(self.body.clone().into()).map_err(wrong)
    }
}

impl Caller {
    /// For services anywhere; over plain HTTP only if the URL says so.
    pub(crate) fn far(rt: &Rt, url: &str) -> Result<Caller, Failure> {
        install_tls_provider();
        let options = ClientOptions::new()
            .with_allow_http(url.starts_with("http://"))
            .with_timeout(FAR_TIMEOUT);
        Ok(Caller {
            rt: rt.clone(),
            client: ReqwestConnector::default().connect(&options)?,
        })
    }

    /// For services of this machine: at once, by no proxy, and not sent on elsewhere.
    pub(crate) fn near(rt: &Rt) -> Result<Caller, Failure> {
        install_tls_provider();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(NEAR_CONNECT_TIMEOUT)
            .timeout(NEAR_TIMEOUT)
            .build();
        let client = client.map_err(|error| Failure::Settings(error.to_string()))?;
        Ok(Caller {
            rt: rt.clone(),
            client: HttpClient::new(client),
        })
    }

    /// Calls until there is an answer that more attempts would not change; the text of a good one.
    pub(crate) async fn call(&self, call: &Call) -> Result<String, Failure> {
        self.call_for(call, Patience::Known).await
    }

    /// The same with a patience of its own.
    pub(crate) async fn call_for(
        &self,
        call: &Call,
        patience: Patience,
    ) -> Result<String, Failure> {
        self.call_signed(call, patience, |_| Ok(())).await
    }

    /// The same with each attempt signed.
    pub(crate) async fn call_signed(
        &self,
        call: &Call,
        patience: Patience,
        sign: impl Fn(&mut HttpRequest) -> Result<(), Failure>,
    ) -> Result<String, Failure> {
        let policy = match patience {
            Patience::Known => RETRY,
            Patience::Unknown => LOOK,
        };
        let attempt = |_| {
            let request = call.request().and_then(|mut request| {
                sign(&mut request)?;
                Ok(request)
            });
            async move { self.send(call, request?).await }
        };
        policy
            .run(&self.rt, &CancellationToken::new(), attempt)
            .await
    }

    async fn send(&self, call: &Call, request: HttpRequest) -> Result<String, Failure> {
        let unavailable = |error: &dyn std::error::Error| {
            let mut deepest = error;
            while let Some(source) = deepest.source() {
                deepest = source;
            }
            Failure::Unavailable(format!("{}: {deepest}", call.place()))
        };
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| unavailable(&error))?;
        let status = response.status();
        let bytes = read(response.into_body()).await;
        let bytes = bytes.map_err(|error| unavailable(&*error))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let reason = reason(&text).unwrap_or_else(|| format!("status {}", status.as_u16()));
        let reason = format!("{}: {reason}", call.place());
        Err(match status.as_u16() {
            408 | 429 | 500.. => Failure::Unavailable(reason),
            _ if reason.contains("Throttl") => Failure::Unavailable(reason),
            401 | 403 => Failure::PermissionDenied(reason),
            _ => Failure::Refused(reason),
        })
    }
}

async fn read(body: HttpResponseBody) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut body = body.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = body.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".into());
        }
    }
    Ok(bytes)
}

/// The object of JSON in an answer.
pub(crate) fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text.trim())
        .map_err(|_| Failure::Refused("the answer is not JSON".to_owned()))
}

/// A field of JSON with text in it.
pub(crate) fn text_in(json: &Value, field: &str) -> Option<String> {
    json.get(field).and_then(Value::as_str).map(str::to_owned)
}

/// A field of JSON with a number, which some services write as text.
pub(crate) fn number_in(json: &Value, field: &str) -> Option<u64> {
    let value = json.get(field)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A URL that secrets may be sent to: by TLS, or to this machine.
///
/// # Errors
/// It is none; `what` names it.
pub(crate) fn safe_url(what: &str, text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::Settings(format!("{what} {why}"));
    let url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
    let is_near = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => is_near(address.into()),
        Some(url::Host::Ipv6(address)) => is_near(address.into()),
        None => return Err(wrong("names no host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near => Ok(url),
        _ => Err(wrong(
            "begins neither with https:// nor with http:// and a host that is this machine",
        )),
    }
}

/// Loopback, and the addresses that machines and containers of AWS have for their metadata.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_loopback() || matches!(address.segments(), [0xfd00, 0xec2, ..])
        }
    }
}

/// Code and message of an error, which services give as XML or as JSON.
pub(crate) fn reason(text: &str) -> Option<String> {
    if let Some(code) = element(text, "Code") {
        let message = element(text, "Message").unwrap_or_default();
        return Some(format!("{code}: {message}"));
    }
    let json: Value = serde_json::from_str(text.trim()).ok()?;
    let field = |name: &str| json.get(name).and_then(Value::as_str);
    // Google's form.
    if let Some(error) = json.get("error").filter(|error| error.is_object()) {
        let message = error.get("message").and_then(Value::as_str)?;
        return Some(format!("{}: {message}", error.get("code")?));
    }
    // That of services of tokens.
    if let Some(code) = field("error") {
        let message = field("error_description").unwrap_or_default();
        return Some(format!("{code}: {message}"));
    }
    let code = field("__type").or_else(|| field("code"))?;
    let code = code.rsplit('#').next().unwrap_or(code);
    let message = field("message").or_else(|| field("Message"));
    Some(format!("{code}: {}", message.unwrap_or_default()))
}

/// The text of an XML element that has no others in it.
pub(crate) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_forms() {
        let xml = "<R><Error><Code>AccessDenied</Code><Message>no</Message></Error></R>";
        assert_eq!(reason(xml).as_deref(), Some("AccessDenied: no"));
        for (json, expected) in [
            (
                r#"{"__type":"com.amazon#NotFoundException","message":"gone"}"#,
                "NotFoundException: gone",
            ),
            (
                r#"{"error":"invalid_client","error_description":"no"}"#,
                "invalid_client: no",
            ),
            (r#"{"error":{"code":404,"message":"no"}}"#, "404: no"),
            (r#"{"code":"NoRole","message":"no"}"#, "NoRole: no"),
        ] {
            assert_eq!(reason(json).as_deref(), Some(expected));
        }
        assert_eq!(reason("<html>"), None);
    }

    #[test]
    fn secrets_go_by_tls_or_stay_here() {
        for good in [
            "https://h/x",
            "http://localhost:80/",
            "http://127.0.0.1/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://[::1]:8/",
        ] {
            assert!(safe_url("X", good).is_ok(), "{good}");
        }
        for bad in ["http://h/x", "http://10.0.0.1/", "ftp://127.0.0.1/", "x"] {
            let failure = safe_url("X", bad).unwrap_err();
            assert!(failure.to_string().starts_with("X "), "{failure}");
        }
    }
}
