//! Questions to the user.

use std::io::{self, IsTerminal as _, Write as _};

use crate::{
    cli::Session,
    edge::{CommandError, Outcome},
};

/// Asks, and waits for `y`. Without a terminal nobody can answer, and that is an error.
pub(crate) async fn confirm(session: &Session, question: &str) -> Outcome<bool> {
    if !io::stdin().is_terminal() {
        return Err(CommandError::invalid(
            "nobody can confirm: the input is no terminal",
            "pass --yes to go on without being asked",
        ));
    }
    let failed = |error: io::Error| CommandError::system("cannot ask", &error);
    let mut stderr = io::stderr();
    write!(stderr, "{question} (y/N) ")
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let read = session.rt.blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = tokio::select! {
        biased;
        answer = read => answer.map_err(failed)?,
        () = session.cancel.cancelled() => return Err(CommandError::cancelled()),
    };
    let answer = answer.trim();
    Ok(answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"))
}
