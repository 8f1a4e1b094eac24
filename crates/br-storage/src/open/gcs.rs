use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};

use super::{client_options, retry_config, settings, unsupported};
use crate::{Failure, GcsOptions};

pub(super) fn open(bucket: &str, options: &GcsOptions) -> Result<GoogleCloudStorage, Failure> {
    if !options.predefined_acl.is_empty() {
        return Err(unsupported("GCS", "predefined-acl"));
    }
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
    builder
        .with_bucket_name(bucket)
        .with_client_options(client_options(&options.endpoint))
        .with_retry(retry_config())
        .build()
        .map_err(settings)
}
