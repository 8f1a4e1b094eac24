use std::{error::Error, fmt, io, sync::Arc};

use br_format::sealed::SealedError;
use br_types::{Classify, Code, Kind};
use object_store::client::{HttpError, HttpErrorKind};

/// What was being done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Connect to the storage.
    Open,
    /// Read an object or a part of it.
    Read,
    /// Ask for size and existence.
    Stat,
    /// List names.
    List,
    /// Write an object.
    Write,
    /// Delete an object.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Stat => "look up",
            Operation::List => "list",
            Operation::Write => "write",
            Operation::Delete => "delete",
        })
    }
}

/// An operation on external storage that failed, after its retries.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {operation} {}: {failure}", Named(.operation, .name, .storage))]
pub struct StorageError {
    /// What was being done.
    pub operation: Operation,
    /// The object's name, relative to the storage; empty for the storage as a whole.
    pub name: String,
    /// The storage, without secrets.
    pub storage: Arc<str>,
    /// Why it failed.
    #[source]
    pub failure: Failure,
}

struct Named<'a>(&'a Operation, &'a str, &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Named(Operation::Open, "", storage) => f.write_str(storage),
            Named(_, "", storage) => write!(f, "objects on {storage}"),
            Named(_, name, storage) => write!(f, "{name:?} on {storage}"),
        }
    }
}

/// Why an operation on external storage failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such object, bucket or directory. The text has the spelling of the system's
    /// error kind, because the official tool looks for it in a store's answer.
    #[error("Io error, NotFound: {0}")]
    NotFound(String),
    /// There is no such bucket or container.
    #[error("there is no such bucket or container")]
    NoBucket,
    /// It is there already, and was to be new.
    #[error("it exists already")]
    AlreadyExists,
    /// The credentials or the rights of the process do not suffice.
    #[error("PermissionDenied: {0}")]
    PermissionDenied(String),
    /// No space left, or a quota is used up.
    #[error("no space is left there: {0}")]
    DiskFull(String),
    /// The other side is busy, unreachable, or broke off.
    #[error("no complete answer: {0}")]
    Unavailable(String),
    /// The object is shorter than what was asked of it.
    #[error("it has {found} bytes where {expected} were expected")]
    Truncated {
        /// Bytes asked for, from the object's start.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The object is larger than the caller accepts.
    #[error("it has {size} bytes, more than the {max} that it may have")]
    TooLarge {
        /// Bytes of the object.
        size: u64,
        /// Bytes accepted.
        max: u64,
    },
    /// No object can have this name.
    #[error("no object can have this name: {0}")]
    BadName(String),
    /// The settings do not fit the backend.
    #[error("{0}")]
    Settings(String),
    /// The other side refuses for a reason of its own.
    #[error("{0}")]
    Refused(String),
    /// A sealed object or keyring is not what was written. The word is what is looked for in a store's
    /// answer.
    #[error("sealed data is damaged: {0}")]
    Damaged(SealedError),
    /// The object is sealed, and no keys were given.
    #[error("it is sealed, and no key was given")]
    IsSealed,
    /// Keys were given for a storage that has none.
    #[error("the storage has no keyring: it is not sealed")]
    NoKeyring {
        /// Whether nothing at all lies there.
        is_empty: bool,
    },
    /// What was to become a sealed storage has other objects.
    #[error("it has objects that are not sealed")]
    NotEmpty,
    /// Somebody else has changed the keyring meanwhile.
    #[error("somebody else changes its keys at this moment")]
    KeyringChanged,
    /// No master key opens the keyring.
    #[error("{text}")]
    MasterKeys {
        /// Why.
        text: String,
        /// What the caller does.
        kind: Kind,
    },
}

impl StorageError {
    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self.failure, Failure::NotFound(_))
    }

    /// Whether an object that was to be new exists already.
    pub fn is_already_exists(&self) -> bool {
        self.failure == Failure::AlreadyExists
    }

    /// What is wrong with a sealed object that is not as it was written, as part of a sentence about it.
    pub fn damage(&self) -> Option<String> {
        match &self.failure {
            Failure::Damaged(error) => Some(error.to_string()),
            _ => None,
        }
    }

    /// Whether it is the keys that do not fit the storage.
    pub fn is_of_keys(&self) -> bool {
        matches!(
            self.failure,
            Failure::IsSealed | Failure::NoKeyring { .. } | Failure::MasterKeys { .. }
        )
    }

    /// Whether it is to be sealed, and nothing is there yet.
    pub fn is_unused(&self) -> bool {
        self.failure == Failure::NoKeyring { is_empty: true }
    }
}

/// For attempts below the operations on objects.
impl Classify for Failure {
    fn kind(&self) -> Kind {
        match self {
            Failure::Unavailable(_) => Kind::Retry,
            Failure::AlreadyExists | Failure::KeyringChanged => Kind::Conflict,
            Failure::MasterKeys { kind, .. } => *kind,
            Failure::NotFound(_)
            | Failure::Damaged(_)
            | Failure::Truncated { .. }
            | Failure::TooLarge { .. }
            | Failure::BadName(_) => Kind::Data,
            Failure::NoBucket
            | Failure::PermissionDenied(_)
            | Failure::DiskFull(_)
            | Failure::Settings(_)
            | Failure::IsSealed
            | Failure::NoKeyring { .. }
            | Failure::NotEmpty
            | Failure::Refused(_) => Kind::Invalid,
        }
    }
}

impl Classify for StorageError {
    fn kind(&self) -> Kind {
        match self.failure {
            Failure::NotFound(_) if self.operation == Operation::Open => Kind::Invalid,
            _ => self.failure.kind(),
        }
    }

    fn code(&self) -> Code {
        match self.failure {
            Failure::PermissionDenied(_) => Code::STORAGE_INVALID_PERMISSION,
            Failure::Settings(_) | Failure::NoBucket => Code::STORAGE_INVALID_CONFIG,
            Failure::NotFound(_) if self.operation == Operation::Open => {
                Code::STORAGE_INVALID_CONFIG
            }
            Failure::DiskFull(_) | Failure::Refused(_) | Failure::Unavailable(_) => {
                Code::STORAGE_UNKNOWN
            }
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self.failure {
            Failure::NotFound(_) => "check that the storage URL is the one the data was written to",
            Failure::NoBucket => "make it, or correct its name or the region in the storage URL",
            Failure::AlreadyExists => "choose a target that nobody else uses",
            Failure::PermissionDenied(_) => {
                "give the process read and write access, or pass other credentials"
            }
            Failure::DiskFull(_) => {
                "free space on the storage or choose another one, then run again"
            }
            Failure::Unavailable(_) => {
                "check that the storage can be reached from here, then run again"
            }
            Failure::Truncated { .. } => "restore the object from a copy, or use another backup",
            Failure::Settings(_) => "correct the storage URL or its flags",
            Failure::Damaged(_) => {
                "somebody may have tampered with the storage: restore the object from a copy, or use \
                 another backup"
            }
            Failure::IsSealed => "pass --seal-key with a master key of this storage",
            Failure::NoKeyring { .. } => {
                "check the storage URL; if what lies there was never sealed, leave out --seal-key"
            }
            Failure::NotEmpty => "choose a new place: all objects of a sealed storage are sealed",
            Failure::KeyringChanged => "wait until the other command is done, then run again",
            Failure::MasterKeys { .. } => "pass --seal-key with a master key of this storage",
            Failure::TooLarge { .. } | Failure::BadName(_) | Failure::Refused(_) => return None,
        };
        Some(step.to_owned())
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Failure {
        use object_store::Error as E;
        let text = innermost(&error);
        let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
        if says(OTHER_REGION) {
            return Failure::Settings(
                "the bucket is in another region than the one that is set".to_owned(),
            );
        }
        match &error {
            // Lists have no class of their own for either.
            E::NotFound { .. } | E::Generic { .. } if says(NO_BUCKET) => Failure::NoBucket,
            E::NotFound { .. } => Failure::NotFound(text),
            E::AlreadyExists { .. } | E::Precondition { .. } => Failure::AlreadyExists,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                Failure::PermissionDenied(text)
            }
            E::InvalidPath { .. } => Failure::BadName(text),
            E::JoinError { .. } => Failure::Unavailable(text),
            E::UnknownConfigurationKey { .. } => Failure::Settings(text),
            _ => of_generic(&error, text),
        }
    }
}

/// What servers say of a bucket that is not there: S3, Azure, GCS.
const NO_BUCKET: &[&str] = &["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];

/// What S3 says of a request to the wrong region, and object_store of an answer that says only where
/// else to ask.
const OTHER_REGION: &[&str] = &[
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "incorrectly configured region",
];

/// Failures that object_store does not tell apart: found by what lies below them.
fn of_generic(error: &object_store::Error, text: String) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(failure) = current.downcast_ref::<Failure>() {
            return failure.clone();
        }
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return of_io(io.kind(), text);
        }
        if let Some(http) = current.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Decode => Failure::Refused(text),
                _ => Failure::Unavailable(text),
            };
        }
        cause = current.source();
    }
    // The type that has the status is not public; its text is.
    match status_in(&error.to_string()) {
        Some(401 | 403) => Failure::PermissionDenied(text),
        Some(507) => Failure::DiskFull(text),
        Some(408 | 429 | 500..=599) => Failure::Unavailable(text),
        _ => Failure::Refused(text),
    }
}

fn of_io(kind: io::ErrorKind, text: String) -> Failure {
    use io::ErrorKind as K;
    match kind {
        K::NotFound => Failure::NotFound(text),
        K::PermissionDenied | K::ReadOnlyFilesystem => Failure::PermissionDenied(text),
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Failure::DiskFull(text),
        K::Interrupted
        | K::TimedOut
        | K::WouldBlock
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::BrokenPipe
        | K::StaleNetworkFileHandle
        | K::UnexpectedEof => Failure::Unavailable(text),
        _ => Failure::Refused(text),
    }
}

fn status_in(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// The text of the deepest cause, which says what happened without repeating the way there; and
/// the outermost one where the deepest says nothing.
fn innermost(error: &object_store::Error) -> String {
    let mut deepest: &dyn Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // An answer without anything to read.
    const TEXT_CHARS_MAX: usize = 400;
    let text = deepest.to_string();
    without_markup(&text)
        .unwrap_or(text)
        .chars()
        .take(TEXT_CHARS_MAX)
        .map(|c| if c == '\n' { ' ' } else { c })
        .collect()
}

/// The text of an error with the answer's code and message in the place of the XML or JSON that they
/// stand in.
fn without_markup(text: &str) -> Option<String> {
    let start = text.find(['<', '{'])?;
    let (before, answer) = text.split_at_checked(start)?;
    let before = before.trim_end_matches([' ', ':']);
    let reason = crate::call::reason(answer)?;
    Some(format!("{before}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Error + Send + Sync + 'static) -> Failure {
        Failure::from(object_store::Error::Generic {
            store: "x",
            source: Box::new(source),
        })
    }

    fn error(failure: Failure) -> StorageError {
        StorageError {
            operation: Operation::Write,
            name: "a".into(),
            storage: "local:///b".into(),
            failure,
        }
    }

    #[test]
    fn causes_are_told_apart() {
        let io = |kind| generic(io::Error::new(kind, "why"));
        assert_eq!(
            io(io::ErrorKind::StorageFull),
            Failure::DiskFull("why".into())
        );
        assert_eq!(
            io(io::ErrorKind::PermissionDenied),
            Failure::PermissionDenied("why".into())
        );
        assert_eq!(
            io(io::ErrorKind::TimedOut),
            Failure::Unavailable("why".into())
        );
        let http = |text: &str| generic(io::Error::other(text.to_owned()));
        assert!(matches!(http("odd"), Failure::Refused(_)));
        assert_eq!(
            status_in("Server returned non-2xx status code: 503 Service"),
            Some(503)
        );
    }

    #[test]
    fn answers_are_readable() {
        let missing = |text: &str| {
            Failure::from(object_store::Error::NotFound {
                path: "a".into(),
                source: text.to_owned().into(),
            })
        };
        let xml = "status code: 404 Not Found: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code>\
                   <Message>It is not there.</Message></Error>";
        let readable = "status code: 404 Not Found: NoSuchKey: It is not there.";
        assert_eq!(missing(xml), Failure::NotFound(readable.into()));
        assert_eq!(missing(&xml.replace("Key", "Bucket")), Failure::NoBucket);
        let json = r#"status code: 404 Not Found: {"error":{"code":404,"message":"Not Found"}}"#;
        let readable = "status code: 404 Not Found: 404: Not Found";
        assert_eq!(missing(json), Failure::NotFound(readable.into()));
        assert_eq!(error(Failure::NoBucket).kind(), Kind::Invalid);
    }

    #[test]
    fn kinds_say_what_the_caller_does() {
        assert_eq!(error(Failure::Unavailable("x".into())).kind(), Kind::Retry);
        assert_eq!(error(Failure::AlreadyExists).kind(), Kind::Conflict);
        let denied = error(Failure::PermissionDenied("x".into()));
        assert_eq!(denied.kind(), Kind::Invalid);
        assert_eq!(denied.code(), Code::STORAGE_INVALID_PERMISSION);
        assert_eq!(
            denied.to_string(),
            "cannot write \"a\" on local:///b: PermissionDenied: x"
        );
    }
}
