use std::{fmt, path::PathBuf};

use crate::{SealKeys, Secret};

/// Where external storage lies, with everything that is needed to open it.
///
/// Holds secrets; `Debug` hides them and `Display` shows only the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nowhere: writes are swallowed, nothing can be read.
    Noop,
    /// A directory; absolute.
    Local {
        /// The directory.
        path: PathBuf,
    },
    /// Memory of this process, shared by all who open the same name.
    Memory {
        /// The name.
        name: String,
        /// Objects lie under it; without `/` at either end.
        prefix: String,
    },
    /// S3 and what speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// Objects lie under it; without `/` at either end.
        prefix: String,
        /// The rest.
        options: S3Options,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// Objects lie under it; without `/` at either end.
        prefix: String,
        /// The rest.
        options: GcsOptions,
    },
    /// Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// Objects lie under it; without `/` at either end.
        prefix: String,
        /// The rest.
        options: AzureOptions,
    },
    /// One of the others, with every object sealed ([`br_format::sealed`]).
    Sealed {
        /// Where it lies; not sealed itself.
        inner: Box<Backend>,
        /// What opens its keyring.
        keys: SealKeys,
    },
}

/// How a store spreads the names of its SST files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameLayout {
    /// `{store_id}/{region_id}_…`: local and S3.
    SubDirectories,
    /// `{store_id}_{region_id}_…`: everything else.
    Flat,
}

/// The settings of each kind of backend as flags give them; those in a URL go before these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageOptions {
    /// `--s3.*`.
    pub s3: S3Options,
    /// `--gcs.*`.
    pub gcs: GcsOptions,
    /// `--azblob.*`.
    pub azure: AzureOptions,
}

/// Settings of S3; empty text is "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options {
    /// URL of the server, scheme and host; empty: Amazon's own.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// Storage class of new objects.
    pub storage_class: String,
    /// Encryption by the server: `AES256` or `aws:kms`.
    pub sse: String,
    /// The key for `aws:kms`.
    pub sse_kms_key_id: String,
    /// Canned access control list of new objects.
    pub acl: String,
    /// Whose S3 it is: `aws`, `alibaba`, `ceph`, …
    pub provider: String,
    /// The role to assume.
    pub role_arn: String,
    /// The id that the role asks for.
    pub external_id: String,
    /// The profile in the shared configuration files.
    pub profile: String,
    /// Access key; empty: from the environment.
    pub access_key: Secret,
    /// Secret access key; empty: from the environment.
    pub secret_access_key: Secret,
    /// Token of a temporary session.
    pub session_token: Secret,
    /// `https://host/bucket` rather than `https://bucket.host`; `None`: what the provider likes.
    pub force_path_style: Option<bool>,
    /// Amazon's transfer acceleration.
    pub use_accelerate_endpoint: bool,
    /// The bucket locks objects, so that uploads carry checksums.
    pub object_lock_enabled: bool,
}

impl S3Options {
    /// How requests name the bucket: the setting, or what the provider is known to want.
    pub fn path_style(&self) -> bool {
        if let Some(forced) = self.force_path_style {
            return forced;
        }
        let virtual_hosts_only = ["alibaba", "netease", "tencent"];
        let amazon = self.provider == "aws"
            || !self.role_arn.is_empty()
            || self.endpoint.contains(".amazonaws.com");
        !(virtual_hosts_only.contains(&self.provider.as_str())
            || self.use_accelerate_endpoint
            || amazon)
    }
}

/// Settings of GCS; empty text is "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcsOptions {
    /// URL of the server.
    pub endpoint: String,
    /// Storage class of new objects.
    pub storage_class: String,
    /// Predefined access control list of new objects.
    pub predefined_acl: String,
    /// The file with the credentials.
    pub credentials_file: String,
    /// The credentials themselves, JSON, as a request carries them.
    pub credentials_blob: Secret,
}

/// Settings of Azure; empty text is "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureOptions {
    /// URL of the server.
    pub endpoint: String,
    /// Access tier of new objects.
    pub access_tier: String,
    /// The storage account.
    pub account_name: String,
    /// The shared key.
    pub account_key: Secret,
    /// Shared access signature; goes before the shared key.
    pub sas_token: Secret,
    /// Name of the encryption scope.
    pub encryption_scope: String,
    /// Encryption key of the customer, 32 bytes in base64.
    pub encryption_key: Secret,
}

impl Backend {
    /// How a store names its files there.
    pub fn layout(&self) -> NameLayout {
        match self {
            Backend::Local { .. } | Backend::Memory { .. } | Backend::S3 { .. } => {
                NameLayout::SubDirectories
            }
            Backend::Noop | Backend::Gcs { .. } | Backend::Azure { .. } => NameLayout::Flat,
            Backend::Sealed { inner, .. } => inner.layout(),
        }
    }

    /// Whether nothing that is written there can be read.
    pub fn is_noop(&self) -> bool {
        matches!(self.unsealed(), Backend::Noop)
    }

    /// The same place with every object sealed; one without keys or without objects stays as it is.
    #[must_use]
    pub fn sealed(self, keys: SealKeys) -> Backend {
        match self {
            Backend::Sealed { inner, .. } => inner.sealed(keys),
            Backend::Noop => Backend::Noop,
            backend if keys.is_empty() => backend,
            backend => Backend::Sealed {
                inner: Box::new(backend),
                keys,
            },
        }
    }

    /// The same place with its objects as they are stored.
    pub fn unsealed(&self) -> &Backend {
        match self {
            Backend::Sealed { inner, .. } => inner,
            backend => backend,
        }
    }

    /// Whether both are the same place, however they are opened.
    pub fn is_same_place(&self, other: &Backend) -> bool {
        let place = |backend: &Backend| {
            let endpoint = match backend.unsealed() {
                Backend::S3 { options, .. } => options.endpoint.clone(),
                Backend::Gcs { options, .. } => options.endpoint.clone(),
                Backend::Azure { options, .. } => options.endpoint.clone(),
                _ => String::new(),
            };
            (
                backend.to_string(),
                endpoint.trim_end_matches('/').to_owned(),
            )
        };
        place(self) == place(other)
    }

    /// Whether every object there is sealed.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Backend::Sealed { .. })
    }

    /// A folder of it, as a place of its own. `folder` has no `/` at either end; the empty one is
    /// the place itself.
    #[must_use]
    pub fn below(&self, folder: &str) -> Backend {
        let mut below = self.clone();
        if folder.is_empty() {
            return below;
        }
        match &mut below {
            Backend::Noop => {}
            Backend::Local { path } => path.push(folder),
            Backend::Sealed { inner, .. } => **inner = inner.below(folder),
            Backend::Memory { prefix, .. }
            | Backend::S3 { prefix, .. }
            | Backend::Gcs { prefix, .. }
            | Backend::Azure { prefix, .. } => {
                if !prefix.is_empty() {
                    prefix.push('/');
                }
                prefix.push_str(folder);
            }
        }
        below
    }
}

/// The place as a URL, without settings and secrets.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Backend::Noop => return f.write_str("noop://"),
            Backend::Sealed { inner, .. } => return inner.fmt(f),
            Backend::Local { path } => return write!(f, "local://{}", path.display()),
            Backend::Memory { name, prefix } => ("memory", name, prefix),
            Backend::S3 { bucket, prefix, .. } => ("s3", bucket, prefix),
            Backend::Gcs { bucket, prefix, .. } => ("gcs", bucket, prefix),
            Backend::Azure {
                container, prefix, ..
            } => ("azure", container, prefix),
        };
        match prefix.as_str() {
            "" => write!(f, "{scheme}://{bucket}"),
            prefix => write!(f, "{scheme}://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_places() {
        let memory = |prefix: &str| Backend::Memory {
            name: "m".to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(memory("").below("a/b"), memory("a/b"));
        assert_eq!(memory("x").below("a"), memory("x/a"));
        assert_eq!(memory("x").below(""), memory("x"));
        let local = |path: &str| Backend::Local { path: path.into() };
        assert_eq!(local("/x").below("a/b"), local("/x/a/b"));
    }
}
