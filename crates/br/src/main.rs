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

fn main() -> ExitCode {
    br_storage::install_tls_provider();
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
