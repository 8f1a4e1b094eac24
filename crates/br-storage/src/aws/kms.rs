//! The key management service: data keys that a key wraps which never leaves the service.

use base64::{Engine, prelude::BASE64_STANDARD};
use br_rt::Rt;
use br_types::{Classify, Code, Kind};
use object_store::aws::AwsCredentialProvider;
use serde_json::{Value, json};

use super::{
    credentials::{BaseCredentials, dns_suffix, provider},
    sign,
};
use crate::{
    Failure, Secret,
    call::{Call, Caller, Patience},
    environment::Environment,
};

/// Bytes of a data key: AES-256.
const DATA_KEY_BYTES: usize = 32;

/// A key of Amazon's key management service.
pub struct Kms {
    caller: Caller,
    url: String,
    credentials: AwsCredentialProvider,
    key_id: String,
    region: String,
}

/// A data key, bare and wrapped.
pub struct KmsDataKey {
    /// The key itself, 32 bytes; not to be stored.
    pub plaintext: Vec<u8>,
    /// The same wrapped by the service's key.
    pub wrapped: Vec<u8>,
}

/// The service does not do what it is asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the key management service does not {asked} with the key {key_id:?}: {failure}")]
pub struct KmsError {
    asked: &'static str,
    key_id: String,
    /// Why.
    #[source]
    pub failure: Failure,
}

impl Classify for KmsError {
    fn kind(&self) -> Kind {
        match self.failure {
            Failure::Unavailable(_) => Kind::Retry,
            _ => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self.failure {
            Failure::PermissionDenied(_) => Code::STORAGE_INVALID_PERMISSION,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(
            match self.failure {
                Failure::Unavailable(_) => "check that the service can be reached, then run again",
                Failure::PermissionDenied(_) => "give the credentials the right to use the key",
                _ => "check the key's id and region in --master-key",
            }
            .to_owned(),
        )
    }
}

impl Kms {
    /// A key of the service; nobody is asked yet. Without `access_key`, credentials come from the
    /// environment as for S3; without `endpoint`, Amazon's own of the region.
    ///
    /// # Errors
    /// Settings that are wrong.
    pub fn open(
        rt: &Rt,
        key_id: &str,
        region: &str,
        endpoint: &str,
        access_key: &str,
        secret_access_key: &Secret,
    ) -> Result<Kms, KmsError> {
        let settings = BaseCredentials {
            access_key: Secret::new(access_key),
            secret_access_key: secret_access_key.clone(),
            region: region.to_owned(),
            ..BaseCredentials::default()
        };
        let url = match endpoint {
            "" => format!("https://kms.{region}.{}/", dns_suffix(region)),
            endpoint => format!("{}/", endpoint.trim_end_matches('/')),
        };
        let opened = || {
            Ok(Kms {
                caller: Caller::far(rt, &url)?,
                url: url.clone(),
                credentials: provider(rt, &Environment::Process, &settings)?.credentials,
                key_id: key_id.to_owned(),
                region: region.to_owned(),
            })
        };
        opened().map_err(|failure| KmsError {
            asked: "work",
            key_id: key_id.to_owned(),
            failure,
        })
    }

    /// A new data key.
    ///
    /// # Errors
    /// The service refuses, or cannot be reached.
    pub async fn generate_data_key(&self) -> Result<KmsDataKey, KmsError> {
        let ask = json!({"KeyId": self.key_id, "NumberOfBytes": DATA_KEY_BYTES});
        let made = async {
            let answer = self.call("GenerateDataKey", &ask).await?;
            Ok(KmsDataKey {
                plaintext: bytes(&answer, "Plaintext")?,
                wrapped: bytes(&answer, "CiphertextBlob")?,
            })
        };
        made.await
            .map_err(|failure| self.error("make a data key", failure))
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// It was not wrapped by this key; the service refuses, or cannot be reached.
    pub async fn decrypt(&self, wrapped: &[u8]) -> Result<Vec<u8>, KmsError> {
        let blob = BASE64_STANDARD.encode(wrapped);
        let ask = json!({"KeyId": self.key_id, "CiphertextBlob": blob});
        let unwrapped = async {
            let answer = self.call("Decrypt", &ask).await?;
            bytes(&answer, "Plaintext")
        };
        unwrapped
            .await
            .map_err(|failure| self.error("unwrap a data key", failure))
    }

    async fn call(&self, action: &str, ask: &Value) -> Result<Value, Failure> {
        let call = Call::post(&self.url, ask.to_string())
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{action}"));
        let credential = self.credentials.get_credential().await?;
        let sign = |request: &mut _| sign(request, &credential, "kms", &self.region);
        let answer = self
            .caller
            .call_signed(&call, Patience::Known, sign)
            .await?;
        serde_json::from_str(&answer)
            .map_err(|_| Failure::Refused("its answer is not JSON".to_owned()))
    }

    fn error(&self, asked: &'static str, failure: Failure) -> KmsError {
        KmsError {
            asked,
            key_id: self.key_id.clone(),
            failure,
        }
    }
}

fn bytes(answer: &Value, field: &str) -> Result<Vec<u8>, Failure> {
    let text = answer.get(field).and_then(Value::as_str);
    text.and_then(|text| BASE64_STANDARD.decode(text).ok())
        .ok_or_else(|| Failure::Refused(format!("its answer has no {field}")))
}
