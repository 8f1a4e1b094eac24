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
