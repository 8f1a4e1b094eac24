//! Where credentials for Amazon's services come from, in the order of Amazon's own tools: the
//! settings, a profile that is named, the environment's keys, the token of a pod, the profile
//! `default`, and the metadata of container or machine; with them a role, if one is named.

use std::{
    env,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use br_rt::Rt;
use object_store::{
    CredentialProvider, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider},
};

use super::{
    profile::{Profiles, Source},
    sts::{Identity, Role, Sts},
};
use crate::{Failure, S3Options, Secret};

/// Where there is a service with metadata, it answers at once.
const METADATA_RETRIES_MAX: usize = 2;
/// And where there is none, that shall be known soon.
const METADATA_RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the settings say about credentials.
#[derive(Clone, Debug, Default)]
pub(crate) struct BaseCredentials {
    pub(crate) access_key: Secret,
    pub(crate) secret_access_key: Secret,
    pub(crate) session_token: Secret,
    pub(crate) profile: String,
    pub(crate) role_arn: String,
    pub(crate) external_id: String,
    pub(crate) region: String,
}

impl From<&S3Options> for BaseCredentials {
    fn from(options: &S3Options) -> BaseCredentials {
        BaseCredentials {
            access_key: options.access_key.clone(),
            secret_access_key: options.secret_access_key.clone(),
            session_token: options.session_token.clone(),
            profile: options.profile.clone(),
            role_arn: options.role_arn.clone(),
            external_id: options.external_id.clone(),
            region: options.region.clone(),
        }
    }
}

/// Who gives credentials, and the region that the profile names.
pub(crate) struct Provider {
    pub(crate) credentials: AwsCredentialProvider,
    pub(crate) region: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Finds who gives credentials; asks nobody yet.
///
/// # Errors
/// A profile that is missing or says too little.
pub(crate) fn provider(rt: &Rt, settings: &BaseCredentials) -> Result<Provider, Failure> {
    let named = Some(settings.profile.clone()).filter(|profile| !profile.is_empty());
    let profiles = Profiles::load();
    let profile = named.clone().or_else(|| variable("AWS_PROFILE"));
    let region = profiles.region(profile.as_deref().unwrap_or("default"));
    let region = region.map(str::to_owned);
    let chain = Chain {
        rt,
        sts: sts(settings, region.as_deref()),
    };
    let source = source(settings, &profiles, named)?;
    let base = chain.provider(&source)?;
    let credentials = match settings.role_arn.as_str() {
        "" => base,
        arn => {
            let external_id = settings.external_id.clone();
            let identity = Identity::Credentials { base, external_id };
            Arc::new(Role::new(rt, chain.sts, arn, identity))
        }
    };
    Ok(Provider {
        credentials,
        region,
    })
}

/// Id, secret and token of the keys that stand in settings, profile or environment and so last;
/// what the machine or a pod has is for those who run there, and ends during a long run.
pub(crate) fn lasting_keys(settings: &BaseCredentials) -> Option<(String, String, String)> {
    let named = Some(settings.profile.clone()).filter(|profile| !profile.is_empty());
    match source(settings, &Profiles::load(), named) {
        Ok(Source::Keys { id, secret, token }) => {
            Some((id, secret.reveal().to_owned(), token.reveal().to_owned()))
        }
        _ => None,
    }
}

fn source(
    settings: &BaseCredentials,
    profiles: &Profiles,
    named: Option<String>,
) -> Result<Source, Failure> {
    if !settings.access_key.is_empty() {
        return Ok(Source::Keys {
            id: settings.access_key.reveal().to_owned(),
            secret: settings.secret_access_key.clone(),
            token: settings.session_token.clone(),
        });
    }
    if let Some(profile) = named {
        return profiles.source(&profile);
    }
    if let (Some(id), Some(secret)) = (
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
    ) {
        return Ok(Source::Keys {
            id,
            secret: Secret::new(secret),
            token: Secret::new(variable("AWS_SESSION_TOKEN").unwrap_or_default()),
        });
    }
    if let Some(profile) = variable("AWS_PROFILE") {
        return profiles.source(&profile);
    }
    if let (Some(arn), Some(token_file)) = (
        variable("AWS_ROLE_ARN"),
        variable("AWS_WEB_IDENTITY_TOKEN_FILE"),
    ) {
        return Ok(Source::WebIdentity { arn, token_file });
    }
    match profiles.has("default") {
        // A default profile with a region only says nothing about credentials.
        true => Ok(profiles.source("default").unwrap_or(Source::Elsewhere)),
        false => Ok(Source::Elsewhere),
    }
}

fn sts(settings: &BaseCredentials, profile_region: Option<&str>) -> Sts {
    let region = Some(settings.region.clone())
        .filter(|region| !region.is_empty())
        .or_else(|| variable("AWS_REGION"))
        .or_else(|| variable("AWS_DEFAULT_REGION"))
        .or_else(|| profile_region.map(str::to_owned))
        .unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint = variable("AWS_ENDPOINT_URL_STS").or_else(|| variable("AWS_ENDPOINT_URL"));
    Sts {
        endpoint: endpoint
            .unwrap_or_else(|| format!("https://sts.{region}.{}", dns_suffix(&region))),
        region,
    }
}

/// The domain of Amazon's services in a region.
pub(super) fn dns_suffix(region: &str) -> &'static str {
    match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    }
}

struct Chain<'a> {
    rt: &'a Rt,
    sts: Sts,
}

impl Chain<'_> {
    fn provider(&self, source: &Source) -> Result<AwsCredentialProvider, Failure> {
        Ok(match source {
            Source::Keys { id, secret, token } => {
                let token = Some(token.reveal().to_owned()).filter(|token| !token.is_empty());
                Arc::new(StaticCredentialProvider::new(AwsCredential {
                    key_id: id.clone(),
                    secret_key: secret.reveal().to_owned(),
                    token,
                }))
            }
            Source::Role {
                arn,
                external_id,
                base,
            } => {
                let identity = Identity::Credentials {
                    base: self.provider(base)?,
                    external_id: external_id.clone(),
                };
                Arc::new(Role::new(self.rt, self.sts.clone(), arn, identity))
            }
            Source::WebIdentity { arn, token_file } => {
                let identity = Identity::TokenFile(token_file.clone());
                Arc::new(Role::new(self.rt, self.sts.clone(), arn, identity))
            }
            // Metadata of containers, pods and machines, which the client knows how to ask.
            Source::Elsewhere => {
                crate::install_tls_provider();
                let retry = RetryConfig {
                    max_retries: METADATA_RETRIES_MAX,
                    retry_timeout: METADATA_RETRY_TIMEOUT,
                    ..RetryConfig::default()
                };
                let store = AmazonS3Builder::from_env()
                    .with_bucket_name("unused")
                    .with_retry(retry)
                    .build()?;
                Arc::new(Metadata {
                    service: store.credentials().clone(),
                    has_answered: AtomicBool::new(false),
                })
            }
        })
    }
}

/// Credentials of the container or machine. If its service has never answered, there are none.
#[derive(Debug)]
struct Metadata {
    service: AwsCredentialProvider,
    has_answered: AtomicBool,
}

/// The trait is written for a macro; this is the type that the macro makes.
type Answer<'a> =
    Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'a>>;

impl CredentialProvider for Metadata {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async {
            let answer = self.service.get_credential().await;
            let had_answered = self.has_answered.load(Ordering::Relaxed);
            match answer {
                Ok(credential) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    Ok(credential)
                }
                Err(error) if had_answered => Err(error),
                Err(error) => {
                    tracing::debug!(%error, "there is no service with metadata");
                    let why = "no credentials are found: neither in the URL, in the environment, in \
                               a profile, nor in the metadata of this machine";
                    Err(object_store::Error::Generic {
                        store: "S3",
                        source: Box::new(Failure::PermissionDenied(why.to_owned())),
                    })
                }
            }
        })
    }
}
