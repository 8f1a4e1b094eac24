//! Credentials of roles, which live for an hour.

use async_trait::async_trait;
use br_rt::Rt;
use object_store::aws::{AwsCredential, AwsCredentialProvider};

use super::sign;
use crate::{
    Failure,
    call::{Call, Caller, Patience, element},
    renewed::{Fresh, Giver},
    token_file::read_token,
};

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

/// Gives credentials of a role.
pub(super) struct Role {
    rt: Rt,
    sts: Sts,
    arn: String,
    identity: Identity,
    session: String,
}

impl Role {
    pub(super) fn new(
        rt: &Rt,
        sts: Sts,
        arn: &str,
        identity: Identity,
        session: Option<String>,
    ) -> Role {
        Role {
            rt: rt.clone(),
            sts,
            arn: arn.to_owned(),
            identity,
            session: session.unwrap_or_else(|| "br".to_owned()),
        }
    }

    async fn assume(&self) -> Result<String, Failure> {
        let url = format!("{}/", self.sts.endpoint.trim_end_matches('/'));
        let caller = Caller::far(&self.rt, &url)?;
        let common = [
            ("Version", "2011-06-15"),
            ("RoleArn", self.arn.as_str()),
            ("RoleSessionName", self.session.as_str()),
        ];
        match &self.identity {
            Identity::Credentials { base, external_id } => {
                let mut own = vec![("Action", "AssumeRole")];
                if !external_id.is_empty() {
                    own.push(("ExternalId", external_id));
                }
                let call = Call::form(url, &[&common, &own[..]].concat());
                let credential = base.get_credential().await?;
                let sign = |request: &mut _| sign(request, &credential, "sts", &self.sts.region);
                caller.call_signed(&call, Patience::Known, sign).await
            }
            Identity::TokenFile(path) => {
                let token = read_token(&self.rt, path).await?;
                let own = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("WebIdentityToken", token.reveal()),
                ];
                let call = Call::form(url, &[&common, &own[..]].concat());
                caller.call(&call).await
            }
        }
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

#[async_trait]
impl Giver for Role {
    type Credential = AwsCredential;

    async fn ask(&self) -> Result<Fresh<AwsCredential>, Failure> {
        let answer = self.assume().await;
        let answer = answer.map_err(|failure| self.refused(failure))?;
        keys_in(&answer).ok_or_else(|| {
            Failure::Refused("the answer of the security token service has no keys".to_owned())
        })
    }

    fn what(&self) -> String {
        format!("the role {}", self.arn)
    }
}

fn keys_in(answer: &str) -> Option<Fresh<AwsCredential>> {
    let text = |name| element(answer, name).map(str::to_owned);
    let ends: jiff::Timestamp = element(answer, "Expiration")?.parse().ok()?;
    Some(Fresh {
        credential: AwsCredential {
            key_id: text("AccessKeyId")?,
            secret_key: text("SecretAccessKey")?,
            token: text("SessionToken"),
        },
        ends_unix_seconds: Some(u64::try_from(ends.as_second()).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_service() {
        let answer = "<R><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>b\
            </SecretAccessKey><SessionToken>c</SessionToken><Expiration>2026-01-02T03:04:05Z\
            </Expiration></Credentials></R>";
        let keys = keys_in(answer).unwrap();
        assert_eq!(keys.ends_unix_seconds, Some(1_767_323_045));
        assert_eq!(keys.credential.token.as_deref(), Some("c"));
        assert!(keys_in("<R/>").is_none());
    }
}
