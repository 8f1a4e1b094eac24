use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use br_rt::UnixMillis;
use test_servers::Answers;

use super::*;

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";
const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// Variables besides those that keep files and machines of whoever runs the tests away.
fn variables<const N: usize>(more: [(&'static str, String); N]) -> Environment {
    let mut variables = std::collections::BTreeMap::from([
        ("HOME", "/nowhere".to_owned()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", NOBODY.to_owned()),
    ]);
    variables.extend(more);
    Environment::Fixed(variables)
}

fn find(rt: &Rt, environment: &Environment) -> Result<AwsCredentialProvider, Failure> {
    let found = provider(rt, environment, &BaseCredentials::default())?;
    Ok(found.credentials)
}

async fn id(provider: &AwsCredentialProvider) -> Result<String, Failure> {
    let credential = provider.get_credential().await?;
    Ok(credential.key_id.clone())
}

/// Time goes on; nothing is under way meanwhile.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Keys that end an hour after `seconds`, counted from the start of the test.
fn keys(id: &str, seconds: u64) -> String {
    let ends = i64::try_from(START.0 / 1000 + seconds + 3600).unwrap();
    let ends = jiff::Timestamp::from_second(ends).unwrap();
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"hidden","Token":"t","Expiration":"{ends}"}}"#
    )
}

#[tokio::test]
async fn the_role_of_a_machine_is_renewed() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let service = Answers::start(
        |asked| match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token") => (200, "the-token".to_owned()),
            (_, _) if asked.header("x-aws-ec2-metadata-token") != Some("the-token") => {
                (401, String::new())
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "role-1".to_owned()),
            ("GET", "/latest/meta-data/iam/security-credentials/role-1") => {
                match CALLS.fetch_add(1, Ordering::Relaxed) {
                    0 => (200, keys("first", 0)),
                    1 => (200, keys("second", 3400)),
                    _ => (500, String::new()),
                }
            }
            _ => (404, String::new()),
        },
    );
    let rt = Rt::simulated(1, START);
    let endpoint = format!("{}/", service.endpoint());
    let environment = variables([("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)]);
    let provider = find(&rt, &environment).unwrap();
    assert!(
        service.asked().is_empty(),
        "nobody is asked before it is needed"
    );
    assert_eq!(id(&provider).await.unwrap(), "first");
    let credential = provider.get_credential().await.unwrap();
    assert_eq!(credential.token.as_deref(), Some("t"));
    assert_eq!(service.asked().len(), 3);
    pass(3200).await;
    assert_eq!(id(&provider).await.unwrap(), "first");
    assert_eq!(service.asked().len(), 3);
    pass(200).await;
    assert_eq!(
        id(&provider).await.unwrap(),
        "second",
        "before the end of the first"
    );
    // The service fails from now on; the keys are good until 7000 s.
    pass(3500).await;
    assert_eq!(id(&provider).await.unwrap(), "second");
    pass(200).await;
    let failure = id(&provider).await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    assert!(!failure.to_string().contains("hidden"));
}

#[tokio::test]
async fn machines_with_version_1_only() {
    let service = Answers::start(|asked| match asked.target.as_str() {
        "/latest/meta-data/iam/security-credentials/" => (200, "role-1\n".to_owned()),
        "/latest/meta-data/iam/security-credentials/role-1" => (200, keys("first", 0)),
        _ => (404, String::new()),
    });
    let rt = Rt::simulated(1, START);
    let endpoint = || ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint());
    let provider = find(&rt, &variables([endpoint()])).unwrap();
    assert_eq!(id(&provider).await.unwrap(), "first");
    let version_2 = ("AWS_EC2_METADATA_V1_DISABLED", "true".to_owned());
    let provider = find(&rt, &variables([endpoint(), version_2])).unwrap();
    assert!(id(&provider).await.is_err());
}

#[tokio::test]
async fn what_was_looked_for_is_told() {
    let rt = Rt::simulated(1, START);
    let in_order = [
        "keys in the URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_PROFILE",
        "\"default\"",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "metadata of this machine",
    ];
    let without_role = Answers::start(|asked| match asked.method.as_str() {
        "PUT" => (200, "token".to_owned()),
        _ => (404, String::new()),
    });
    let nobody = find(&rt, &variables([])).unwrap();
    let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", without_role.endpoint());
    let without_role = find(&rt, &variables([endpoint])).unwrap();
    let disabled = ("AWS_EC2_METADATA_DISABLED", "TRUE".to_owned());
    let disabled = find(&rt, &variables([disabled])).map(drop).unwrap_err();
    for (failure, said) in [
        (id(&nobody).await.unwrap_err(), NOBODY),
        (id(&without_role).await.unwrap_err(), "gives no role"),
        (disabled, "AWS_EC2_METADATA_DISABLED"),
    ] {
        // Not tried again: it will not be there the next time.
        let Failure::PermissionDenied(text) = failure else {
            panic!("{failure}")
        };
        assert!(text.contains(said), "{text}");
        let places: Vec<_> = in_order.iter().map(|part| text.find(part)).collect();
        assert!(places.iter().all(Option::is_some), "{text}");
        assert!(places.is_sorted(), "{text}");
    }
}

#[tokio::test]
async fn the_role_of_a_container() {
    let service = Answers::start(|asked| match asked.target.as_str() {
        "/pod?x=1" => {
            let token = asked.header("authorization").unwrap_or("none");
            (200, keys(token, 0))
        }
        _ => (404, String::new()),
    });
    let rt = Rt::simulated(1, START);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "of-file\n").unwrap();
    let url = || {
        let url = format!("{}/pod?x=1", service.endpoint());
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    };
    let text = || ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-text".to_owned());
    let file_name = file.display().to_string();
    let of_file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file_name);
    let plain = find(&rt, &variables([url()])).unwrap();
    assert_eq!(id(&plain).await.unwrap(), "none");
    let with_text = find(&rt, &variables([url(), text()])).unwrap();
    assert_eq!(id(&with_text).await.unwrap(), "of-text");
    let with_file = find(&rt, &variables([url(), text(), of_file])).unwrap();
    assert_eq!(id(&with_file).await.unwrap(), "of-file");
    // Others write it anew.
    std::fs::write(&file, "newer").unwrap();
    pass(3400).await;
    assert_eq!(id(&with_file).await.unwrap(), "newer");

    let elsewhere = "http://example.com/credentials".to_owned();
    let elsewhere = variables([("AWS_CONTAINER_CREDENTIALS_FULL_URI", elsewhere), text()]);
    let failure = find(&rt, &elsewhere).map(drop).unwrap_err();
    assert!(failure.to_string().contains("https://"), "{failure}");
    assert!(!failure.to_string().contains("of-text"), "{failure}");
}

/// The file of profiles; the environment that names it.
fn profiles(dir: &Path, text: &str) -> (&'static str, String) {
    let file = dir.join("config");
    std::fs::write(&file, text).unwrap();
    ("AWS_CONFIG_FILE", file.display().to_string())
}

#[tokio::test]
async fn commands_of_profiles() {
    let dir = tempfile::tempdir().unwrap();
    let rt = Rt::real();
    let says = |text: &str| {
        let config = profiles(
            dir.path(),
            &format!("[default]\ncredential_process={text}\n"),
        );
        find(&rt, &variables([config])).unwrap()
    };
    let right = r#"echo '{"Version":1,"AccessKeyId":"a","SecretAccessKey":"hidden"}'"#;
    assert_eq!(id(&says(right)).await.unwrap(), "a");
    for (wrong, said) in [
        ("exit 3", "3"),
        ("echo hidden", "JSON"),
        (r#"echo '{"Version":2,"x":"hidden"}'"#, "Version"),
        (r#"echo '{"Version":1,"SecretAccessKey":"hidden"}'"#, "keys"),
    ] {
        let failure = id(&says(wrong)).await.unwrap_err().to_string();
        assert!(failure.contains(said), "{failure}");
        assert!(!failure.contains("hidden"), "{failure}");
    }
}

#[test]
fn one_goes_before_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[default]\naws_access_key_id=of-default\naws_secret_access_key=s\n\
                [profile nightly]\naws_access_key_id=of-nightly\naws_secret_access_key=s\n";
    let all = [
        profiles(dir.path(), text),
        ("AWS_PROFILE", "nightly".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token".to_owned()),
        ("AWS_ROLE_ARN", "role".to_owned()),
        ("AWS_ACCESS_KEY_ID", "of-environment".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
    ];
    let found = |left: &[(&'static str, String)], settings: &BaseCredentials| {
        let environment = Environment::Fixed(left.iter().cloned().collect());
        let profiles = Profiles::load(&environment);
        match look(&environment, settings, &profiles).unwrap().source {
            Source::Keys { id, .. } => id,
            Source::WebIdentity { token_file, .. } => token_file,
            other => panic!("{other:?}"),
        }
    };
    let keys = BaseCredentials {
        access_key: Secret::new("of-url"),
        profile: "nightly".to_owned(),
        ..BaseCredentials::default()
    };
    assert_eq!(found(&all, &keys), "of-url");
    let flag = BaseCredentials {
        profile: "nightly".to_owned(),
        ..BaseCredentials::default()
    };
    assert_eq!(found(&all, &flag), "of-nightly");
    let none = BaseCredentials::default();
    for (left, expected) in [
        (6, "of-environment"),
        (4, "/token"),
        (2, "of-nightly"),
        (1, "of-default"),
    ] {
        assert_eq!(found(&all[..left], &none), expected);
    }
}
