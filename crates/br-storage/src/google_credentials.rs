//! Where credentials for Google's storage come from, in the order of Google's own tools: the settings,
//! `GOOGLE_APPLICATION_CREDENTIALS`, the file of gcloud, and the metadata of the machine.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use br_rt::Rt;
use object_store::gcp::GcpCredential;
use serde_json::Value;

use crate::{
    Failure, GcsOptions, Secret,
    call::{Call, Caller, Patience, json, number_in, text_in},
    environment::Environment,
    renewed::{Fresh, Giver},
};

/// Where machines ask; by number, so that no name has to be looked up where there is no such machine.
const MACHINE: &str = "169.254.169.254";
/// Where the sign-in of a user is exchanged for a token.
const USER: &str = "https://oauth2.googleapis.com/token";
/// What the library of the official tool gives the file of gcloud's sign-in.
const FILE_OF_GCLOUD: &str = "application_default_credentials.json";

/// Credentials, as far as they are known without asking anybody.
pub(crate) enum Found {
    /// The key of a service account, as JSON.
    ServiceAccount(Secret),
    /// A user's sign-in.
    User(User),
    /// Nothing: the machine is to be asked.
    Elsewhere,
}

/// Looks for credentials in settings and files.
///
/// # Errors
/// A file that cannot be read, or holds what is not supported.
pub(crate) fn find(
    rt: &Rt,
    environment: &Environment,
    options: &GcsOptions,
) -> Result<Found, Failure> {
    let (place, text) = if options.credentials_blob.is_empty() {
        match file(environment, &options.credentials_file) {
            Some(file) => {
                let text = fs::read_to_string(&file).map_err(|error| {
                    let file = file.display();
                    Failure::Settings(format!("cannot read the credentials file {file}: {error}"))
                })?;
                (format!("the credentials file {}", file.display()), text)
            }
            None => return Ok(Found::Elsewhere),
        }
    } else {
        let text = options.credentials_blob.reveal().to_owned();
        ("what was given as credentials".to_owned(), text)
    };
    let wrong = |why: &str| Failure::Settings(format!("{place} {why}"));
    let parsed = json(&text).map_err(|_| wrong("is not JSON"))?;
    match parsed.get("type").and_then(Value::as_str) {
        Some("service_account") => Ok(Found::ServiceAccount(Secret::new(text))),
        Some("authorized_user") => {
            let user = User::of_json(rt, &parsed)?;
            Ok(Found::User(user.ok_or_else(|| wrong("lacks a field"))?))
        }
        // Files without a type are keys of service accounts, of tests mostly.
        None if parsed.get("private_key").is_some() => Ok(Found::ServiceAccount(Secret::new(text))),
        Some(kind) => Err(wrong(&format!(
            "is of the type {kind:?}, which is not supported; those of \"service_account\" and \
             \"authorized_user\" are, and the metadata of machines and pods"
        ))),
        None => Err(wrong("has no type")),
    }
}

/// The file with credentials: the one that is named, or gcloud's own if there is one.
pub(crate) fn file(environment: &Environment, named: &str) -> Option<PathBuf> {
    if !named.is_empty() {
        return Some(named.into());
    }
    if let Some(named) = environment.get("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(named.into());
    }
    let folder = environment.get("CLOUDSDK_CONFIG").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| environment.home().join(".config/gcloud"));
    Some(folder.join(FILE_OF_GCLOUD)).filter(|file| file.exists())
}

/// A user who has signed in with `gcloud auth application-default login`.
pub(crate) struct User {
    rt: Rt,
    caller: Caller,
    url: String,
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
}

impl User {
    fn of_json(rt: &Rt, json: &Value) -> Result<Option<User>, Failure> {
        let (Some(client_id), Some(client_secret), Some(refresh_token)) = (
            text_in(json, "client_id"),
            text_in(json, "client_secret"),
            text_in(json, "refresh_token"),
        ) else {
            return Ok(None);
        };
        Ok(Some(User {
            rt: rt.clone(),
            caller: Caller::far(rt, USER)?,
            url: USER.to_owned(),
            client_id,
            client_secret: Secret::new(client_secret),
            refresh_token: Secret::new(refresh_token),
        }))
    }
}

#[async_trait]
impl Giver for User {
    type Credential = GcpCredential;

    async fn ask(&self) -> Result<Fresh<GcpCredential>, Failure> {
        let call = Call::form(
            &self.url,
            &[
                ("grant_type", "refresh_token"),
                ("client_id", &self.client_id),
                ("client_secret", self.client_secret.reveal()),
                ("refresh_token", self.refresh_token.reveal()),
            ],
        );
        match self.caller.call(&call).await {
            Ok(answer) => token_in(&self.rt, &answer),
            Err(Failure::Refused(why)) => Err(Failure::PermissionDenied(why)),
            Err(failure) => Err(failure),
        }
    }

    fn what(&self) -> String {
        "the user who has signed in with gcloud".to_owned()
    }
}

/// The service account of a machine or pod.
pub(crate) struct Machine {
    rt: Rt,
    caller: Caller,
    host: String,
    has_answered: AtomicBool,
}

impl Machine {
    pub(crate) fn find(rt: &Rt, environment: &Environment) -> Result<Machine, Failure> {
        let host = environment.get("GCE_METADATA_HOST");
        Ok(Machine {
            rt: rt.clone(),
            caller: Caller::near(rt)?,
            host: host.unwrap_or_else(|| MACHINE.to_owned()),
            has_answered: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl Giver for Machine {
    type Credential = GcpCredential;

    async fn ask(&self) -> Result<Fresh<GcpCredential>, Failure> {
        let has_answered = self.has_answered.load(Ordering::Relaxed);
        let patience = match has_answered {
            true => Patience::Known,
            false => Patience::Unknown,
        };
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let call =
            Call::get(format!("http://{}/{path}", self.host)).header("metadata-flavor", "Google");
        match self.caller.call_for(&call, patience).await {
            Ok(answer) => {
                self.has_answered.store(true, Ordering::Relaxed);
                token_in(&self.rt, &answer)
            }
            Err(
                Failure::Unavailable(why) | Failure::Refused(why) | Failure::PermissionDenied(why),
            ) if !has_answered => Err(Failure::PermissionDenied(format!(
                "no credentials are found. Looked for, in this order: --gcs.credentials-file; \
                     GOOGLE_APPLICATION_CREDENTIALS; the file of gcloud; the metadata of this machine \
                     ({why})"
            ))),
            Err(failure) => Err(failure),
        }
    }

    fn what(&self) -> String {
        format!("the service account of this machine, from {}", self.host)
    }
}

fn token_in(rt: &Rt, answer: &str) -> Result<Fresh<GcpCredential>, Failure> {
    let answer = json(answer)?;
    match (
        text_in(&answer, "access_token"),
        number_in(&answer, "expires_in"),
    ) {
        (Some(bearer), Some(seconds)) => Ok(Fresh {
            credential: GcpCredential { bearer },
            ends_unix_seconds: Some((rt.wall().0 / 1000).saturating_add(seconds)),
        }),
        _ => Err(Failure::Refused(
            "the answer has no access token".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests;
