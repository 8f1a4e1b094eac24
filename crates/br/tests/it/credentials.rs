//! Where commands find credentials: keys, profiles, roles, and what machines and containers are told.

use std::fs;

use br_rt::Rt;
use br_storage::{Backend, SealKeys, Storage, parse_master_key};
use test_servers::{Answers, Moto};

use crate::dir;

const BUCKET: &str = "bucket-1";

/// Keys of the environment, of a profile, and of roles: on a server that checks them. A place that
/// can be read is told to have no log; one that cannot, to be refused.
#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn credentials_of_profiles_and_roles() {
    let (server, key) = Moto::start_strict(BUCKET);
    let endpoint = server.endpoint();
    let dir = dir();
    let config = dir.path().join("config");
    let text = format!(
        "[profile base]\naws_access_key_id={}\naws_secret_access_key={}\n\
         [profile nightly]\nrole_arn={}\nsource_profile=base\nregion=us-east-1\n\
         [profile wrong]\naws_access_key_id={}\naws_secret_access_key=not-the-secret\n",
        key.id,
        key.secret,
        Moto::ROLE,
        key.id,
    );
    fs::write(&config, text).expect("a file");
    let config = config.to_str().expect("a name in UTF-8");
    let url = format!("s3://{BUCKET}/p?endpoint={endpoint}&force-path-style=true");
    let look = |environment: &[(&str, &str)], flags: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("br").expect("the binary");
        let output = command
            .current_dir(dir.path())
            .env("AWS_CONFIG_FILE", config)
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
            .env("AWS_ENDPOINT_URL_STS", &endpoint)
            .envs(environment.iter().copied())
            .args(["log", "metadata", "-s", &url, "--log-file", "br.log"])
            .args(flags)
            .output()
            .expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{said}");
        let errors = said.lines().filter(|line| line.starts_with("Error: "));
        assert_eq!(errors.count(), 1, "{said}");
        assert!(!said.contains(&key.secret), "{said}");
        said
    };
    let keys = [
        ("AWS_ACCESS_KEY_ID", key.id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &key.secret),
    ];
    let role = ["--s3.role-arn", Moto::ROLE, "--s3.external-id", "x"];
    for said in [
        look(&keys, &[]),
        look(&[], &["--s3.profile", "base"]),
        look(&[("AWS_PROFILE", "nightly")], &[]),
        look(&keys, &role),
    ] {
        assert!(said.contains("there is no log backup"), "{said}");
    }
    let none = "arn:aws:iam::123456789012:role/none";
    for (said, expected) in [
        (look(&[], &["--s3.profile", "wrong"]), "PermissionDenied"),
        (
            look(&[], &["--s3.profile", "none"]),
            "is in none of the shared",
        ),
        (
            look(&[], &["--s3.profile", "wrong", "--s3.role-arn", none]),
            "role/none",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let log = fs::read_to_string(dir.path().join("br.log")).expect("a log");
    assert!(!log.contains(&key.secret), "a secret in the log");
}

/// What machines and containers are told, for S3 and for the key management service; and what is said
/// where nothing is found.
#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn credentials_of_machines() {
    let (server, key) = Moto::start_strict(BUCKET);
    let secret = key.secret.clone();
    let keys = serde_json::json!({
        "Code": "Success",
        "AccessKeyId": key.id,
        "SecretAccessKey": key.secret,
        "Expiration": "2099-01-01T00:00:00Z",
    });
    let metadata = Answers::start(move |asked| {
        let is_known = asked.header("x-aws-ec2-metadata-token") == Some("token-1");
        match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token") => (200, "token-1".to_owned()),
            (_, "/latest/meta-data/iam/security-credentials/") if is_known => {
                (200, "role-1".to_owned())
            }
            (_, "/latest/meta-data/iam/security-credentials/role-1") if is_known => {
                (200, keys.to_string())
            }
            (_, "/pod") if asked.header("authorization") == Some("token-2") => {
                (200, keys.to_string())
            }
            _ => (404, String::new()),
        }
    });
    let dir = dir();
    let br = |environment: &[(&str, &str)], args: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("br").expect("the binary");
        for (name, _) in std::env::vars().filter(|(name, _)| {
            ["AWS_", "AZURE_", "GOOGLE_", "IDENTITY_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        }) {
            command.env_remove(name);
        }
        let output = command
            .current_dir(dir.path())
            .env("HOME", "/nowhere")
            .envs(environment.iter().copied())
            .args(args)
            .args(["--log-file", "br.log"])
            .output()
            .expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!said.contains(&secret), "{said}");
        (output.status.code(), said)
    };
    let endpoint = metadata.endpoint();
    let machine = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str())];
    let pod = format!("{endpoint}/pod");
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", pod.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-2"),
    ];
    let s3 = format!(
        "s3://{BUCKET}/p?endpoint={}&force-path-style=true",
        server.endpoint()
    );
    let look = ["log", "metadata", "-s", &s3];
    for environment in [&machine[..], &container] {
        let (status, said) = br(environment, &look);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("there is no log backup"), "{said}");
    }

    // The same for the service that has master keys.
    let service = Moto::start();
    let folder = dir.path().join("sealed");
    let file = dir.path().join("master.key");
    fs::write(&file, format!("{}\n", "5c".repeat(32))).expect("a key");
    let of_file = format!("local://{}", file.display());
    let of_service = format!(
        "aws-kms:///{}?REGION=us-east-1&ENDPOINT={}",
        service.create_kms_key(),
        service.endpoint()
    );
    let local = Backend::Local {
        path: folder.clone(),
    };
    let key = parse_master_key(&of_file).expect("a key");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let sealed = local.sealed(SealKeys::new(vec![key]));
    runtime
        .block_on(async { Storage::create_base(&Rt::real(), &sealed).await })
        .expect("it is sealed");
    let folder = folder.display().to_string();
    let rotate = [
        "operator",
        "rotate-seal-keys",
        "-s",
        &folder,
        "--seal-key",
        &of_file,
        "--new-seal-key",
        &of_service,
    ];
    let nobody = "http://127.0.0.1:1";
    let nothing = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody)];
    let (status, said) = br(&nothing, &rotate);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("Looked for, in this order"), "{said}");
    let (status, said) = br(&machine, &rotate);
    assert_eq!(status, Some(0), "{said}");

    // Nothing is found, and nothing is waited for.
    let account = ("AZURE_STORAGE_ACCOUNT", "account-1");
    let azure = [account, ("AZURE_POD_IDENTITY_AUTHORITY_HOST", nobody)];
    let gcs = [("GCE_METADATA_HOST", "127.0.0.1:1")];
    for (environment, url, parts) in [
        (&nothing[..], s3.as_str(), ["AWS_ACCESS_KEY_ID", nobody]),
        (&azure, "azure://c/p", ["AZURE_STORAGE_KEY", nobody]),
        (&gcs, "gcs://b/p", ["--gcs.credentials-file", "127.0.0.1:1"]),
    ] {
        let (status, said) = br(environment, &["log", "metadata", "-s", url]);
        assert_eq!(status, Some(2), "{said}");
        assert!(
            said.contains("[BR:ExternalStorage:ErrStorageInvalidPermission]"),
            "{said}"
        );
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
    }
    let log = fs::read_to_string(dir.path().join("br.log")).expect("a log");
    assert!(!log.contains(&secret), "a secret in the log");
}
