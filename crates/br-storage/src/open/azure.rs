use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder, split_sas};

use super::{client_options, retry_config, settings, unsupported};
use crate::{AzureOptions, Failure};

pub(super) fn open(container: &str, options: &AzureOptions) -> Result<MicrosoftAzure, Failure> {
    if !options.encryption_scope.is_empty() {
        return Err(unsupported("Azure", "encryption-scope"));
    }
    let explicit = !options.sas_token.is_empty() || !options.account_key.is_empty();
    let mut builder = if explicit {
        MicrosoftAzureBuilder::new()
    } else {
        MicrosoftAzureBuilder::from_env()
    };
    if !options.sas_token.is_empty() {
        let pairs = split_sas(options.sas_token.reveal()).map_err(settings)?;
        builder = builder.with_sas_authorization(pairs);
    } else if !options.account_key.is_empty() {
        builder = builder.with_access_key(options.account_key.reveal());
    }
    if !options.account_name.is_empty() {
        builder = builder.with_account(&options.account_name);
    } else if explicit && let Ok(account) = std::env::var("AZURE_STORAGE_ACCOUNT") {
        builder = builder.with_account(account);
    }
    if !options.endpoint.is_empty() {
        builder = builder.with_endpoint(options.endpoint.trim_end_matches('/').to_owned());
    }
    if !options.encryption_key.is_empty() {
        builder = builder.with_encryption_key(options.encryption_key.reveal());
    }
    builder
        .with_container_name(container)
        .with_client_options(client_options(&options.endpoint))
        .with_retry(retry_config())
        .build()
        .map_err(settings)
}
