use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use br_rt::UnixMillis;
use test_servers::Answers;

use super::*;
use crate::renewed::Renewed;

async fn token<G: Giver<Credential = AzureCredential>>(
    renewed: &Renewed<G>,
) -> Result<String, Failure> {
    match &*renewed.credential().await? {
        AzureCredential::BearerToken(token) => Ok(token.clone()),
        _ => panic!("no token"),
    }
}

async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

fn simulated() -> Rt {
    Rt::simulated(1, UnixMillis(1_800_000_000_000))
}

#[tokio::test]
async fn the_identity_of_a_machine_is_renewed() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let service = Answers::start(|asked| {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let is_right = asked.target.starts_with("/metadata/identity/oauth2/token?")
            && asked.target.contains("client_id=me")
            && asked
                .target
                .contains("resource=https%3A%2F%2Fstorage.azure.com%2F")
            && asked.header("metadata") == Some("true");
        match is_right {
            // Numbers as text, as the service has them.
            true => (
                200,
                format!(r#"{{"access_token":"t{number}","expires_in":"3600"}}"#),
            ),
            false => (400, r#"{"error":"invalid_request"}"#.to_owned()),
        }
    });
    let rt = simulated();
    let environment = Environment::of([
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.endpoint()),
        ("AZURE_CLIENT_ID", "me".to_owned()),
    ]);
    let renewed = Renewed::new(&rt, Managed::find(&rt, &environment).unwrap());
    for _ in 0..2 {
        assert_eq!(token(&renewed).await.unwrap(), "t0");
    }
    pass(3400).await;
    assert_eq!(token(&renewed).await.unwrap(), "t1");
    assert_eq!(CALLS.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_identity_of_an_application() {
    let service = Answers::start(|asked| match asked.header("x-identity-header") {
        Some("word") if asked.target.starts_with("/msi?") => (
            200,
            r#"{"access_token":"t","expires_on":"1800003600"}"#.to_owned(),
        ),
        _ => (401, String::new()),
    });
    let rt = simulated();
    let url = format!("{}/msi", service.endpoint());
    let environment = |word: &str| {
        Environment::of([
            ("IDENTITY_ENDPOINT", url.clone()),
            ("IDENTITY_HEADER", word.to_owned()),
        ])
    };
    let renewed = Renewed::new(&rt, Managed::find(&rt, &environment("word")).unwrap());
    assert_eq!(token(&renewed).await.unwrap(), "t");
    let wrong = Renewed::new(&rt, Managed::find(&rt, &environment("hidden")).unwrap());
    let failure = token(&wrong).await.unwrap_err();
    assert!(matches!(failure, Failure::PermissionDenied(_)), "{failure}");
    assert!(!failure.to_string().contains("hidden"), "{failure}");
}

#[tokio::test]
async fn applications_show_a_secret_or_the_token_of_a_pod() {
    let service = Answers::start(|asked| {
        let has = |part: &str| asked.body.contains(part);
        let is_right = asked.target == "/tenant-1/oauth2/v2.0/token"
            && has("grant_type=client_credentials")
            && has("scope=https%3A%2F%2Fstorage.azure.com%2F.default")
            && has("client_id=me");
        let answer = |token: &str| {
            let token = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
            (200, token)
        };
        match is_right {
            true if has("client_secret=word") => answer("of-secret"),
            true if has("jwt-bearer") && has("client_assertion=one") => answer("of-one"),
            true if has("jwt-bearer") && has("client_assertion=two") => answer("of-two"),
            _ => (
                400,
                r#"{"error":"invalid_client","error_description":"who?"}"#.to_owned(),
            ),
        }
    });
    let rt = simulated();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    let environment = |authority: &str, secret: &str| {
        Environment::of([
            ("AZURE_AUTHORITY_HOST", authority.to_owned()),
            ("AZURE_CLIENT_ID", "me".to_owned()),
            ("AZURE_TENANT_ID", "tenant-1".to_owned()),
            ("AZURE_CLIENT_SECRET", secret.to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", file.display().to_string()),
        ])
    };
    let right = environment(&format!("{}/", service.endpoint()), "word");
    let application = Application::with_secret(&rt, &right).unwrap().unwrap();
    assert_eq!(
        token(&Renewed::new(&rt, application)).await.unwrap(),
        "of-secret"
    );
    let pod = Application::of_pod(&rt, &right).unwrap().unwrap();
    let pod = Renewed::new(&rt, pod);
    assert_eq!(token(&pod).await.unwrap(), "of-one");
    // Others write it anew.
    std::fs::write(&file, "two").unwrap();
    pass(3000).await;
    assert_eq!(token(&pod).await.unwrap(), "of-one");
    pass(400).await;
    assert_eq!(token(&pod).await.unwrap(), "of-two");

    let wrong = environment(&service.endpoint(), "hidden");
    let application = Application::with_secret(&rt, &wrong).unwrap().unwrap();
    let failure = token(&Renewed::new(&rt, application)).await.unwrap_err();
    assert!(matches!(failure, Failure::PermissionDenied(_)), "{failure}");
    assert!(
        failure.to_string().contains("invalid_client: who?"),
        "{failure}"
    );
    assert!(!failure.to_string().contains("hidden"), "{failure}");
    let in_the_clear = environment("http://example.com", "hidden");
    assert!(Application::with_secret(&rt, &in_the_clear).is_err());
    let nothing = Environment::of([("AZURE_CLIENT_ID", "me".to_owned())]);
    assert!(Application::of_pod(&rt, &nothing).unwrap().is_none());
}

/// `az` may be installed where the tests run, and is not asked: the test is of the text.
#[tokio::test]
async fn what_was_looked_for_is_told() {
    let rt = Rt::real();
    let environment = Environment::of([(
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "http://127.0.0.1:1".to_owned(),
    )]);
    let managed = Managed::find(&rt, &environment).unwrap();
    let failure = match managed.ask().await {
        Ok(_) => return,
        Err(failure) => failure,
    };
    let Failure::PermissionDenied(text) = failure else {
        panic!("{failure}")
    };
    let in_order = [
        "--azblob.sas-token",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_KEY",
        "AZURE_FEDERATED_TOKEN_FILE",
        "http://127.0.0.1:1",
        "az",
    ];
    let places: Vec<_> = in_order.iter().map(|part| text.rfind(part)).collect();
    assert!(places.iter().all(Option::is_some), "{text}");
    assert!(places.is_sorted(), "{text}");
}
