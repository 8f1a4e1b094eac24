use crate::{gcs_xml::XmlFront, process::Process, request::send};

/// The `fake-gcs-server`; it asks for no credentials. It writes by the JSON interface only, so a
/// front translates the XML one for it.
pub struct FakeGcs {
    process: Process,
    front: XmlFront,
}

impl FakeGcs {
    /// Starts one with nothing in it.
    pub fn start() -> FakeGcs {
        let process = Process::start_on_port("fake-gcs-server", |port| {
            let arguments = format!(
                "-scheme http -host 127.0.0.1 -port {port} -backend memory -log-level error \
                 -public-host 127.0.0.1:{port}"
            );
            arguments.split_whitespace().map(str::to_owned).collect()
        });
        let front = XmlFront::start(&process.address);
        FakeGcs { process, front }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.front.address()
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) {
        let url = format!("http://{}/storage/v1/b", self.process.address);
        let request = hyper::Request::post(url)
            .header("content-type", "application/json")
            .body(format!("{{\"name\":\"{name}\"}}").into())
            .unwrap();
        let (status, answer) = send(&request);
        assert_eq!(status, 200, "{answer}");
    }
}
