//! Storage URLs, in the forms that the official tool takes.
//!
//! `local://`, `file://` or a bare path; `s3://`, `ks3://`, `oss://`; `gcs://`, `gs://`;
//! `azure://`, `azblob://`; `noop://`; and `memory://NAME` for tests and embedded use. Settings
//! stand in the query, `_` and `-` and case being the same, and go before those of flags.

use std::path::{Path, PathBuf};

use br_types::{Classify, Code, Kind};
use url::Url;

use crate::{AzureOptions, Backend, GcsOptions, S3Options, Secret, StorageOptions};

#[cfg(test)]
mod tests;

/// A storage URL that cannot be used. The text never has the URL's query, which can hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing was given.
    #[error("no external storage is given")]
    Missing,
    /// It is not a URL.
    #[error("the storage URL cannot be read: {0}")]
    Syntax(String),
    /// It has another scheme than those known.
    #[error("the storage URL begins with {0}://, which is none of local, s3, gcs, azure, noop")]
    Scheme(String),
    /// HDFS is written by TiKV through a shell command; there is no such thing here.
    #[error("HDFS as external storage is not supported")]
    Hdfs,
    /// No bucket, container or name.
    #[error("the storage URL names no {0}")]
    NoBucket(&'static str),
    /// User name or password before the host.
    #[error("the storage URL has a user name in it")]
    UserInfo,
    /// A value of a setting is wrong.
    #[error("the storage setting {setting} is wrong: {reason}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The directory does not resolve.
    #[error("the directory {path:?} cannot be resolved: {reason}")]
    Directory {
        /// As given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Classify for UrlError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn code(&self) -> Code {
        Code::STORAGE_INVALID_CONFIG
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            UrlError::Missing => "pass --storage, for example -s local:///backups/monday".into(),
            UrlError::Hdfs => "use a mounted directory, S3, GCS or Azure".into(),
            UrlError::UserInfo => {
                "pass keys as settings, such as ?access-key=…, or in the environment".into()
            }
            _ => "write it like local:///dir, s3://bucket/prefix, gcs://bucket/prefix or \
                  azure://container/prefix"
                .into(),
        })
    }
}

impl Backend {
    /// Reads a storage URL; `options` are the settings of flags, which those of the URL override.
    ///
    /// A relative path is resolved against the current directory. Settings of the query that the
    /// backend does not have are warned of and skipped, as in the official tool.
    ///
    /// # Errors
    /// [`UrlError`], always of the user's making.
    pub fn parse(text: &str, options: &StorageOptions) -> Result<Backend, UrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UrlError::Missing);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return local(Path::new(text));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "local" | "file" => return local(&local_path(rest)?),
            "hdfs" => return Err(UrlError::Hdfs),
            "noop" => return Ok(Backend::Noop),
            _ => {}
        }
        // A plus in a secret is a plus, not a blank.
        let url = Url::parse(&text.replace('+', "%2B"))
            .map_err(|error| UrlError::Syntax(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::UserInfo);
        }
        let bucket = |what| {
            let host = url.host_str().filter(|host| !host.is_empty());
            host.map(decoded)
                .transpose()?
                .ok_or(UrlError::NoBucket(what))
        };
        let prefix = prefix_of(&url)?;
        match url.scheme() {
            "memory" => Ok(Backend::Memory {
                name: bucket("name")?,
                prefix,
            }),
            "s3" | "ks3" | "oss" => {
                let options = s3_options(&url, &options.s3)?;
                Ok(Backend::S3 {
                    bucket: bucket("bucket")?,
                    prefix,
                    options,
                })
            }
            "gcs" | "gs" => {
                let options = gcs_options(&url, &options.gcs)?;
                Ok(Backend::Gcs {
                    bucket: bucket("bucket")?,
                    prefix,
                    options,
                })
            }
            "azure" | "azblob" => {
                let options = azure_options(&url, &options.azure)?;
                Ok(Backend::Azure {
                    container: bucket("container")?,
                    prefix,
                    options,
                })
            }
            other => Err(UrlError::Scheme(other.to_owned())),
        }
    }
}

fn local(path: &Path) -> Result<Backend, UrlError> {
    let path = std::path::absolute(path).map_err(|error| UrlError::Directory {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(Backend::Local { path })
}

/// The path after `local://`: percent-decoded, without a query.
fn local_path(rest: &str) -> Result<PathBuf, UrlError> {
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    if path.is_empty() {
        return Err(UrlError::NoBucket("directory"));
    }
    Ok(PathBuf::from(decoded(path)?))
}

fn decoded(text: &str) -> Result<String, UrlError> {
    // A query pair is decoded by the URL parser; `+` is no blank outside queries.
    let pair = text
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    let text = pairs
        .next()
        .map(|(key, _)| key.into_owned())
        .unwrap_or_default();
    if text.contains('\u{FFFD}') {
        return Err(UrlError::Syntax("it is not UTF-8".into()));
    }
    Ok(text)
}

fn prefix_of(url: &Url) -> Result<String, UrlError> {
    let prefix = decoded(url.path().trim_matches('/'))?;
    if let Err(error) = object_store::path::Path::parse(&prefix) {
        return Err(UrlError::Syntax(error.to_string()));
    }
    Ok(prefix)
}

/// The settings in the query: names lower-case with `-`.
fn settings(url: &Url) -> impl Iterator<Item = (String, String)> + '_ {
    url.query_pairs().map(|(key, value)| {
        (
            key.to_ascii_lowercase().replace('_', "-"),
            value.into_owned(),
        )
    })
}

fn unknown(kind: &str, key: &str) {
    tracing::warn!(
        setting = key,
        "{kind} storage has no such setting; it is skipped"
    );
}

fn flag(setting: &'static str, value: &str) -> Result<bool, UrlError> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(UrlError::Setting {
            setting,
            reason: "it is neither true nor false",
        }),
    }
}

fn s3_options(url: &Url, flags: &S3Options) -> Result<S3Options, UrlError> {
    let mut options = flags.clone();
    match url.scheme() {
        "ks3" => options.provider = "ks".into(),
        "oss" => options.provider = "alibaba".into(),
        _ => {}
    }
    for (key, value) in settings(url) {
        match key.as_str() {
            "endpoint" => options.endpoint = value,
            "region" => options.region = value,
            "storage-class" => options.storage_class = value,
            "sse" => options.sse = value,
            "sse-kms-key-id" => options.sse_kms_key_id = value,
            "acl" => options.acl = value,
            "provider" => options.provider = value,
            "role-arn" => options.role_arn = value,
            "external-id" => options.external_id = value,
            "profile" => options.profile = value,
            "access-key" => options.access_key = Secret::new(value),
            "secret-access-key" => options.secret_access_key = Secret::new(value),
            "session-token" => options.session_token = Secret::new(value),
            "force-path-style" => {
                options.force_path_style = Some(flag("force-path-style", &value)?);
            }
            "use-accelerate-endpoint" => {
                options.use_accelerate_endpoint = flag("use-accelerate-endpoint", &value)?;
            }
            "object-lock-enabled" => {
                options.object_lock_enabled = flag("object-lock-enabled", &value)?;
            }
            other => unknown("S3", other),
        }
    }
    if options.access_key.is_empty() != options.secret_access_key.is_empty() {
        return Err(UrlError::Setting {
            setting: "access-key",
            reason: "access-key and secret-access-key go together",
        });
    }
    check_endpoint(&options.endpoint)?;
    if !is_region(&options.region) {
        return Err(UrlError::Setting {
            setting: "region",
            reason: "it is no name of a region, such as us-east-1",
        });
    }
    if options.region.is_empty() && !options.endpoint.is_empty() {
        options.region = "us-east-1".into();
    }
    Ok(options)
}

fn gcs_options(url: &Url, flags: &GcsOptions) -> Result<GcsOptions, UrlError> {
    let mut options = flags.clone();
    for (key, value) in settings(url) {
        match key.as_str() {
            "endpoint" => options.endpoint = value,
            "storage-class" => options.storage_class = value,
            "predefined-acl" => options.predefined_acl = value,
            "credentials-file" => options.credentials_file = value,
            other => unknown("GCS", other),
        }
    }
    check_endpoint(&options.endpoint)?;
    Ok(options)
}

fn azure_options(url: &Url, flags: &AzureOptions) -> Result<AzureOptions, UrlError> {
    let mut options = flags.clone();
    for (key, value) in settings(url) {
        match key.as_str() {
            "endpoint" => options.endpoint = value,
            "access-tier" => options.access_tier = value,
            "account-name" => options.account_name = value,
            "account-key" => options.account_key = Secret::new(value),
            "sas-token" => options.sas_token = Secret::new(value),
            "encryption-scope" => options.encryption_scope = value,
            "encryption-key" => options.encryption_key = Secret::new(value),
            other => unknown("Azure", other),
        }
    }
    check_endpoint(&options.endpoint)?;
    Ok(options)
}

/// Whether the text can be a region, which becomes part of a host's name; none is fine.
pub(crate) fn is_region(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn check_endpoint(endpoint: &str) -> Result<(), UrlError> {
    if endpoint.is_empty() {
        return Ok(());
    }
    let wrong = |reason| UrlError::Setting {
        setting: "endpoint",
        reason,
    };
    let url =
        Url::parse(endpoint).map_err(|_| wrong("it is not a URL such as http://host:port"))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(host)) if !host.is_empty() => Ok(()),
        ("http" | "https", _) => Err(wrong("it has no host")),
        _ => Err(wrong("it begins neither with http:// nor with https://")),
    }
}
