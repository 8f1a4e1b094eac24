//! Who we are to Azure without a key of the storage: an application with a secret or with the token of a
//! pod, the managed identity of a machine, the user of Azure's command line.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use br_rt::Rt;
use object_store::azure::AzureCredential;
use url::form_urlencoded;

use crate::{
    Failure, Secret,
    call::{Call, Caller, Patience, json, number_in, safe_url, text_in},
    command,
    environment::Environment,
    renewed::{Fresh, Giver},
    token_file::read_token,
};

/// What a token is asked for.
const RESOURCE: &str = "https://storage.azure.com/";
/// Who gives tokens, in the public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// Where machines ask.
const MACHINE: &str = "http://169.254.169.254";
/// A token that says nothing about its end is good for so long.
const LIFE_SECONDS_DEFAULT: u64 = 300;

/// An application, which shows a secret; or a pod, with a token that others write anew into a file and
/// that the cloud trusts.
pub(crate) struct Application {
    rt: Rt,
    caller: Caller,
    url: String,
    client_id: String,
    proof: Proof,
}

enum Proof {
    Secret(Secret),
    TokenFile(String),
}

impl Application {
    /// The application whose secret is in the environment; `None` if it does not name all of it.
    ///
    /// # Errors
    /// The secret would go to somebody in the clear.
    pub(crate) fn with_secret(
        rt: &Rt,
        environment: &Environment,
    ) -> Result<Option<Application>, Failure> {
        let secret = environment.get("AZURE_CLIENT_SECRET");
        let proof = secret.map(|secret| Proof::Secret(Secret::new(secret)));
        Application::find(rt, environment, proof)
    }

    /// The one of this pod.
    ///
    /// # Errors
    /// The token would go to somebody in the clear.
    pub(crate) fn of_pod(
        rt: &Rt,
        environment: &Environment,
    ) -> Result<Option<Application>, Failure> {
        let file = environment.get("AZURE_FEDERATED_TOKEN_FILE");
        Application::find(rt, environment, file.map(Proof::TokenFile))
    }

    fn find(
        rt: &Rt,
        environment: &Environment,
        proof: Option<Proof>,
    ) -> Result<Option<Application>, Failure> {
        let (Some(client_id), Some(tenant_id), Some(proof)) = (
            environment.get("AZURE_CLIENT_ID"),
            environment.get("AZURE_TENANT_ID"),
            proof,
        ) else {
            return Ok(None);
        };
        let authority = environment.get("AZURE_AUTHORITY_HOST");
        let authority = authority.unwrap_or_else(|| AUTHORITY.to_owned());
        safe_url("AZURE_AUTHORITY_HOST", &authority)?;
        let authority = authority.trim_end_matches('/');
        let url = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        Ok(Some(Application {
            rt: rt.clone(),
            caller: Caller::far(rt, &url)?,
            url,
            client_id,
            proof,
        }))
    }
}

#[async_trait]
impl Giver for Application {
    type Credential = AzureCredential;

    async fn ask(&self) -> Result<Fresh<AzureCredential>, Failure> {
        let scope = format!("{RESOURCE}.default");
        let common = [
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("scope", &scope),
        ];
        let call = match &self.proof {
            Proof::Secret(secret) => {
                let own = [("client_secret", secret.reveal())];
                Call::form(&self.url, &[&common[..], &own].concat())
            }
            Proof::TokenFile(file) => {
                let token = read_token(&self.rt, file).await?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let own = [
                    ("client_assertion_type", kind),
                    ("client_assertion", token.reveal()),
                ];
                Call::form(&self.url, &[&common[..], &own].concat())
            }
        };
        let answer = self.caller.call(&call).await.map_err(denied)?;
        token_in(&self.rt, &answer)
    }

    fn what(&self) -> String {
        format!("the application {}", self.client_id)
    }
}

/// That who gives tokens gives none is a matter of rights.
fn denied(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(why) => Failure::PermissionDenied(why),
        other => other,
    }
}

/// The managed identity of a machine or of an application that the cloud runs; else the user of Azure's
/// command line.
pub(crate) struct Managed {
    rt: Rt,
    caller: Caller,
    service: Service,
    client_id: Option<String>,
    has_answered: AtomicBool,
}

enum Service {
    /// The metadata of machines.
    Machine { host: String },
    /// That of an application, which the environment names, with the word that opens it.
    Application { url: String, word: Secret },
}

impl Managed {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// The environment names a service that is no URL.
    pub(crate) fn find(rt: &Rt, environment: &Environment) -> Result<Managed, Failure> {
        let service = match (
            environment.get("IDENTITY_ENDPOINT"),
            environment.get("IDENTITY_HEADER"),
        ) {
            (Some(url), Some(word)) => {
                safe_url("IDENTITY_ENDPOINT", &url)?;
                Service::Application {
                    url,
                    word: Secret::new(word),
                }
            }
            _ => {
                let host = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST");
                let host = host.unwrap_or_else(|| MACHINE.to_owned());
                Service::Machine {
                    host: host.trim_end_matches('/').to_owned(),
                }
            }
        };
        Ok(Managed {
            rt: rt.clone(),
            caller: Caller::near(rt)?,
            service,
            client_id: environment.get("AZURE_CLIENT_ID"),
            has_answered: AtomicBool::new(false),
        })
    }

    fn call(&self) -> Call {
        let query = |version: &str| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("api-version", version);
            query.append_pair("resource", RESOURCE);
            if let Some(client_id) = &self.client_id {
                query.append_pair("client_id", client_id);
            }
            query.finish()
        };
        match &self.service {
            Service::Machine { host } => {
                let path = "/metadata/identity/oauth2/token";
                Call::get(format!("{host}{path}?{}", query("2018-02-01")))
                    .header("metadata", "true")
            }
            Service::Application { url, word } => {
                Call::get(format!("{url}?{}", query("2019-08-01")))
                    .header("x-identity-header", word.reveal())
            }
        }
    }

    /// The token of the user who has signed in with `az login`.
    async fn of_command_line(&self, why: &str) -> Result<Fresh<AzureCredential>, Failure> {
        let arguments = [
            "az",
            "account",
            "get-access-token",
            "--output",
            "json",
            "--resource",
            RESOURCE,
        ];
        let said = command::run(&self.rt, &arguments).await;
        said.and_then(|said| {
            token_in(&self.rt, &said).map_err(|_| "says no token".to_owned())
        })
        .map_err(|az| {
            Failure::PermissionDenied(format!(
                "no credentials are found. Looked for, in this order: --azblob.sas-token and \
                 --azblob.account-key; AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET; \
                 AZURE_STORAGE_KEY; AZURE_FEDERATED_TOKEN_FILE; the managed identity of this machine \
                 ({why}); the command az (it {az})"
            ))
        })
    }
}

#[async_trait]
impl Giver for Managed {
    type Credential = AzureCredential;

    async fn ask(&self) -> Result<Fresh<AzureCredential>, Failure> {
        let has_answered = self.has_answered.load(Ordering::Relaxed);
        let patience = match has_answered {
            true => Patience::Known,
            false => Patience::Unknown,
        };
        match self.caller.call_for(&self.call(), patience).await {
            Ok(answer) => {
                self.has_answered.store(true, Ordering::Relaxed);
                token_in(&self.rt, &answer)
            }
            // Nobody is there, or the machine has no identity for us.
            Err(
                Failure::Unavailable(why) | Failure::Refused(why) | Failure::PermissionDenied(why),
            ) if !has_answered => self.of_command_line(&why).await,
            Err(failure) => Err(denied(failure)),
        }
    }

    fn what(&self) -> String {
        match &self.service {
            Service::Machine { host } => {
                format!("the managed identity of this machine, from {host}")
            }
            Service::Application { url, .. } => {
                format!("the managed identity of this application, from {url}")
            }
        }
    }
}

/// The token in an answer of these services; they say its end in different ways.
fn token_in(rt: &Rt, answer: &str) -> Result<Fresh<AzureCredential>, Failure> {
    let answer = json(answer)?;
    let token = text_in(&answer, "access_token").or_else(|| text_in(&answer, "accessToken"));
    let token =
        token.ok_or_else(|| Failure::Refused("the answer has no access token".to_owned()))?;
    let now = rt.wall().0 / 1000;
    let ends = number_in(&answer, "expires_on").unwrap_or_else(|| {
        now.saturating_add(number_in(&answer, "expires_in").unwrap_or(LIFE_SECONDS_DEFAULT))
    });
    Ok(Fresh {
        credential: AzureCredential::BearerToken(token),
        ends_unix_seconds: Some(ends),
    })
}

#[cfg(test)]
mod tests;
