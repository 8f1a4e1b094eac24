//! # What it does
//! Credentials of roles, which live for an hour: asked for when they are first needed, and anew
//! while the old ones are still good, so that a run of many hours goes on.

use std::{fmt, fs, future::Future, pin::Pin, sync::Arc, time::Duration};

use br_rt::Rt;
use object_store::{
    CredentialProvider,
    aws::{AwsCredential, AwsCredentialProvider},
};
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::call::{Caller, Signature, element};
use crate::Failure;

/// Asked for anew this long before they end.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);

/// Where Amazon's security token service is, and the region that requests to it are signed for.
#[derive(Clone, Debug)]
pub(super) struct Sts {
    pub(super) endpoint: String,
    pub(super) region: String,
}

/// Who asks for the role.
pub(super) enum Identity {
    /// One with credentials.
    Credentials {
        base: AwsCredentialProvider,
        external_id: String,
    },
    /// One with a token, which others write into a file and renew.
    TokenFile(String),
}

/// The credentials of a role.
pub(super) struct Role {
    rt: Rt,
    sts: Sts,
    arn: String,
    identity: Identity,
    session: String,
    held: Mutex<Option<Held>>,
}

struct Held {
    credential: Arc<AwsCredential>,
    ends_unix_seconds: u64,
}

impl Role {
    pub(super) fn new(rt: &Rt, sts: Sts, arn: &str, identity: Identity) -> Role {
        let session = std::env::var("AWS_ROLE_SESSION_NAME");
        Role {
            rt: rt.clone(),
            sts,
            arn: arn.to_owned(),
            identity,
            session: session.unwrap_or_else(|_| "br".to_owned()),
            held: Mutex::new(None),
        }
    }

    async fn credential(&self) -> Result<Arc<AwsCredential>, Failure> {
        let mut held = self.held.lock().await;
        let now = self.rt.wall().0 / 1000;
        if let Some(held) = &*held
            && held.ends_unix_seconds > now + REFRESH_BEFORE.as_secs()
        {
            return Ok(held.credential.clone());
        }
        match self.ask().await {
            Ok(new) => Ok(held.insert(new).credential.clone()),
            Err(failure) => match &*held {
                Some(held) if held.ends_unix_seconds > now => {
                    tracing::warn!(role = self.arn, %failure, "the role's credentials are not renewed yet");
                    Ok(held.credential.clone())
                }
                _ => Err(failure),
            },
        }
    }

    async fn ask(&self) -> Result<Held, Failure> {
        let caller = Caller::new(&self.rt, &self.sts.endpoint)?;
        let headers = [(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8".to_owned(),
        )];
        let answer = match &self.identity {
            Identity::Credentials { base, external_id } => {
                let mut fields = vec![("Action", "AssumeRole")];
                if !external_id.is_empty() {
                    fields.push(("ExternalId", external_id));
                }
                let form = self.form(&fields);
                let credential = base.get_credential().await?;
                let signature = Signature {
                    credential: &credential,
                    service: "sts",
                    region: &self.sts.region,
                };
                caller.post(&headers, form, Some(signature)).await
            }
            Identity::TokenFile(path) => {
                let token = fs::read_to_string(path).map_err(|error| {
                    Failure::Settings(format!("cannot read the token file {path:?}: {error}"))
                })?;
                let form = self.form(&[
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("WebIdentityToken", token.trim()),
                ]);
                caller.post(&headers, form, None).await
            }
        };
        let answer = answer.map_err(|failure| self.refused(failure))?;
        held(&answer).ok_or_else(|| {
            Failure::Refused("the answer of the security token service has no keys".to_owned())
        })
    }

    fn form(&self, fields: &[(&str, &str)]) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &self.arn)
            .append_pair("RoleSessionName", &self.session)
            .extend_pairs(fields)
            .finish()
    }

    fn refused(&self, failure: Failure) -> Failure {
        let text = |why: String| format!("the role {} is not to be had: {why}", self.arn);
        match failure {
            Failure::PermissionDenied(why) | Failure::Refused(why) => {
                Failure::PermissionDenied(text(why))
            }
            Failure::Unavailable(why) => Failure::Unavailable(text(why)),
            other => other,
        }
    }
}

fn held(answer: &str) -> Option<Held> {
    let text = |name| element(answer, name).map(str::to_owned);
    let ends: jiff::Timestamp = element(answer, "Expiration")?.parse().ok()?;
    Some(Held {
        credential: Arc::new(AwsCredential {
            key_id: text("AccessKeyId")?,
            secret_key: text("SecretAccessKey")?,
            token: text("SessionToken"),
        }),
        ends_unix_seconds: u64::try_from(ends.as_second()).ok()?,
    })
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Role({})", self.arn)
    }
}

/// The trait is written for a macro; this is the type that the macro makes.
type Answer<'a> =
    Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'a>>;

impl CredentialProvider for Role {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async {
            let credential = self.credential().await;
            credential.map_err(|failure| object_store::Error::Generic {
                store: "S3",
                source: Box::new(failure),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_service() {
        let answer = "<R><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>b\
            </SecretAccessKey><SessionToken>c</SessionToken><Expiration>2026-01-02T03:04:05Z\
            </Expiration></Credentials></R>";
        let held = held(answer).unwrap();
        assert_eq!(held.ends_unix_seconds, 1_767_323_045);
        assert_eq!(held.credential.token.as_deref(), Some("c"));
        assert!(super::held("<R/>").is_none());
    }
}
