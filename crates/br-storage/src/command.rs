//! Commands of the user that give credentials.

use std::{
    io::Read,
    process::{Command, Stdio},
    time::Duration,
};

use br_rt::Rt;

/// A command that gives credentials takes no longer than this, as in Amazon's tools.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether it is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// What it says is small. One that says more than a pipe holds does not end in time.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// What a command says. The error goes on after the command's name.
pub(crate) async fn run(rt: &Rt, command: &[&str]) -> Result<String, String> {
    let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
    let own = rt.clone();
    rt.blocking(move || run_blocking(&own, &command)).await
}

fn run_blocking(rt: &Rt, command: &[String]) -> Result<String, String> {
    let [program, arguments @ ..] = command else {
        return Err("names no program".to_owned());
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // What it says there may hold secrets, and belongs to the user's terminal only.
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("cannot be started: {error}"))?;
    let begun = rt.now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if rt.now().since(begun) < TIMEOUT => rt.pause_thread(LOOK_INTERVAL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("is not done after {} s", TIMEOUT.as_secs()));
            }
            Err(error) => return Err(format!("is lost: {error}")),
        }
    };
    if !status.success() {
        return Err(format!("fails ({status})"));
    }
    let mut said = String::new();
    let Some(output) = child.stdout.take() else {
        return Err("says nothing".to_owned());
    };
    match output.take(OUTPUT_BYTES_MAX).read_to_string(&mut said) {
        Ok(_) => Ok(said),
        Err(_) => Err("says what is no text".to_owned()),
    }
}
