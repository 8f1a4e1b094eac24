use super::*;

fn parse(text: &str) -> Result<Backend, UrlError> {
    Backend::parse(text, &StorageOptions::default())
}

fn s3(text: &str) -> (String, String, S3Options) {
    match parse(text).unwrap() {
        Backend::S3 {
            bucket,
            prefix,
            options,
        } => (bucket, prefix, options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn directories() {
    for text in [
        "/data/a b",
        "local:///data/a b",
        "file:///data/a%20b",
        "local:///data/a b?x=1",
    ] {
        assert_eq!(
            parse(text),
            Ok(Backend::Local {
                path: "/data/a b".into()
            }),
            "{text}"
        );
    }
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        parse("a/b"),
        Ok(Backend::Local {
            path: here.join("a/b")
        })
    );
    assert_eq!(
        parse("local://a/b"),
        Ok(Backend::Local {
            path: here.join("a/b")
        })
    );
    assert_eq!(
        parse("./a+b"),
        Ok(Backend::Local {
            path: here.join("a+b")
        })
    );
}

#[test]
fn other_schemes() {
    assert_eq!(parse("noop://"), Ok(Backend::Noop));
    let memory = Backend::Memory {
        name: "a".into(),
        prefix: "b/c".into(),
    };
    assert_eq!(parse("memory://a/b/c/"), Ok(memory));
    assert!(matches!(parse("gs://b/p"), Ok(Backend::Gcs { prefix, .. }) if prefix == "p"));
    assert!(matches!(parse("azblob://c"), Ok(Backend::Azure { prefix, .. }) if prefix.is_empty()));
    assert_eq!(parse("hdfs://x/y"), Err(UrlError::Hdfs));
    assert_eq!(parse("ftp://x/y"), Err(UrlError::Scheme("ftp".into())));
    assert_eq!(parse("  "), Err(UrlError::Missing));
    assert_eq!(parse("s3:///prefix"), Err(UrlError::NoBucket("bucket")));
    assert_eq!(parse("s3://me:secret@b/p"), Err(UrlError::UserInfo));
}

#[test]
fn s3_settings_of_the_query() {
    let (bucket, prefix, options) = s3(
        "s3://My_Bucket//a/b/?ACCESS_KEY=k&secret-access-key=a+b/c%3D&endpoint=http://h:9000\
         &Force_Path_Style=false&what=x",
    );
    assert_eq!((bucket.as_str(), prefix.as_str()), ("My_Bucket", "a/b"));
    assert_eq!(options.access_key.reveal(), "k");
    assert_eq!(options.secret_access_key.reveal(), "a+b/c=");
    assert_eq!(options.endpoint, "http://h:9000");
    assert_eq!(options.region, "us-east-1");
    assert_eq!(options.force_path_style, Some(false));
}

#[test]
fn settings_of_the_url_override_flags() {
    let flags = StorageOptions {
        s3: S3Options {
            region: "a".into(),
            acl: "x".into(),
            ..Default::default()
        },
        ..Default::default()
    };
    let Ok(Backend::S3 { options, .. }) = Backend::parse("s3://b?region=c", &flags) else {
        panic!("no S3")
    };
    assert_eq!((options.region.as_str(), options.acl.as_str()), ("c", "x"));
}

#[test]
fn path_style_follows_the_provider() {
    for (text, expected) in [
        ("s3://b", true),
        ("s3://b?provider=aws", false),
        ("s3://b?endpoint=https://s3.eu-west-1.amazonaws.com", false),
        ("s3://b?role-arn=r", false),
        ("s3://b?use-accelerate-endpoint=true", false),
        ("s3://b?provider=aws&force-path-style=true", true),
        ("s3://b?endpoint=http://minio:9000", true),
        ("oss://b", false),
        ("ks3://b", true),
    ] {
        assert_eq!(s3(text).2.path_style(), expected, "{text}");
    }
}

#[test]
fn wrong_settings_are_refused() {
    for text in [
        "s3://b?access-key=k",
        "s3://b?endpoint=host:9000",
        "s3://b?endpoint=ftp://host",
        "s3://b?force-path-style=maybe",
        "s3://b?region=eu west",
        "s3://b?region=a/b",
        "gcs://b?endpoint=host",
        "azure://c?endpoint=ftp://host",
        "s3://b/a//b/../c//d",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let backend =
        parse("s3://b/p?access-key=AAAA&secret-access-key=BBBB&session-token=CCCC").unwrap();
    assert_eq!(backend.to_string(), "s3://b/p");
    let debug = format!("{backend:?}");
    for secret in ["AAAA", "BBBB", "CCCC"] {
        assert!(!debug.contains(secret), "{debug}");
    }
    let azure = parse("azure://c?account-key=AAAA&sas-token=BBBB&encryption-key=CCCC").unwrap();
    let debug = format!("{azure:?}");
    for secret in ["AAAA", "BBBB", "CCCC"] {
        assert!(!debug.contains(secret), "{debug}");
    }
}
