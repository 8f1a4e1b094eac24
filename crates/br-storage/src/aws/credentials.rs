//! Where credentials for Amazon's services come from, in the order of the official tool's library: the
//! settings, a profile that is named, the environment's keys, the token of a pod, the profile of
//! `AWS_PROFILE` or `default`, the metadata of the container, and that of the machine; with them a role,
//! if one is named.

use std::sync::Arc;

use br_rt::Rt;
use object_store::{
    StaticCredentialProvider,
    aws::{AwsCredential, AwsCredentialProvider},
};

use super::{
    metadata::{Container, Instance, nothing_found},
    process::Process,
    profile::{Profiles, Source},
    sts::{Identity, Role, Sts},
};
use crate::{Failure, S3Options, Secret, environment::Environment, renewed::Renewed};

#[cfg(test)]
mod tests;

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

/// Finds who gives credentials; asks nobody yet.
///
/// # Errors
/// A profile that is missing or says too little; nobody shall be asked.
pub(crate) fn provider(
    rt: &Rt,
    environment: &Environment,
    settings: &BaseCredentials,
) -> Result<Provider, Failure> {
    let profiles = Profiles::load(environment);
    let profile = named(settings).or_else(|| environment.get("AWS_PROFILE"));
    let region = profiles.region(profile.as_deref().unwrap_or("default"));
    let region = region.map(str::to_owned);
    let chain = Chain {
        rt,
        environment,
        sts: sts(environment, settings, region.as_deref()),
    };
    let found = look(environment, settings, &profiles)?;
    let base = chain.provider(&found.source, &found.tried)?;
    let credentials = match settings.role_arn.as_str() {
        "" => base,
        arn => chain.role(
            arn,
            Identity::Credentials {
                base,
                external_id: settings.external_id.clone(),
            },
        ),
    };
    Ok(Provider {
        credentials,
        region,
    })
}

/// Id, secret and token of the keys that stand in settings, profile or environment and so last;
/// what the machine or a pod has is for those who run there, and ends during a long run.
pub(crate) fn lasting_keys(settings: &BaseCredentials) -> Option<(String, String, String)> {
    let environment = Environment::Process;
    let profiles = Profiles::load(&environment);
    match look(&environment, settings, &profiles).ok()?.source {
        Source::Keys { id, secret, token } => {
            Some((id, secret.reveal().to_owned(), token.reveal().to_owned()))
        }
        _ => None,
    }
}

fn named(settings: &BaseCredentials) -> Option<String> {
    Some(settings.profile.clone()).filter(|profile| !profile.is_empty())
}

/// Where they are, and what was looked for in vain before, as a list for people.
struct Found {
    source: Source,
    tried: String,
}

fn look(
    environment: &Environment,
    settings: &BaseCredentials,
    profiles: &Profiles,
) -> Result<Found, Failure> {
    let found = |source| {
        Ok(Found {
            source,
            tried: String::new(),
        })
    };
    if !settings.access_key.is_empty() {
        return found(Source::Keys {
            id: settings.access_key.reveal().to_owned(),
            secret: settings.secret_access_key.clone(),
            token: settings.session_token.clone(),
        });
    }
    if let Some(profile) = named(settings) {
        return found(profiles.source(&profile)?);
    }
    if let Some(keys) = keys_of(environment) {
        return found(keys);
    }
    if let Some(token_file) = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let arn = environment.get("AWS_ROLE_ARN").ok_or_else(|| {
            let why =
                "AWS_WEB_IDENTITY_TOKEN_FILE is set, and AWS_ROLE_ARN, which goes with it, is not";
            Failure::Settings(why.to_owned())
        })?;
        return found(Source::WebIdentity { arn, token_file });
    }
    if let Some(profile) = environment.get("AWS_PROFILE") {
        return found(profiles.source(&profile)?);
    }
    let tried = "keys in the URL or a profile in the flags; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; \
                 AWS_WEB_IDENTITY_TOKEN_FILE; AWS_PROFILE";
    match profiles.source("default") {
        Ok(source) => found(source),
        // It may have a region only.
        Err(failure) => Ok(Found {
            source: Source::Elsewhere,
            tried: format!("{tried}; {failure}"),
        }),
    }
}

fn keys_of(environment: &Environment) -> Option<Source> {
    Some(Source::Keys {
        id: environment.get("AWS_ACCESS_KEY_ID")?,
        secret: Secret::new(environment.get("AWS_SECRET_ACCESS_KEY")?),
        token: Secret::new(environment.get("AWS_SESSION_TOKEN").unwrap_or_default()),
    })
}

fn sts(environment: &Environment, settings: &BaseCredentials, profile_region: Option<&str>) -> Sts {
    let region = Some(settings.region.clone())
        .filter(|region| !region.is_empty())
        .or_else(|| environment.get("AWS_REGION"))
        .or_else(|| environment.get("AWS_DEFAULT_REGION"))
        .or_else(|| profile_region.map(str::to_owned))
        .unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint = environment
        .get("AWS_ENDPOINT_URL_STS")
        .or_else(|| environment.get("AWS_ENDPOINT_URL"));
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
    environment: &'a Environment,
    sts: Sts,
}

impl Chain<'_> {
    fn provider(&self, source: &Source, tried: &str) -> Result<AwsCredentialProvider, Failure> {
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
            } => self.role(
                arn,
                Identity::Credentials {
                    base: self.provider(base, tried)?,
                    external_id: external_id.clone(),
                },
            ),
            Source::WebIdentity { arn, token_file } => {
                self.role(arn, Identity::TokenFile(token_file.clone()))
            }
            Source::Process { profile, command } => {
                let process = Process::new(self.rt, profile, command);
                Arc::new(Renewed::new(self.rt, process))
            }
            Source::Environment => {
                let missing = || {
                    let why = "credential_source is Environment, and AWS_ACCESS_KEY_ID or \
                               AWS_SECRET_ACCESS_KEY is not set";
                    Failure::Settings(why.to_owned())
                };
                let keys = keys_of(self.environment).ok_or_else(missing)?;
                return self.provider(&keys, tried);
            }
            Source::Container => match Container::find(self.rt, self.environment)? {
                Some(container) => Arc::new(Renewed::new(self.rt, container)),
                None => return Err(nothing_found(CONTAINER_VARIABLES)),
            },
            Source::Instance => self.instance(tried)?,
            Source::Elsewhere => match Container::find(self.rt, self.environment)? {
                Some(container) => Arc::new(Renewed::new(self.rt, container)),
                None => self.instance(&joined(tried, CONTAINER_VARIABLES))?,
            },
        })
    }

    fn instance(&self, tried: &str) -> Result<AwsCredentialProvider, Failure> {
        match Instance::find(self.rt, self.environment, tried)? {
            Some(instance) => Ok(Arc::new(Renewed::new(self.rt, instance))),
            None => Err(nothing_found(&joined(
                tried,
                "and not the metadata of this machine, as AWS_EC2_METADATA_DISABLED says",
            ))),
        }
    }

    fn role(&self, arn: &str, identity: Identity) -> AwsCredentialProvider {
        let session = self.environment.get("AWS_ROLE_SESSION_NAME");
        let role = Role::new(self.rt, self.sts.clone(), arn, identity, session);
        Arc::new(Renewed::new(self.rt, role))
    }
}

const CONTAINER_VARIABLES: &str =
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI";

fn joined(tried: &str, more: &str) -> String {
    match tried {
        "" => more.to_owned(),
        tried => format!("{tried}; {more}"),
    }
}
