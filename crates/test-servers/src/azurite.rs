use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};

use crate::{process::Process, request::send};

/// The Azurite server, which checks signatures.
pub struct Azurite(Process);

impl Azurite {
    /// The account that it has.
    pub const ACCOUNT: &'static str = "devstoreaccount1";
    /// The published key of that account.
    pub const KEY: &'static str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Starts one with nothing in it.
    pub fn start() -> Azurite {
        let arguments = [
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            "0",
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--silent",
        ];
        Azurite(Process::start("azurite", &arguments, &[]))
    }

    /// `http://127.0.0.1:PORT/ACCOUNT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{}", self.0.address, Azurite::ACCOUNT)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Makes a container.
    pub fn create_container(&self, name: &str) {
        let url = format!("{}/{name}?restype=container", self.endpoint());
        let mut request = hyper::Request::put(url).body(Vec::new().into()).unwrap();
        let key = AzureAccessKey::try_new(Azurite::KEY).unwrap();
        let credential = AzureCredential::AccessKey(key);
        AzureAuthorizer::new(&credential, Azurite::ACCOUNT)
            .try_authorize(&mut request)
            .unwrap();
        let (status, answer) = send(&request);
        assert_eq!(status, 201, "{answer}");
    }
}
