//! The backend as requests to stores carry it.

use std::env;

use base64::{Engine, prelude::BASE64_STANDARD};
use br_proto::backup::{self as pb, storage_backend::Backend as Proto};
use br_types::{Classify, Code, Kind};
use sha2::{Digest, Sha256};

use crate::{
    AzureOptions, Backend, GcsOptions, S3Options, SealKeys, Secret, aws, environment::Environment,
    google_credentials,
};

#[cfg(test)]
mod tests;

/// How the name of a memory backend travels in the path of a local one: a store elsewhere finds
/// no such directory and refuses.
const MEMORY: &str = "memory://";

/// Whether stores get the credentials or use their own (`--send-credentials-to-tikv`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendCredentials {
    /// Stores get the credentials of the command, from the URL, flags, or environment.
    Yes,
    /// Stores use what they find in their own environment.
    No,
}

/// A backend that cannot travel, or has travelled in a form that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The request has no backend.
    #[error("the request names no external storage")]
    Missing,
    /// The request has a backend of another kind.
    #[error("external storage of kind {0} is not supported")]
    Unsupported(&'static str),
    /// The file with the credentials cannot be read.
    #[error("cannot read the credentials file {path:?}: {reason}")]
    CredentialsFile {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The customer's key is not base64.
    #[error("the Azure encryption key is not base64")]
    EncryptionKey,
}

impl Classify for BackendError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn code(&self) -> Code {
        Code::STORAGE_INVALID_CONFIG
    }

    fn next_step(&self) -> Option<String> {
        match self {
            BackendError::CredentialsFile { .. } => {
                Some("pass a readable file, or --send-credentials-to-tikv=false".into())
            }
            _ => None,
        }
    }
}

impl Backend {
    /// The backend for a request to stores.
    ///
    /// With [`SendCredentials::Yes`], credentials that are not among the settings are taken from
    /// the environment and, for GCS, from the credentials file.
    ///
    /// # Errors
    /// A credentials file that cannot be read; a key that is not base64.
    pub fn to_proto(&self, send: SendCredentials) -> Result<pb::StorageBackend, BackendError> {
        let backend = match self {
            Backend::Noop => Proto::Noop(pb::Noop {}),
            Backend::Local { path } => Proto::Local(pb::Local {
                path: path.to_string_lossy().into_owned(),
            }),
            Backend::Memory { name, prefix } => Proto::Local(pb::Local {
                path: format!("{MEMORY}{name}/{prefix}"),
            }),
            Backend::S3 {
                bucket,
                prefix,
                options,
            } => Proto::S3(s3_to_proto(bucket, prefix, options, send)),
            Backend::Gcs {
                bucket,
                prefix,
                options,
            } => Proto::Gcs(gcs_to_proto(bucket, prefix, options, send)?),
            Backend::Azure {
                container,
                prefix,
                options,
            } => Proto::AzureBlobStorage(azure_to_proto(container, prefix, options, send)?),
            Backend::Sealed { inner, keys } => {
                return Ok(pb::StorageBackend {
                    sealed: Some(keys.to_proto(send)),
                    ..inner.to_proto(send)?
                });
            }
        };
        Ok(pb::StorageBackend {
            backend: Some(backend),
            sealed: None,
        })
    }

    /// The backend of a request.
    ///
    /// # Errors
    /// No backend, or a kind that is not supported here.
    pub fn from_proto(proto: &pb::StorageBackend) -> Result<Backend, BackendError> {
        let backend = Backend::plain_from_proto(proto)?;
        match &proto.sealed {
            None => Ok(backend),
            // Without keys nothing could be opened, and plain objects must not come of it.
            Some(sealed) if sealed.master_keys.is_empty() => {
                Err(BackendError::Unsupported("sealed without master keys"))
            }
            Some(sealed) => Ok(backend.sealed(SealKeys::from_proto(sealed))),
        }
    }

    fn plain_from_proto(proto: &pb::StorageBackend) -> Result<Backend, BackendError> {
        let trimmed = |prefix: &str| prefix.trim_matches('/').to_owned();
        Ok(match proto.backend.as_ref().ok_or(BackendError::Missing)? {
            Proto::Noop(_) => Backend::Noop,
            Proto::Local(local) => match local.path.strip_prefix(MEMORY) {
                Some(memory) => {
                    let (name, prefix) = memory.split_once('/').unwrap_or((memory, ""));
                    Backend::Memory {
                        name: name.to_owned(),
                        prefix: trimmed(prefix),
                    }
                }
                None => Backend::Local {
                    path: (&local.path).into(),
                },
            },
            Proto::S3(s3) => Backend::S3 {
                bucket: s3.bucket.clone(),
                prefix: trimmed(&s3.prefix),
                options: s3_from_proto(s3),
            },
            Proto::Gcs(gcs) => Backend::Gcs {
                bucket: gcs.bucket.clone(),
                prefix: trimmed(&gcs.prefix),
                options: GcsOptions {
                    endpoint: gcs.endpoint.clone(),
                    storage_class: gcs.storage_class.clone(),
                    predefined_acl: gcs.predefined_acl.clone(),
                    credentials_file: String::new(),
                    credentials_blob: Secret::new(gcs.credentials_blob.clone()),
                },
            },
            Proto::AzureBlobStorage(azure) => Backend::Azure {
                container: azure.bucket.clone(),
                prefix: trimmed(&azure.prefix),
                options: azure_from_proto(azure),
            },
            Proto::CloudDynamic(_) => return Err(BackendError::Unsupported("cloud_dynamic")),
            Proto::Hdfs(_) => return Err(BackendError::Unsupported("hdfs")),
        })
    }
}

fn from_env(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The secret, or what the environment has; nothing if stores use their own.
fn sent(send: SendCredentials, set: &Secret, variable: &str) -> String {
    match send {
        SendCredentials::No => String::new(),
        SendCredentials::Yes if !set.is_empty() => set.reveal().to_owned(),
        SendCredentials::Yes => from_env(variable),
    }
}

fn s3_to_proto(bucket: &str, prefix: &str, options: &S3Options, send: SendCredentials) -> pb::S3 {
    let keys = match send {
        SendCredentials::Yes => aws::lasting_keys(&options.into()),
        SendCredentials::No => None,
    };
    let (access_key, secret_access_key, session_token) = keys.unwrap_or_default();
    pb::S3 {
        endpoint: options.endpoint.clone(),
        region: options.region.clone(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        storage_class: options.storage_class.clone(),
        sse: options.sse.clone(),
        acl: options.acl.clone(),
        access_key,
        secret_access_key,
        force_path_style: options.path_style(),
        sse_kms_key_id: options.sse_kms_key_id.clone(),
        role_arn: options.role_arn.clone(),
        external_id: options.external_id.clone(),
        object_lock_enabled: options.object_lock_enabled,
        session_token,
        provider: options.provider.clone(),
        profile: options.profile.clone(),
    }
}

fn s3_from_proto(s3: &pb::S3) -> S3Options {
    S3Options {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        storage_class: s3.storage_class.clone(),
        sse: s3.sse.clone(),
        sse_kms_key_id: s3.sse_kms_key_id.clone(),
        acl: s3.acl.clone(),
        provider: s3.provider.clone(),
        role_arn: s3.role_arn.clone(),
        external_id: s3.external_id.clone(),
        profile: s3.profile.clone(),
        access_key: Secret::new(s3.access_key.clone()),
        secret_access_key: Secret::new(s3.secret_access_key.clone()),
        session_token: Secret::new(s3.session_token.clone()),
        force_path_style: Some(s3.force_path_style),
        use_accelerate_endpoint: false,
        object_lock_enabled: s3.object_lock_enabled,
    }
}

fn gcs_to_proto(
    bucket: &str,
    prefix: &str,
    options: &GcsOptions,
    send: SendCredentials,
) -> Result<pb::Gcs, BackendError> {
    let credentials_blob = match send {
        SendCredentials::No => String::new(),
        SendCredentials::Yes if !options.credentials_blob.is_empty() => {
            options.credentials_blob.reveal().to_owned()
        }
        SendCredentials::Yes => {
            let file = google_credentials::file(&Environment::Process, &options.credentials_file);
            match file {
                None => String::new(),
                Some(path) => std::fs::read_to_string(&path).map_err(|error| {
                    BackendError::CredentialsFile {
                        path: path.display().to_string(),
                        reason: error.to_string(),
                    }
                })?,
            }
        }
    };
    Ok(pb::Gcs {
        endpoint: options.endpoint.clone(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        storage_class: options.storage_class.clone(),
        predefined_acl: options.predefined_acl.clone(),
        credentials_blob,
    })
}

fn azure_to_proto(
    container: &str,
    prefix: &str,
    options: &AzureOptions,
    send: SendCredentials,
) -> Result<pb::AzureBlobStorage, BackendError> {
    let encryption_key = match options.encryption_key.reveal() {
        "" => from_env("AZURE_ENCRYPTION_KEY"),
        key => key.to_owned(),
    };
    let encryption_key = match encryption_key.as_str() {
        "" => None,
        key => {
            let bytes = BASE64_STANDARD
                .decode(key)
                .map_err(|_| BackendError::EncryptionKey)?;
            Some(pb::AzureCustomerKey {
                encryption_key: key.to_owned(),
                encryption_key_sha256: BASE64_STANDARD.encode(Sha256::digest(bytes)),
            })
        }
    };
    let account_name = match (options.account_name.as_str(), send) {
        ("", SendCredentials::Yes) => from_env("AZURE_STORAGE_ACCOUNT"),
        (name, _) => name.to_owned(),
    };
    // A signature goes before the key; sending both would say two things.
    let access_sig = sent(send, &options.sas_token, "AZURE_STORAGE_SAS_TOKEN");
    let shared_key = match access_sig.as_str() {
        "" => sent(send, &options.account_key, "AZURE_STORAGE_KEY"),
        _ => String::new(),
    };
    Ok(pb::AzureBlobStorage {
        endpoint: options.endpoint.clone(),
        bucket: container.to_owned(),
        prefix: prefix.to_owned(),
        storage_class: options.access_tier.clone(),
        account_name,
        shared_key,
        access_sig,
        encryption_scope: options.encryption_scope.clone(),
        encryption_key,
    })
}

fn azure_from_proto(azure: &pb::AzureBlobStorage) -> AzureOptions {
    let key = azure
        .encryption_key
        .as_ref()
        .map(|key| key.encryption_key.clone());
    AzureOptions {
        endpoint: azure.endpoint.clone(),
        access_tier: azure.storage_class.clone(),
        account_name: azure.account_name.clone(),
        account_key: Secret::new(azure.shared_key.clone()),
        sas_token: Secret::new(azure.access_sig.clone()),
        encryption_scope: azure.encryption_scope.clone(),
        encryption_key: Secret::new(key.unwrap_or_default()),
    }
}
