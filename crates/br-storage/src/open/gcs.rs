use std::sync::Arc;

use br_rt::Rt;
use object_store::{
    StaticCredentialProvider,
    gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder},
};

use super::{Clients, client_options};
use crate::{
    Failure, GcsOptions,
    http::{Connector, ExtraHeaders, Signer},
};

pub(super) fn open(
    rt: &Rt,
    bucket: &str,
    options: &GcsOptions,
) -> Result<Clients<GoogleCloudStorage>, Failure> {
    let headers = ExtraHeaders::new("x-goog-acl", &acl(&options.predefined_acl))?;
    headers.signed_by(Signer::Nobody);
    let mut builder = if !options.credentials_blob.is_empty() {
        GoogleCloudStorageBuilder::new().with_service_account_key(options.credentials_blob.reveal())
    } else if !options.credentials_file.is_empty() {
        GoogleCloudStorageBuilder::new().with_application_credentials(&options.credentials_file)
    } else {
        GoogleCloudStorageBuilder::from_env()
    };
    if !options.endpoint.is_empty() {
        // The official tool speaks the JSON interface, whose path some add to the endpoint.
        let base = options
            .endpoint
            .trim_end_matches('/')
            .trim_end_matches("/storage/v1");
        builder = builder.with_base_url(base);
    }
    if options.endpoint.starts_with("http://") && !has_credentials(options) {
        // Nobody wants a token in plain text; who does names a file with credentials.
        let nobody = GcpCredential {
            bearer: String::new(),
        };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    let builder = builder
        .with_bucket_name(bucket)
        .with_client_options(client_options(&options.endpoint))
        .with_http_connector(Connector::new(rt, headers));
    Clients::build(|retry| builder.clone().with_retry(retry).build())
}

fn has_credentials(options: &GcsOptions) -> bool {
    !options.credentials_blob.is_empty()
        || !options.credentials_file.is_empty()
        || std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").is_some()
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
