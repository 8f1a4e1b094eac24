use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use br_rt::Rt;
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder, split_sas};

use super::{Clients, client_options};
use crate::{
    AzureOptions, Failure,
    azure_identity::{Application, Managed},
    environment::Environment,
    http::{Connector, ExtraHeaders, Signer},
    renewed::Renewed,
};

pub(super) fn open(
    rt: &Rt,
    container: &str,
    options: &AzureOptions,
) -> Result<Clients<MicrosoftAzure>, Failure> {
    let headers = ExtraHeaders::new("x-ms-encryption-scope", &options.encryption_scope)?;
    let environment = &Environment::Process;
    let mut builder = credentials(rt, environment, options)?;
    let account = match options.account_name.as_str() {
        "" => environment.get("AZURE_STORAGE_ACCOUNT"),
        name => Some(name.to_owned()),
    };
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if !options.endpoint.is_empty() {
        builder = builder.with_endpoint(options.endpoint.trim_end_matches('/').to_owned());
    }
    let encryption_key = match options.encryption_key.reveal() {
        "" => environment.get("AZURE_ENCRYPTION_KEY"),
        key => Some(key.to_owned()),
    };
    if let Some(key) = encryption_key {
        builder = builder.with_encryption_key(key);
    }
    let account = builder
        .get_config_value(&AzureConfigKey::AccountName)
        .ok_or_else(|| {
            let why = "no storage account is named: by account-name in the URL, --azblob.account-name or \
                       AZURE_STORAGE_ACCOUNT";
            Failure::Settings(why.to_owned())
        })?;
    let builder = builder
        .with_container_name(container)
        .with_client_options(client_options(&options.endpoint))
        .with_http_connector(Connector::new(rt, headers.clone()));
    let clients = Clients::build(|retry| builder.clone().with_retry(retry).build())?;
    let credentials = clients.patient.credentials().clone();
    headers.signed_by(Signer::Azure(credentials, account));
    Ok(clients)
}

/// A builder with the credentials of the settings, or else of the environment in the order of the
/// official tool: those of an application, a key, the token of a workload, the identity of the machine.
fn credentials(
    rt: &Rt,
    environment: &Environment,
    options: &AzureOptions,
) -> Result<MicrosoftAzureBuilder, Failure> {
    if !options.sas_token.is_empty() {
        let wrong = |_| Failure::Settings("the SAS token is not of the form a=b&c=d".to_owned());
        let pairs = split_sas(options.sas_token.reveal()).map_err(wrong)?;
        return Ok(MicrosoftAzureBuilder::new().with_sas_authorization(pairs));
    }
    if !options.account_key.is_empty() {
        let key = options.account_key.reveal();
        return Ok(MicrosoftAzureBuilder::new().with_access_key(base64_key(key)?));
    }
    let builder = MicrosoftAzureBuilder::from_env();
    if let Some(application) = Application::with_secret(rt, environment)? {
        return Ok(builder.with_credentials(Arc::new(Renewed::new(rt, application))));
    }
    if let Some(key) = environment.get("AZURE_STORAGE_KEY") {
        return Ok(builder.with_access_key(base64_key(&key)?));
    }
    let others = [
        AzureConfigKey::AccessKey,
        AzureConfigKey::SasKey,
        AzureConfigKey::Token,
    ];
    if others
        .iter()
        .any(|key| builder.get_config_value(key).is_some())
    {
        return Ok(builder);
    }
    Ok(match Application::of_pod(rt, environment)? {
        Some(pod) => builder.with_credentials(Arc::new(Renewed::new(rt, pod))),
        None => {
            let managed = Managed::find(rt, environment)?;
            builder.with_credentials(Arc::new(Renewed::new(rt, managed)))
        }
    })
}

fn base64_key(key: &str) -> Result<&str, Failure> {
    match BASE64_STANDARD.decode(key) {
        Ok(_) => Ok(key),
        Err(_) => Err(Failure::Settings(
            "the key of the storage account is not base64".to_owned(),
        )),
    }
}
