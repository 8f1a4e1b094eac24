use super::*;
use crate::StorageOptions;

fn backend(url: &str) -> Backend {
    Backend::parse(url, &StorageOptions::default()).unwrap()
}

fn there_and_back(url: &str) -> Backend {
    Backend::from_proto(&backend(url).to_proto(SendCredentials::Yes).unwrap()).unwrap()
}

#[test]
fn backends_survive_the_journey() {
    for url in [
        "noop://",
        "local:///a/b",
        "memory://n",
        "memory://n/p/q",
        "s3://b/p?access-key=k&secret-access-key=s&session-token=t&region=r&force-path-style=true",
        "azure://c/p?account-name=a&sas-token=s&access-tier=Hot&encryption-scope=e",
        "azure://c?account-name=a&account-key=a2V5&encryption-key=a2V5",
    ] {
        assert_eq!(there_and_back(url), backend(url), "{url}");
    }
}

#[test]
fn credentials_stay_here_if_told_so() {
    let url = "s3://b?access-key=k&secret-access-key=s&session-token=t";
    let Some(Proto::S3(s3)) = backend(url).to_proto(SendCredentials::No).unwrap().backend else {
        panic!("no S3")
    };
    assert_eq!(
        (s3.access_key, s3.secret_access_key, s3.session_token),
        Default::default()
    );
    let url = "azure://c?account-name=a&account-key=a2V5&sas-token=s";
    let proto = backend(url).to_proto(SendCredentials::No).unwrap().backend;
    let Some(Proto::AzureBlobStorage(azure)) = proto else {
        panic!("no Azure")
    };
    assert_eq!(
        (
            azure.account_name.as_str(),
            azure.shared_key,
            azure.access_sig
        ),
        ("a", String::new(), String::new())
    );
}

#[test]
fn the_file_of_gcs_travels_as_its_contents() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"type\":\"x\"}").unwrap();
    let url = format!("gcs://b/p?credentials-file={}", file.path().display());
    let Some(Proto::Gcs(gcs)) = backend(&url)
        .to_proto(SendCredentials::Yes)
        .unwrap()
        .backend
    else {
        panic!("no GCS")
    };
    assert_eq!(gcs.credentials_blob, "{\"type\":\"x\"}");
    let missing = backend("gcs://b?credentials-file=/none/here");
    assert!(missing.to_proto(SendCredentials::Yes).is_err());
    assert!(missing.to_proto(SendCredentials::No).is_ok());
}

#[test]
fn other_kinds_are_refused() {
    let hdfs = pb::StorageBackend {
        backend: Some(Proto::Hdfs(pb::Hdfs { remote: "x".into() })),
        sealed: None,
    };
    assert_eq!(
        Backend::from_proto(&hdfs),
        Err(BackendError::Unsupported("hdfs"))
    );
    assert_eq!(
        Backend::from_proto(&pb::StorageBackend::default()),
        Err(BackendError::Missing)
    );
}
