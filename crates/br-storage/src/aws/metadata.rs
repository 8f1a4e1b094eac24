//! What containers and machines of AWS are told about their credentials.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use br_rt::Rt;
use object_store::aws::AwsCredential;
use serde_json::Value;

use crate::{
    Failure, Secret,
    call::{Call, Caller, Patience, json, safe_url, text_in},
    environment::Environment,
    renewed::{Fresh, Giver},
    token_file::read_token,
};

/// Where machines ask.
const INSTANCE: &str = "http://169.254.169.254";
const INSTANCE_IPV6: &str = "http://[fd00:ec2::254]";
/// What the token for further questions is good for, in seconds: a few of them.
const TOKEN_SECONDS: &str = "60";
const TOKEN: &str = "x-aws-ec2-metadata-token";

/// Where containers ask if the variable has no host.
const CONTAINER: &str = "http://169.254.170.2";

/// The role of a machine, by version 2 of the service with its metadata.
pub(super) struct Instance {
    caller: Caller,
    endpoint: String,
    /// With version 1 where the service does not know version 2.
    has_version_1: bool,
    has_answered: AtomicBool,
    /// What was looked for before, as a list for people.
    tried: String,
}

impl Instance {
    /// `None` if the environment says that nobody shall ask.
    ///
    /// # Errors
    /// The environment names an endpoint that is no URL.
    pub(super) fn find(
        rt: &Rt,
        environment: &Environment,
        tried: &str,
    ) -> Result<Option<Instance>, Failure> {
        if environment.says_yes("AWS_EC2_METADATA_DISABLED") {
            return Ok(None);
        }
        let endpoint = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let mode = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
        let endpoint = match (endpoint, mode) {
            (Some(endpoint), _) => endpoint,
            (None, Some(mode)) if mode.eq_ignore_ascii_case("ipv6") => INSTANCE_IPV6.to_owned(),
            _ => INSTANCE.to_owned(),
        };
        Ok(Some(Instance {
            caller: Caller::near(rt)?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            has_version_1: !environment.says_yes("AWS_EC2_METADATA_V1_DISABLED"),
            has_answered: AtomicBool::new(false),
            tried: tried.to_owned(),
        }))
    }

    /// The token for further questions; none for version 1.
    async fn token(&self) -> Result<Option<String>, Failure> {
        let has_answered = self.has_answered.load(Ordering::Relaxed);
        let patience = match has_answered {
            true => Patience::Known,
            false => Patience::Unknown,
        };
        let call = Call::put(format!("{}/latest/api/token", self.endpoint))
            .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
        match self.caller.call_for(&call, patience).await {
            Ok(token) => Ok(Some(token)),
            Err(Failure::Refused(_) | Failure::PermissionDenied(_)) if self.has_version_1 => {
                Ok(None)
            }
            Err(Failure::Unavailable(why)) if !has_answered => {
                let tried = format!("{}; the metadata of this machine ({why})", self.tried);
                Err(nothing_found(&tried))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// There are no credentials anywhere: what was looked for.
pub(super) fn nothing_found(tried: &str) -> Failure {
    Failure::PermissionDenied(format!(
        "no credentials are found. Looked for, in this order: {tried}"
    ))
}

#[async_trait]
impl Giver for Instance {
    type Credential = AwsCredential;

    async fn ask(&self) -> Result<Fresh<AwsCredential>, Failure> {
        let had_answered = self.has_answered.load(Ordering::Relaxed);
        let token = self.token().await?;
        let get = async |path: &str| {
            let url = format!(
                "{}/latest/meta-data/iam/security-credentials/{path}",
                self.endpoint
            );
            let call = match &token {
                Some(token) => Call::get(url).header(TOKEN, token),
                None => Call::get(url),
            };
            self.caller.call(&call).await
        };
        let roles = match get("").await {
            // It has no role, or not for us.
            Err(Failure::Refused(why) | Failure::PermissionDenied(why)) if !had_answered => {
                let tried = format!(
                    "{}; the metadata of this machine, which gives no role ({why})",
                    self.tried
                );
                return Err(nothing_found(&tried));
            }
            roles => roles?,
        };
        self.has_answered.store(true, Ordering::Relaxed);
        let role = roles.lines().next().unwrap_or_default().trim();
        credentials(&get(role).await?)
    }

    fn what(&self) -> String {
        format!("the role of this machine, from {}", self.endpoint)
    }
}

/// The role of a container: of ECS, and of a pod of EKS.
pub(super) struct Container {
    rt: Rt,
    caller: Caller,
    url: String,
    token: Token,
}

enum Token {
    None,
    Text(Secret),
    /// Others write it anew.
    File(String),
}

impl Container {
    /// `None` if the environment names nobody to ask.
    ///
    /// # Errors
    /// It names somebody who must not be asked: in the clear and elsewhere.
    pub(super) fn find(rt: &Rt, environment: &Environment) -> Result<Option<Container>, Failure> {
        let url = match (
            environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => format!("{CONTAINER}{path}"),
            (None, Some(url)) => url,
            (None, None) => return Ok(None),
        };
        safe_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)?;
        let token = match (
            environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        ) {
            (Some(file), _) => Token::File(file),
            (None, Some(token)) => Token::Text(Secret::new(token)),
            (None, None) => Token::None,
        };
        Ok(Some(Container {
            rt: rt.clone(),
            caller: Caller::near(rt)?,
            url,
            token,
        }))
    }
}

#[async_trait]
impl Giver for Container {
    type Credential = AwsCredential;

    async fn ask(&self) -> Result<Fresh<AwsCredential>, Failure> {
        let token = match &self.token {
            Token::None => None,
            Token::Text(token) => Some(token.clone()),
            Token::File(file) => Some(read_token(&self.rt, file).await?),
        };
        let call = match token {
            Some(token) => Call::get(&self.url).header("authorization", token.reveal()),
            None => Call::get(&self.url),
        };
        credentials(&self.caller.call(&call).await?)
    }

    fn what(&self) -> String {
        let place = self.url.split('?').next().unwrap_or_default();
        format!("the role of this container, from {place}")
    }
}

/// Keys in the JSON that these services and commands give.
fn credentials(answer: &str) -> Result<Fresh<AwsCredential>, Failure> {
    let answer = json(answer)?;
    if let Some(code) = text_in(&answer, "Code").filter(|code| code != "Success") {
        let message = text_in(&answer, "Message").unwrap_or_default();
        return Err(Failure::Refused(format!(
            "the role is not to be had: {code}: {message}"
        )));
    }
    let token = text_in(&answer, "Token");
    keys_in(&answer, token)
        .ok_or_else(|| Failure::Refused("the answer of the metadata has no keys".to_owned()))
}

/// Keys in JSON and their end.
pub(super) fn keys_in(answer: &Value, token: Option<String>) -> Option<Fresh<AwsCredential>> {
    let ends = match text_in(answer, "Expiration") {
        None => None,
        Some(ends) => {
            let ends: jiff::Timestamp = ends.parse().ok()?;
            Some(u64::try_from(ends.as_second()).ok()?)
        }
    };
    Some(Fresh {
        credential: AwsCredential {
            key_id: text_in(answer, "AccessKeyId")?,
            secret_key: text_in(answer, "SecretAccessKey")?,
            token,
        },
        ends_unix_seconds: ends,
    })
}
