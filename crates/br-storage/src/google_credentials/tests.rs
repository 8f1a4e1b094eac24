use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use br_rt::UnixMillis;
use test_servers::Answers;

use super::*;
use crate::renewed::Renewed;

#[tokio::test]
async fn the_account_of_a_machine_is_renewed() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let service = Answers::start(|asked| {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        match (asked.target.as_str(), asked.header("metadata-flavor")) {
            (target, Some("Google")) if target == path && number < 2 => (
                200,
                format!(
                    r#"{{"access_token":"t{number}","expires_in":3599,"token_type":"Bearer"}}"#
                ),
            ),
            _ => (503, String::new()),
        }
    });
    let rt = Rt::simulated(1, UnixMillis(1_800_000_000_000));
    let environment = Environment::of([("GCE_METADATA_HOST", service.address().to_owned())]);
    let renewed = Renewed::new(&rt, Machine::find(&rt, &environment).unwrap());
    let bearer = async || renewed.credential().await.map(|found| found.bearer.clone());
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    for _ in 0..2 {
        assert_eq!(bearer().await.unwrap(), "t0");
    }
    pass(3400).await;
    assert_eq!(bearer().await.unwrap(), "t1");
    // It fails from now on.
    pass(3400).await;
    assert_eq!(bearer().await.unwrap(), "t1");
    pass(300).await;
    let failure = bearer().await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
}

#[tokio::test]
async fn what_was_looked_for_is_told() {
    let rt = Rt::real();
    let environment = Environment::of([("GCE_METADATA_HOST", "127.0.0.1:1".to_owned())]);
    let machine = Machine::find(&rt, &environment).unwrap();
    let Failure::PermissionDenied(text) = machine.ask().await.unwrap_err() else {
        panic!("another failure")
    };
    for part in [
        "--gcs.credentials-file",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "gcloud",
        "127.0.0.1:1",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn files_with_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let rt = Rt::real();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let user = r#"{"type":"authorized_user","client_id":"c","client_secret":"hidden","refresh_token":"hidden"}"#;
    let account = write(
        "account",
        r#"{"type":"service_account","private_key":"hidden"}"#,
    );
    let user = write(".config/gcloud/application_default_credentials.json", user);
    let named = |file: &str| GcsOptions {
        credentials_file: file.to_owned(),
        ..GcsOptions::default()
    };
    let home = dir.path().display().to_string();
    let of_home = Environment::of([("HOME", home.clone())]);
    let of_variable =
        Environment::of([("HOME", home), ("GOOGLE_APPLICATION_CREDENTIALS", account)]);
    let nowhere = Environment::of([("HOME", "/nowhere".to_owned())]);
    let none = GcsOptions::default();
    assert!(matches!(find(&rt, &nowhere, &none), Ok(Found::Elsewhere)));
    assert!(matches!(find(&rt, &of_home, &none), Ok(Found::User(_))));
    let found = find(&rt, &of_variable, &none);
    assert!(matches!(found, Ok(Found::ServiceAccount(_))));
    let found = find(&rt, &of_variable, &named(&user));
    assert!(matches!(found, Ok(Found::User(_))));
    for (text, said) in [
        ("hidden", "is not JSON"),
        (
            r#"{"type":"external_account","x":"hidden"}"#,
            "external_account",
        ),
        (
            r#"{"type":"authorized_user","client_secret":"hidden"}"#,
            "lacks a field",
        ),
        (r#"{"x":"hidden"}"#, "has no type"),
    ] {
        let file = write("wrong", text);
        let failure = find(&rt, &nowhere, &named(&file))
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains(said) && failure.contains(&file),
            "{failure}"
        );
        assert!(!failure.contains("hidden"), "{failure}");
    }
    let failure = find(&rt, &nowhere, &named("/nowhere"))
        .map(drop)
        .unwrap_err();
    assert!(failure.to_string().contains("/nowhere"), "{failure}");
}
