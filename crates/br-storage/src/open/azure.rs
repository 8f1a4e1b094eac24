use br_rt::Rt;
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder, split_sas};

use super::{Clients, client_options, settings};
use crate::{
    AzureOptions, Failure,
    http::{Connector, ExtraHeaders, Signer},
};

pub(super) fn open(
    rt: &Rt,
    container: &str,
    options: &AzureOptions,
) -> Result<Clients<MicrosoftAzure>, Failure> {
    let headers = ExtraHeaders::new("x-ms-encryption-scope", &options.encryption_scope)?;
    let mut builder = credentials(options)?;
    let account = match options.account_name.as_str() {
        "" => variable("AZURE_STORAGE_ACCOUNT"),
        name => Some(name.to_owned()),
    };
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if !options.endpoint.is_empty() {
        builder = builder.with_endpoint(options.endpoint.trim_end_matches('/').to_owned());
    }
    let encryption_key = match options.encryption_key.reveal() {
        "" => variable("AZURE_ENCRYPTION_KEY"),
        key => Some(key.to_owned()),
    };
    if let Some(key) = encryption_key {
        builder = builder.with_encryption_key(key);
    }
    let account = builder.get_config_value(&AzureConfigKey::AccountName);
    let builder = builder
        .with_container_name(container)
        .with_client_options(client_options(&options.endpoint))
        .with_http_connector(Connector::new(rt, headers.clone()));
    let clients = Clients::build(|retry| builder.clone().with_retry(retry).build())?;
    let credentials = clients.patient.credentials().clone();
    headers.signed_by(Signer::Azure(credentials, account.unwrap_or_default()));
    Ok(clients)
}

/// A builder with the credentials of the settings, or else of the environment: those of an
/// application go before a key, as in the official tool.
fn credentials(options: &AzureOptions) -> Result<MicrosoftAzureBuilder, Failure> {
    if !options.sas_token.is_empty() {
        let pairs = split_sas(options.sas_token.reveal()).map_err(settings)?;
        return Ok(MicrosoftAzureBuilder::new().with_sas_authorization(pairs));
    }
    if !options.account_key.is_empty() {
        return Ok(MicrosoftAzureBuilder::new().with_access_key(options.account_key.reveal()));
    }
    let builder = MicrosoftAzureBuilder::from_env();
    let is_application = ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"]
        .into_iter()
        .all(|name| variable(name).is_some());
    Ok(match variable("AZURE_STORAGE_KEY") {
        Some(key) if !is_application => builder.with_access_key(key),
        _ => builder,
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
