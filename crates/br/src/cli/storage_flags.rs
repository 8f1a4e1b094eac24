use br_format::resume;
use br_storage::{
    AzureOptions, Backend, GcsOptions, S3Options, SealKeys, Secret, StorageOptions,
    parse_master_key,
};
use clap::{Args, ValueEnum};

use crate::{edge::Outcome, value::Switch};

/// Where the external storage is.
#[derive(Args)]
#[command(next_help_heading = "External storage")]
pub(super) struct StorageFlags {
    /// URL of the external storage: local:///dir, s3://bucket/prefix, gcs://…, azure://…
    #[arg(
        short,
        long,
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    storage: String,
    /// Send the credentials of the storage to the stores.
    #[arg(short = 'c', long, global = true, default_value = "true")]
    pub(super) send_credentials_to_tikv: Switch,
    #[command(flatten)]
    s3: S3Flags,
    #[command(flatten)]
    seal: SealFlags,
}

/// Whether storages are sealed.
#[derive(Args)]
#[command(next_help_heading = "Encryption")]
struct SealFlags {
    /// Seal the storage: every object is encrypted and authenticated, and only this tool and its own
    /// cluster read it. URLs of master keys, separated by commas, any of which opens it: local:///file
    /// or aws-kms:///KEY-ID?REGION=…
    #[arg(
        long,
        global = true,
        env = "BR_SEAL_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    seal_key: Vec<String>,
    /// Which storages of a command that reads a backup and a log are sealed.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "all",
        value_name = "WHICH"
    )]
    sealed: Sealed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sealed {
    All,
    Backup,
    Log,
}

/// What a storage holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Backup,
    Log,
    /// What users read with other tools: never sealed.
    Text,
}

/// `--s3.*`, which every command takes.
#[derive(Args)]
#[command(next_help_heading = "External storage: S3")]
struct S3Flags {
    /// URL of the server.
    #[arg(
        long = "s3.endpoint",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    s3_endpoint: String,
    /// Region.
    #[arg(
        long = "s3.region",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    s3_region: String,
    /// Storage class of new objects.
    #[arg(
        long = "s3.storage-class",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    s3_storage_class: String,
    /// Encryption by the server: AES256 or aws:kms.
    #[arg(
        long = "s3.sse",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    s3_sse: String,
    /// Key for aws:kms.
    #[arg(
        long = "s3.sse-kms-key-id",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "ID"
    )]
    s3_sse_kms_key_id: String,
    /// Canned access control list of new objects.
    #[arg(
        long = "s3.acl",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    s3_acl: String,
    /// Whose S3 it is: aws, alibaba, ceph, …
    #[arg(
        long = "s3.provider",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    s3_provider: String,
    /// Role to assume.
    #[arg(
        long = "s3.role-arn",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "ARN"
    )]
    s3_role_arn: String,
    /// Id that the role asks for.
    #[arg(
        long = "s3.external-id",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "ID"
    )]
    s3_external_id: String,
    /// Profile in the shared configuration files.
    #[arg(
        long = "s3.profile",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    s3_profile: String,
}

/// `--gcs.*` and `--azblob.*`.
#[derive(Args)]
#[command(next_help_heading = "External storage: GCS and Azure")]
pub(super) struct CloudFlags {
    /// URL of the server.
    #[arg(
        long = "gcs.endpoint",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    gcs_endpoint: String,
    /// Storage class of new objects.
    #[arg(
        long = "gcs.storage-class",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    gcs_storage_class: String,
    /// Predefined access control list of new objects.
    #[arg(
        long = "gcs.predefined-acl",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    gcs_predefined_acl: String,
    /// File with the credentials.
    #[arg(
        long = "gcs.credentials-file",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "FILE"
    )]
    gcs_credentials_file: String,
    /// URL of the server.
    #[arg(
        long = "azblob.endpoint",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    azblob_endpoint: String,
    /// Access tier of new objects.
    #[arg(
        long = "azblob.access-tier",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    azblob_access_tier: String,
    /// Storage account.
    #[arg(
        long = "azblob.account-name",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    azblob_account_name: String,
    /// Shared key.
    #[arg(
        long = "azblob.account-key",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "KEY"
    )]
    azblob_account_key: String,
    /// Shared access signature.
    #[arg(
        long = "azblob.sas-token",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "TOKEN"
    )]
    azblob_sas_token: String,
    /// Encryption scope.
    #[arg(
        long = "azblob.encryption-scope",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    azblob_encryption_scope: String,
    /// Encryption key of the customer.
    #[arg(
        long = "azblob.encryption-key",
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "KEY"
    )]
    azblob_encryption_key: String,
}

impl StorageFlags {
    /// The URL, as given.
    pub(super) fn url(&self) -> &str {
        &self.storage
    }

    /// The flags as they count for going on with a backup.
    pub(super) fn resume_options(
        &self,
        cloud: &CloudFlags,
    ) -> (resume::S3Options, resume::GcsOptions, resume::AzureOptions) {
        let s3 = resume::S3Options {
            endpoint: self.s3.s3_endpoint.clone(),
            region: self.s3.s3_region.clone(),
            storage_class: self.s3.s3_storage_class.clone(),
            sse: self.s3.s3_sse.clone(),
            sse_kms_key_id: self.s3.s3_sse_kms_key_id.clone(),
            acl: self.s3.s3_acl.clone(),
            provider: self.s3.s3_provider.clone(),
            role_arn: self.s3.s3_role_arn.clone(),
            external_id: self.s3.s3_external_id.clone(),
            profile: Some(self.s3.s3_profile.clone()),
            ..resume::S3Options::default()
        };
        let gcs = resume::GcsOptions {
            endpoint: cloud.gcs_endpoint.clone(),
            storage_class: cloud.gcs_storage_class.clone(),
            predefined_acl: cloud.gcs_predefined_acl.clone(),
            credentials_file: cloud.gcs_credentials_file.clone(),
        };
        let azure = resume::AzureOptions {
            endpoint: cloud.azblob_endpoint.clone(),
            account_name: cloud.azblob_account_name.clone(),
            account_key: cloud.azblob_account_key.clone(),
            access_tier: cloud.azblob_access_tier.clone(),
            sas_token: cloud.azblob_sas_token.clone(),
            encryption_scope: cloud.azblob_encryption_scope.clone(),
            encryption_key: cloud.azblob_encryption_key.clone(),
        };
        (s3, gcs, azure)
    }

    /// The storage that `--storage` names.
    pub(super) fn backend(&self, cloud: &CloudFlags, holds: Holds) -> Outcome<Backend> {
        self.backend_at(&self.storage, cloud, holds)
    }

    /// The log that `--storage` names, for commands that take only the flags of S3; settings of others
    /// can be in the URL.
    pub(super) fn log_backend(&self) -> Outcome<Backend> {
        let options = StorageOptions {
            s3: self.s3.options(),
            ..StorageOptions::default()
        };
        let backend = Backend::parse(&self.storage, &options)?;
        self.seal.seal(backend, Holds::Log)
    }

    /// The master keys of `--seal-key`.
    pub(super) fn seal_keys(&self) -> Outcome<SealKeys> {
        seal_keys(&self.seal.seal_key)
    }

    /// The storage of that URL, with the settings of the flags.
    pub(super) fn backend_at(
        &self,
        url: &str,
        cloud: &CloudFlags,
        holds: Holds,
    ) -> Outcome<Backend> {
        let options = StorageOptions {
            s3: self.s3.options(),
            gcs: cloud.gcs(),
            azure: cloud.azure(),
        };
        self.seal.seal(Backend::parse(url, &options)?, holds)
    }
}

impl SealFlags {
    fn seal(&self, backend: Backend, holds: Holds) -> Outcome<Backend> {
        let is_sealed = match holds {
            Holds::Backup => self.sealed != Sealed::Log,
            Holds::Log => self.sealed != Sealed::Backup,
            Holds::Text => false,
        };
        match is_sealed {
            true => Ok(backend.sealed(seal_keys(&self.seal_key)?)),
            false => Ok(backend),
        }
    }
}

/// Reads URLs of master keys.
pub(super) fn seal_keys(urls: &[String]) -> Outcome<SealKeys> {
    let urls = urls.iter().map(|url| url.trim());
    let keys = urls.filter(|url| !url.is_empty()).map(parse_master_key);
    Ok(SealKeys::new(keys.collect::<Result<_, _>>()?))
}

impl S3Flags {
    fn options(&self) -> S3Options {
        S3Options {
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            storage_class: self.s3_storage_class.clone(),
            sse: self.s3_sse.clone(),
            sse_kms_key_id: self.s3_sse_kms_key_id.clone(),
            acl: self.s3_acl.clone(),
            provider: self.s3_provider.clone(),
            role_arn: self.s3_role_arn.clone(),
            external_id: self.s3_external_id.clone(),
            profile: self.s3_profile.clone(),
            ..S3Options::default()
        }
    }
}

impl CloudFlags {
    fn gcs(&self) -> GcsOptions {
        GcsOptions {
            endpoint: self.gcs_endpoint.clone(),
            storage_class: self.gcs_storage_class.clone(),
            predefined_acl: self.gcs_predefined_acl.clone(),
            credentials_file: self.gcs_credentials_file.clone(),
            credentials_blob: Secret::default(),
        }
    }

    fn azure(&self) -> AzureOptions {
        AzureOptions {
            endpoint: self.azblob_endpoint.clone(),
            access_tier: self.azblob_access_tier.clone(),
            account_name: self.azblob_account_name.clone(),
            account_key: Secret::new(self.azblob_account_key.clone()),
            sas_token: Secret::new(self.azblob_sas_token.clone()),
            encryption_scope: self.azblob_encryption_scope.clone(),
            encryption_key: Secret::new(self.azblob_encryption_key.clone()),
        }
    }
}
