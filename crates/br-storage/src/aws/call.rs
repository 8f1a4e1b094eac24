//! Single calls of Amazon's services over HTTP.

use std::time::Duration;

use ::http::{Method, Request};
use br_rt::{CancellationToken, RetryPolicy, Rt};
use object_store::{
    ClientOptions,
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector},
};

use crate::{Failure, install_tls_provider};

/// An answer of these services is small; a call takes no longer than this.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Short, as every operation on the storage waits for it.
const RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(3),
    attempts_max: 4,
    elapsed_max: Duration::from_secs(30),
};

/// A client of one service.
pub(crate) struct Caller {
    rt: Rt,
    client: HttpClient,
    endpoint: String,
}

/// Who signs, and for what.
pub(crate) struct Signature<'a> {
    pub(crate) credential: &'a AwsCredential,
    pub(crate) service: &'a str,
    pub(crate) region: &'a str,
}

impl Caller {
    /// A client of the service at this URL.
    pub(crate) fn new(rt: &Rt, endpoint: &str) -> Result<Caller, Failure> {
        install_tls_provider();
        let options = ClientOptions::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_timeout(CALL_TIMEOUT);
        Ok(Caller {
            rt: rt.clone(),
            client: ReqwestConnector::default().connect(&options)?,
            endpoint: format!("{}/", endpoint.trim_end_matches('/')),
        })
    }

    /// Posts a body until there is an answer that more attempts would not change; the text of a
    /// good one.
    pub(crate) async fn post(
        &self,
        headers: &[(&'static str, String)],
        body: String,
        signature: Option<Signature<'_>>,
    ) -> Result<String, Failure> {
        let attempt = |_| self.post_once(headers, body.clone(), signature.as_ref());
        RETRY
            .run(&self.rt, &CancellationToken::new(), attempt)
            .await
    }

    async fn post_once(
        &self,
        headers: &[(&'static str, String)],
        body: String,
        signature: Option<&Signature<'_>>,
    ) -> Result<String, Failure> {
        let mut request = Request::builder().method(Method::POST).uri(&self.endpoint);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request: HttpRequest = request
            .body(body.into())
            .map_err(|error| Failure::Settings(error.to_string()))?;
        if let Some(signature) = signature {
            AwsAuthorizer::new(signature.credential, signature.service, signature.region)
                .try_authorize(&mut request, None)?;
        }
        let unavailable = |error: &dyn std::error::Error| {
            let mut deepest = error;
            while let Some(source) = deepest.source() {
                deepest = source;
            }
            Failure::Unavailable(format!("{}: {deepest}", self.endpoint))
        };
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| unavailable(&error))?;
        let status = response.status();
        let bytes = response.into_body().bytes().await;
        let bytes = bytes.map_err(|error| unavailable(&error))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let reason = reason(&text).unwrap_or_else(|| format!("status {}", status.as_u16()));
        Err(match status.as_u16() {
            408 | 429 | 500.. => Failure::Unavailable(reason),
            _ if reason.contains("Throttl") => Failure::Unavailable(reason),
            401 | 403 => Failure::PermissionDenied(reason),
            _ => Failure::Refused(reason),
        })
    }
}

/// Code and message of an error, which services give as XML or as JSON.
pub(crate) fn reason(text: &str) -> Option<String> {
    if let Some(code) = element(text, "Code") {
        let message = element(text, "Message").unwrap_or_default();
        return Some(format!("{code}: {message}"));
    }
    let json: serde_json::Value = serde_json::from_str(text.trim()).ok()?;
    // Google's form.
    if let Some(error) = json.get("error") {
        let message = error.get("message").and_then(serde_json::Value::as_str)?;
        return Some(format!("{}: {message}", error.get("code")?));
    }
    let field = |name: &str| json.get(name).and_then(serde_json::Value::as_str);
    let code = field("__type")?;
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
    fn errors_of_both_forms() {
        let xml = "<R><Error><Code>AccessDenied</Code><Message>no</Message></Error></R>";
        assert_eq!(reason(xml).as_deref(), Some("AccessDenied: no"));
        let json = r#"{"__type":"com.amazon#NotFoundException","message":"gone"}"#;
        assert_eq!(reason(json).as_deref(), Some("NotFoundException: gone"));
        assert_eq!(reason("<html>"), None);
    }
}
