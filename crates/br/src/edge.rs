//! The edge: an error of any operation as the user sees it, and the exit status.

use std::fmt;

use br_types::{Classify, Code, Kind};

/// Why a command ended: one sentence with the cause, the next step, the published code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandError {
    pub(crate) kind: Kind,
    pub(crate) code: Code,
    pub(crate) cause: String,
    pub(crate) next_step: Option<String>,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, CommandError>;

impl CommandError {
    /// The user has to change the input.
    pub(crate) fn invalid(cause: impl Into<String>, next_step: impl Into<String>) -> CommandError {
        CommandError {
            kind: Kind::Invalid,
            code: Code::INVALID_ARGUMENT,
            cause: cause.into(),
            next_step: Some(next_step.into()),
        }
    }

    /// Something official that is not built yet was asked for.
    pub(crate) fn unsupported(what: &str, next_step: impl Into<String>) -> CommandError {
        CommandError {
            code: Code::UNSUPPORTED_OPERATION,
            ..CommandError::invalid(format!("{what} is not supported yet"), next_step)
        }
    }

    /// Ctrl-C or SIGTERM.
    pub(crate) fn cancelled() -> CommandError {
        CommandError {
            kind: Kind::Cancelled,
            code: Code::CANCELLED,
            cause: "cancelled".into(),
            next_step: None,
        }
    }

    /// The system refuses something here: a file, a socket.
    pub(crate) fn system(what: impl fmt::Display, error: &std::io::Error) -> CommandError {
        CommandError {
            kind: Kind::Invalid,
            code: Code::INVALID_ARGUMENT,
            cause: format!("{what}: {error}"),
            next_step: None,
        }
    }
}

impl<E: Classify> From<E> for CommandError {
    fn from(error: E) -> CommandError {
        CommandError {
            kind: error.kind(),
            code: error.code(),
            cause: error.to_string(),
            next_step: error.next_step(),
        }
    }
}

/// `cause. Next step. [BR:Area:Name]`, on one line.
impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause.trim_end_matches('.').replace('\n', " "))?;
        if let Some(step) = &self.next_step {
            let mut chars = step.trim_end_matches('.').chars();
            let first: String = chars
                .next()
                .into_iter()
                .flat_map(char::to_uppercase)
                .collect();
            write!(f, ". {first}{}", chars.as_str())?;
        }
        write!(f, ". [{}]", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_then_step_then_code() {
        let error = CommandError::invalid("the table is missing.", "pass --table.");
        assert_eq!(
            error.to_string(),
            "the table is missing. Pass --table. [BR:Common:ErrInvalidArgument]"
        );
        assert_eq!(error.kind.exit_code(), 2);
        let error = CommandError::cancelled();
        assert_eq!(error.to_string(), "cancelled. [BR:Common:ErrCancelled]");
        assert_eq!(error.kind.exit_code(), 130);
    }
}
