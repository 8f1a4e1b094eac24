use std::{
    env,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A server has come up after this time or never will; interpreters on a busy machine are slow.
const START_SECONDS_MAX: u64 = 60;

/// A server of another program; it ends with this value, and with this process in any case.
pub(crate) struct Process {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

/// Runs a program until the standard input ends, which it does when the test's process is gone.
const UNTIL_INPUT_ENDS: &str = r#""$@" 2>&1 & server=$!; cat >/dev/null; kill $server"#;

impl Process {
    /// Starts an installed program that says `http://127.0.0.1:PORT` once it listens.
    pub(crate) fn start(
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Process {
        let (mut child, lines) = spawn(program, arguments, environment);
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(Duration::from_secs(START_SECONDS_MAX)) {
            if let Some(address) = listening(&line) {
                return Process { child, address };
            }
            said.push(line);
        }
        drop(child.stdin.take());
        panic!("{program} did not start: {said:?}");
    }

    /// Starts an installed program on a port that it is told: `arguments` makes them of the port.
    pub(crate) fn start_on_port(
        program: &str,
        arguments: impl FnOnce(u16) -> Vec<String>,
    ) -> Process {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let arguments = arguments(port);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (mut child, lines) = spawn(program, &arguments, &[]);
        let address = format!("127.0.0.1:{port}");
        for _ in 0..START_SECONDS_MAX * 20 {
            if TcpStream::connect(&address).is_ok() {
                return Process { child, address };
            }
            thread::sleep(Duration::from_millis(50));
        }
        drop(child.stdin.take());
        panic!(
            "{program} did not start: {:?}",
            lines.try_iter().collect::<Vec<_>>()
        );
    }
}

fn spawn(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Child, mpsc::Receiver<String>) {
    let mut child = Command::new("sh")
        .args(["-c", UNTIL_INPUT_ENDS, "sh"])
        .arg(installed(program))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    // Reads to the end, or the server would wait for room in the pipe.
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    (child, lines)
}

/// The address in the line by which a server says that it listens.
fn listening(line: &str) -> Option<String> {
    let (_, after) = line.split_once("http://127.0.0.1:")?;
    let digits = after.chars().take_while(char::is_ascii_digit);
    let port: u16 = digits.collect::<String>().parse().ok()?;
    (port != 0).then(|| format!("127.0.0.1:{port}"))
}

/// Where `scripts/install-test-servers` puts what runs a server.
fn installed(program: &str) -> PathBuf {
    let folder = env::var_os("HOLDFAST_SERVERS").map_or_else(
        || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cache/holdfast/servers/bin"),
        PathBuf::from,
    );
    folder.join(program)
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
