//! Mutual TLS to PD and stores, with certificates that are right, of another authority, and expired.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::{br, dir, playground::Playground};

/// A certificate authority with its file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: String,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority {
            issuer: Issuer::new(params, key),
            file: write(dir, &format!("{name}.pem"), &certificate.pem()),
        }
    }

    /// Files of a certificate for 127.0.0.1 and of its key.
    fn sign(&self, dir: &Path, name: &str, last_year: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.expect("a certificate");
        (
            write(dir, &format!("{name}.crt"), &certificate.pem()),
            write(dir, &format!("{name}.key"), &key.serialize_pem()),
        )
    }
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a name in UTF-8").to_owned()
}

fn flags<'a>(ca: &'a Authority, pair: &'a (String, String)) -> [&'a str; 6] {
    ["--ca", &ca.file, "--cert", &pair.0, "--key", &pair.1]
}

#[test]
fn certificates_are_asked_for_and_checked() {
    let dir = dir();
    let dir = dir.path();
    let (ours, other) = (Authority::new(dir, "ours"), Authority::new(dir, "other"));
    let good = ours.sign(dir, "good", 2100);
    let expired = ours.sign(dir, "expired", 2021);
    let foreign = other.sign(dir, "foreign", 2100);
    let playground = Playground::start_with(dir, &flags(&ours, &good));
    let pd = &playground.pd;
    let right = flags(&ours, &good);

    let history = dir.join("history");
    let history = history.to_str().expect("a name in UTF-8");
    let load = [
        "workload",
        "run",
        "-u",
        pd,
        "--size",
        "50",
        "--duration",
        "1s",
        "--history",
        history,
    ];
    let start = [
        "log",
        "start",
        "-u",
        pd,
        "--task-name",
        "t",
        "-s",
        "local://log",
    ];
    let backup = [
        "backup",
        "full",
        "-u",
        pd,
        "-s",
        "local://backup",
        "--checksum",
    ];
    let flush = ["operator", "force-flush", "-u", pd];
    let status = ["log", "status", "-u", pd];
    for command in [&start[..], &load, &backup, &flush, &status] {
        let (code, stdout, stderr) = br(dir, &[command, &right].concat());
        assert_eq!(code, 0, "{command:?} {stdout} {stderr}");
    }

    // What the client does not like it names. What the server does not like, the client may see as
    // a connection that ends.
    let backup = ["backup", "full", "-u", pd, "-s", "local://never"];
    for (name, wrong, expected) in [
        ("another CA", &flags(&other, &good)[..], "certificate"),
        (
            "an expired certificate",
            &flags(&ours, &expired),
            pd.as_str(),
        ),
        (
            "a certificate of another CA",
            &flags(&ours, &foreign),
            pd.as_str(),
        ),
        ("no certificate", &["--ca", &ours.file], pd.as_str()),
        ("no TLS", &[], pd.as_str()),
    ] {
        let (code, _, stderr) = br(dir, &[&backup[..], wrong].concat());
        assert_ne!(code, 0, "{name}");
        assert!(stderr.contains(expected), "{name}: {stderr}");
        let errors = stderr.lines().filter(|line| line.starts_with("Error: "));
        assert_eq!(errors.count(), 1, "{name}: {stderr}");
        assert!(!dir.join("never/backupmeta").exists());
    }
    let key = fs::read_to_string(&good.1).expect("a key");
    let secret = key.lines().nth(1).expect("the key");
    for log in ["br.log", "playground.log"] {
        let log = fs::read_to_string(dir.join(log)).expect("a log");
        assert!(!log.contains(secret), "a key in the log");
    }
}

#[test]
fn a_server_whose_certificate_has_expired_is_refused() {
    let dir = dir();
    let dir = dir.path();
    let ours = Authority::new(dir, "ours");
    let expired = ours.sign(dir, "expired", 2021);
    let good = ours.sign(dir, "good", 2100);
    // Its own parts do not trust it either; it is up all the same.
    let server = [&flags(&ours, &expired)[..], &["--log-coordinator=false"]].concat();
    let playground = Playground::start_with(dir, &server);
    let backup = [
        "backup",
        "full",
        "-u",
        &playground.pd,
        "-s",
        "local://never",
    ];
    let (code, _, stderr) = br(dir, &[&backup[..], &flags(&ours, &good)].concat());
    assert_ne!(code, 0);
    assert!(stderr.contains("expired"), "{stderr}");
}
