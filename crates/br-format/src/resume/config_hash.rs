use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::json;
use crate::crypter::Crypter;

/// SHA-256 over the options that must be the same for a backup to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigHash(pub [u8; 32]);

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Those options, in the order and with the names of the official tool, whose JSON is hashed.
///
/// Fields hold what the user gave, before anything is resolved. `Debug` is left out: there are
/// credentials in it.
#[derive(Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ResumeConfig {
    /// `--lastbackupts`.
    pub last_backup_ts: u64,
    /// `--ignore-stats`.
    pub ignore_stats: bool,
    /// `--use-checkpoint`.
    pub use_checkpoint: bool,
    /// `--s3.*`.
    pub s3: S3Options,
    /// `--gcs.*`.
    pub gcs: GcsOptions,
    /// `--azblob.*`.
    pub azblob: AzureOptions,
    /// `--storage`, as given.
    pub storage: String,
    /// `--pd`.
    pub pd: Vec<String>,
    /// `--send-credentials-to-tikv`.
    pub send_credentials_to_tikv: bool,
    /// Whether the user asked for no credentials at all.
    pub no_credentials: bool,
    /// `--filter`.
    pub filter_strings: Vec<String>,
    /// `--crypter.*`.
    #[serde(serialize_with = "cipher")]
    pub cipher: Crypter,
    /// `--keyspace-name`.
    pub keyspace_name: String,
}

/// Options of S3, by their flags.
#[allow(missing_docs, reason = "each field is the flag --s3.<name>")]
#[derive(Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct S3Options {
    pub endpoint: String,
    pub region: String,
    pub storage_class: String,
    pub sse: String,
    pub sse_kms_key_id: String,
    pub acl: String,
    pub access_key: String,
    pub secret_access_key: String,
    pub session_token: String,
    pub provider: String,
    pub force_path_style: bool,
    pub use_accelerate_endpoint: bool,
    pub role_arn: String,
    pub external_id: String,
    /// Not before version 9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    pub object_lock_enabled: bool,
}

impl Default for S3Options {
    /// As without any flag.
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: String::new(),
            storage_class: String::new(),
            sse: String::new(),
            sse_kms_key_id: String::new(),
            acl: String::new(),
            access_key: String::new(),
            secret_access_key: String::new(),
            session_token: String::new(),
            provider: String::new(),
            // The official tool's flags leave it on.
            force_path_style: true,
            use_accelerate_endpoint: false,
            role_arn: String::new(),
            external_id: String::new(),
            profile: Some(String::new()),
            object_lock_enabled: false,
        }
    }
}

/// Options of GCS, by their flags.
#[allow(missing_docs, reason = "each field is the flag --gcs.<name>")]
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcsOptions {
    pub endpoint: String,
    pub storage_class: String,
    pub predefined_acl: String,
    pub credentials_file: String,
}

/// Options of Azure, by their flags.
#[allow(missing_docs, reason = "each field is the flag --azblob.<name>")]
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AzureOptions {
    pub endpoint: String,
    pub account_name: String,
    pub account_key: String,
    pub access_tier: String,
    pub sas_token: String,
    pub encryption_scope: String,
    pub encryption_key: String,
}

fn cipher<S: serde::Serializer>(crypter: &Crypter, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct CipherJson {
        cipher_type: i32,
        #[serde(with = "json::base64", skip_serializing_if = "Vec::is_empty")]
        cipher_key: Vec<u8>,
    }
    let info = crypter.to_proto();
    CipherJson {
        cipher_type: info.cipher_type,
        cipher_key: info.cipher_key,
    }
    .serialize(serializer)
}

impl ResumeConfig {
    /// The hashes for `checkpoint.meta`, by the official tool's versions, which name more options as
    /// time goes by: 8.5, and 9 with profiles of S3.
    pub fn hashes(&self) -> [ConfigHash; 2] {
        let mut earlier = self.clone();
        earlier.s3.profile = None;
        [&earlier, self].map(|config| ConfigHash(Sha256::digest(go_json(config)).into()))
    }
}

/// Go escapes `<`, `>` and `&` in JSON text.
pub(super) fn go_json(config: &ResumeConfig) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in json::encode(config).iter() {
        match byte {
            b'<' | b'>' | b'&' => escaped.extend_from_slice(format!("\\u00{byte:02x}").as_bytes()),
            _ => escaped.push(byte),
        }
    }
    escaped
}
