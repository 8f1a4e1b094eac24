//! Headers of new objects that the clients have no setting for. S3 and Azure sign the headers, so a
//! request that gets one is signed anew.

use std::sync::{Arc, OnceLock};

use ::http::{HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use object_store::{
    aws::{AwsAuthorizer, AwsCredentialProvider},
    azure::{AzureAuthorizer, AzureCredential, AzureCredentialProvider},
    client::{HttpError, HttpErrorKind, HttpRequest},
};

use crate::Failure;

/// The digest of a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What requests get besides what the client puts there.
#[derive(Clone, Default)]
pub(crate) struct ExtraHeaders(Option<Arc<Inner>>);

struct Inner {
    name: HeaderName,
    value: HeaderValue,
    signer: OnceLock<Signer>,
}

/// Who signs a request once more.
pub(crate) enum Signer {
    /// S3, in this region.
    Aws(AwsCredentialProvider, String),
    /// Azure, for this account.
    Azure(AzureCredentialProvider, String),
    /// Headers are not signed.
    Nobody,
}

impl ExtraHeaders {
    /// One header for requests that make objects; nothing if the value is empty.
    ///
    /// # Errors
    /// The value is no text for a header.
    pub(crate) fn new(name: &'static str, value: &str) -> Result<ExtraHeaders, Failure> {
        if value.is_empty() {
            return Ok(ExtraHeaders::default());
        }
        let wrong = |_| Failure::Settings(format!("{name} cannot be {value:?}"));
        Ok(ExtraHeaders(Some(Arc::new(Inner {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_str(value).map_err(wrong)?,
            signer: OnceLock::new(),
        }))))
    }

    /// Tells who signs, which is known only once the client is built.
    pub(crate) fn signed_by(&self, signer: Signer) {
        if let Some(inner) = &self.0 {
            let _ = inner.signer.set(signer);
        }
    }

    /// Adds the header if the request makes an object.
    pub(super) async fn add(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        match inner.signer.get() {
            Some(Signer::Aws(credentials, region)) if makes_s3_object(request) => {
                inner.insert(request);
                sign_aws(request, credentials, region).await
            }
            Some(Signer::Azure(credentials, account)) if *request.method() == Method::PUT => {
                inner.insert(request);
                sign_azure(request, credentials, account).await
            }
            Some(Signer::Nobody) if makes_s3_object(request) => {
                inner.insert(request);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn insert(&self, request: &mut HttpRequest) {
        request
            .headers_mut()
            .insert(self.name.clone(), self.value.clone());
    }
}

/// A whole object, or the beginning of an upload in parts; not a part, and not the end.
fn makes_s3_object(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::PUT => !query.contains("partNumber="),
        Method::POST => query.contains("uploads"),
        _ => false,
    }
}

async fn sign_aws(
    request: &mut HttpRequest,
    credentials: &AwsCredentialProvider,
    region: &str,
) -> Result<(), HttpError> {
    let digest = request.headers().get("x-amz-content-sha256");
    let digest = digest.and_then(|digest| digest.to_str().ok());
    let is_signed = digest != Some(UNSIGNED);
    let digest = digest.and_then(|digest| hex::decode(digest).ok());
    let credential = credentials.get_credential().await.map_err(failed)?;
    AwsAuthorizer::new(&credential, "s3", region)
        .with_sign_payload(is_signed)
        .try_authorize(request, digest.as_deref())
        .map_err(failed)
}

async fn sign_azure(
    request: &mut HttpRequest,
    credentials: &AzureCredentialProvider,
    account: &str,
) -> Result<(), HttpError> {
    let credential = credentials.get_credential().await.map_err(failed)?;
    if !matches!(&*credential, AzureCredential::AccessKey(_)) {
        // Tokens and shared signatures do not cover headers.
        return Ok(());
    }
    request.headers_mut().remove(AUTHORIZATION);
    AzureAuthorizer::new(&credential, account)
        .try_authorize(request)
        .map_err(failed)
}

fn failed(error: object_store::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}
