use std::sync::Arc;

use br_rt::Rt;
use object_store::{
    StaticCredentialProvider,
    gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder},
};

use super::{Clients, client_options};
use crate::{
    Failure, GcsOptions,
    environment::Environment,
    google_credentials::{Found, Machine, find},
    http::{Connector, ExtraHeaders, Signer},
    renewed::Renewed,
};

pub(super) fn open(
    rt: &Rt,
    bucket: &str,
    options: &GcsOptions,
) -> Result<Clients<GoogleCloudStorage>, Failure> {
    let headers = ExtraHeaders::new("x-goog-acl", &acl(&options.predefined_acl))?;
    headers.signed_by(Signer::Nobody);
    let mut builder = credentials(rt, &Environment::Process, options)?;
    if !options.endpoint.is_empty() {
        // The official tool speaks the JSON interface, whose path some add to the endpoint.
        let base = options
            .endpoint
            .trim_end_matches('/')
            .trim_end_matches("/storage/v1");
        builder = builder.with_base_url(base);
    }
    let builder = builder
        .with_bucket_name(bucket)
        .with_client_options(client_options(&options.endpoint))
        .with_http_connector(Connector::new(rt, headers));
    Clients::build(|retry| builder.clone().with_retry(retry).build())
}

fn credentials(
    rt: &Rt,
    environment: &Environment,
    options: &GcsOptions,
) -> Result<GoogleCloudStorageBuilder, Failure> {
    let builder = GoogleCloudStorageBuilder::new();
    if options.endpoint.starts_with("http://") && !has_credentials(environment, options) {
        // Nobody wants a token in plain text; who does names a file with credentials.
        let nobody = GcpCredential {
            bearer: String::new(),
        };
        return Ok(builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody))));
    }
    crate::install_tls_provider();
    Ok(match find(rt, environment, options)? {
        Found::ServiceAccount(key) => builder.with_service_account_key(key.reveal()),
        Found::User(user) => builder.with_credentials(Arc::new(Renewed::new(rt, user))),
        Found::Elsewhere => {
            let machine = Machine::find(rt, environment)?;
            builder.with_credentials(Arc::new(Renewed::new(rt, machine)))
        }
    })
}

fn has_credentials(environment: &Environment, options: &GcsOptions) -> bool {
    !options.credentials_blob.is_empty()
        || !options.credentials_file.is_empty()
        || environment.get("GOOGLE_APPLICATION_CREDENTIALS").is_some()
}

/// The name that the XML interface has for what the JSON interface, which the official tool speaks,
/// calls `publicRead` and the like.
fn acl(predefined: &str) -> String {
    let mut name = String::new();
    for letter in predefined.chars() {
        if letter.is_ascii_uppercase() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_access_control_lists() {
        assert_eq!(
            super::acl("bucketOwnerFullControl"),
            "bucket-owner-full-control"
        );
        assert_eq!(super::acl("private"), "private");
        assert_eq!(super::acl(""), "");
    }
}
