//! The command `br`: flags in, one operation, its result out. What the operation does lives in the
//! crates below.

mod cli;
mod edge;
mod log;
mod progress;
mod prompt;
mod signals;
mod summary;
mod value;

use std::process::ExitCode;

use br_types::Kind;

/// Names a point at which a test wants the process to die, as `NAME:N`.
const KILL_AT: &str = "HOLDFAST_KILL_AT";

fn main() -> ExitCode {
    br_storage::install_tls_provider();
    if cfg!(debug_assertions)
        && let Ok(spec) = std::env::var(KILL_AT)
        && let Err(reason) = br_rt::arm_kill_point(&spec)
    {
        report(&edge::CommandError::invalid(
            format!("{KILL_AT}: {reason}"),
            "pass NAME:N",
        ));
        return ExitCode::from(Kind::Invalid.exit_code());
    }
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

#[expect(clippy::print_stderr, reason = "the edge, where errors are shown")]
fn report(error: &edge::CommandError) {
    tracing::error!(code = %error.code, "br failed: {}", error.cause);
    eprintln!("Error: {error}");
}
