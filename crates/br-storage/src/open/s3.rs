use std::time::Duration;

use br_rt::Rt;
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, resolve_bucket_region,
};
use url::Url;

use super::{Clients, client_options, settings};
use crate::{
    Failure, S3Options, aws,
    environment::Environment,
    http::{Connector, ExtraHeaders, Signer},
    url::is_region,
};

/// Where a bucket is, is told at once, or the region has to be set.
const REGION_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn open(
    rt: &Rt,
    bucket: &str,
    options: &S3Options,
) -> Result<Clients<AmazonS3>, Failure> {
    let client = client_options(&options.endpoint);
    let provider = aws::provider(rt, &Environment::Process, &options.into())?;
    let headers = ExtraHeaders::new("x-amz-acl", &options.acl)?;
    // The environment's other settings hold, such as a proxy; its credentials are in the provider.
    let mut builder = AmazonS3Builder::from_env().with_credentials(provider.credentials.clone());
    let region = match region(&builder, provider.region, options) {
        Some(region) if is_region(&region) => region,
        Some(region) => {
            let why = format!("{region:?} is no name of a region, such as us-east-1");
            return Err(Failure::Settings(why));
        }
        None => resolve_bucket_region(bucket, &client.clone().with_timeout(REGION_TIMEOUT)).await?,
    };
    let path_style = options.path_style();
    if let Some(endpoint) = endpoint(bucket, options, path_style)? {
        builder = builder.with_endpoint(endpoint);
    }
    for (key, value) in [
        ("aws_server_side_encryption", &options.sse),
        ("aws_sse_kms_key_id", &options.sse_kms_key_id),
    ] {
        if !value.is_empty() {
            builder = builder.with_config(key.parse().map_err(settings)?, value);
        }
    }
    if options.object_lock_enabled {
        // Buckets that lock objects take no upload without a checksum.
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    headers.signed_by(Signer::Aws(provider.credentials, region.clone()));
    let builder = builder
        .with_region(region)
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!path_style)
        .with_client_options(client)
        .with_http_connector(Connector::new(rt, headers));
    Clients::build(|retry| builder.clone().with_retry(retry).build())
}

/// The region that is set somewhere; a server of one's own has the usual one.
fn region(
    builder: &AmazonS3Builder,
    of_profile: Option<String>,
    options: &S3Options,
) -> Option<String> {
    if !options.region.is_empty() {
        return Some(options.region.clone());
    }
    let of_environment = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let usual = (!options.endpoint.is_empty()).then(|| "us-east-1".to_owned());
    of_environment.or(of_profile).or(usual)
}

/// The URL that requests go to. With virtual hosts it has the bucket in it.
fn endpoint(
    bucket: &str,
    options: &S3Options,
    path_style: bool,
) -> Result<Option<String>, Failure> {
    if options.use_accelerate_endpoint {
        return Ok(Some(format!(
            "https://{bucket}.s3-accelerate.amazonaws.com"
        )));
    }
    let endpoint = options.endpoint.trim_end_matches('/');
    if endpoint.is_empty() || path_style {
        return Ok((!endpoint.is_empty()).then(|| endpoint.to_owned()));
    }
    let wrong = || Failure::Settings("the S3 endpoint has no host".into());
    let mut url = Url::parse(endpoint).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?;
    if !host.starts_with(&format!("{bucket}.")) {
        let host = format!("{bucket}.{host}");
        url.set_host(Some(&host)).map_err(|_| {
            let why = "the bucket cannot stand before the host of the endpoint; \
                       force-path-style=true puts it behind";
            Failure::Settings(why.into())
        })?;
    }
    Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_virtual_hosts_have_the_bucket() {
        let at = |endpoint: &str, path_style| {
            let options = S3Options {
                endpoint: endpoint.into(),
                ..Default::default()
            };
            super::endpoint("b", &options, path_style).unwrap()
        };
        assert_eq!(at("http://h:9000/", true).as_deref(), Some("http://h:9000"));
        assert_eq!(
            at("http://h:9000", false).as_deref(),
            Some("http://b.h:9000")
        );
        assert_eq!(at("https://b.h", false).as_deref(), Some("https://b.h"));
        assert_eq!(at("", false), None);
    }
}
