use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Runs a cluster for a test; killed when dropped.
pub(crate) struct Playground {
    process: Child,
    /// PD's address.
    pub(crate) pd: String,
}

impl Playground {
    pub(crate) fn start(dir: &Path) -> Playground {
        Playground::start_with(dir, &[])
    }

    /// With more flags.
    pub(crate) fn start_with(dir: &Path, flags: &[&str]) -> Playground {
        let mut process = Command::new(env!("CARGO_BIN_EXE_br"))
            .args([
                "playground",
                "--stores",
                "2",
                "--pd-addr",
                "127.0.0.1:0",
                "--json",
            ])
            .args(flags)
            .args(["--log-file", &dir.join("playground.log").to_string_lossy()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(ready["ready"], true);
        assert_eq!(ready["stores"].as_array().map(Vec::len), Some(2));
        Playground {
            process,
            pd: ready["pd"].as_str().expect("an address").to_owned(),
        }
    }

    /// What PD answers on a path of its HTTP API.
    pub(crate) fn ask_pd(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.pd).expect("PD listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.pd
        );
        stream.write_all(request.as_bytes()).expect("PD reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("PD answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        body.to_owned()
    }

    /// SIGTERM, as an operator stops it.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let id = self.process.id().to_string();
        Command::new("kill").arg(&id).status().expect("kill runs");
        self.process.wait().expect("it ends").code()
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
