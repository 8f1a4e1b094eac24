use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, resolve_bucket_region,
};
use url::Url;

use super::{client_options, retry_config, settings, unsupported};
use crate::{Failure, S3Options};

pub(super) async fn open(bucket: &str, options: &S3Options) -> Result<AmazonS3, Failure> {
    refuse_unsupported(options)?;
    let client = client_options(&options.endpoint);
    // Keys of the URL do not mix with a token or profile of the environment.
    let mut builder = if options.access_key.is_empty() {
        AmazonS3Builder::from_env()
    } else {
        AmazonS3Builder::new()
            .with_access_key_id(options.access_key.reveal())
            .with_secret_access_key(options.secret_access_key.reveal())
    };
    if !options.session_token.is_empty() {
        builder = builder.with_token(options.session_token.reveal());
    }
    let region_of_env = builder.get_config_value(&AmazonS3ConfigKey::Region);
    if !options.region.is_empty() {
        builder = builder.with_region(&options.region);
    } else if options.endpoint.is_empty() && region_of_env.is_none() {
        let region = resolve_bucket_region(bucket, &client).await?;
        builder = builder.with_region(region);
    }
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
    builder
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!path_style)
        .with_client_options(client)
        .with_retry(retry_config())
        .build()
        .map_err(settings)
}

fn refuse_unsupported(options: &S3Options) -> Result<(), Failure> {
    for (setting, value) in [
        ("role-arn", &options.role_arn),
        ("external-id", &options.external_id),
        ("profile", &options.profile),
        ("acl", &options.acl),
    ] {
        if !value.is_empty() {
            return Err(unsupported("S3", setting));
        }
    }
    Ok(())
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
        url.set_host(Some(&host)).map_err(|_| wrong())?;
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

    #[test]
    fn settings_that_would_be_ignored_are_refused() {
        for options in [
            S3Options {
                role_arn: "r".into(),
                ..Default::default()
            },
            S3Options {
                acl: "r".into(),
                ..Default::default()
            },
            S3Options {
                profile: "r".into(),
                ..Default::default()
            },
        ] {
            assert!(matches!(
                refuse_unsupported(&options),
                Err(Failure::Settings(_))
            ));
        }
    }
}
