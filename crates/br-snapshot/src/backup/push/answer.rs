//! What a store's answer means: a finished piece, something to try again, or the end.
//!
//! # Source
//! TiKV components/backup/src/errors.rs for the texts; the official tool's lists of them.

use br_format::backupmeta::DataFile;
use br_proto::{
    backup::{BackupResponse, Error, error::Detail},
    errorpb,
    kvrpcpb::{ApiVersion, LockInfo},
};
use br_types::{Classify, Code, KeyRange, Kind, RawKey, StoreId, TimeStamp};

/// Parts of texts of errors that pass by themselves: the network, the store's shutdown, a busy
/// object storage. In lower case.
const PASSING: [&str; 17] = [
    "server closed",
    "connection refused",
    "connection reset by peer",
    "channel closed",
    "error trying to connect",
    "connection closed before message completed",
    "body write aborted",
    "error during dispatch",
    "put object timeout",
    "timeout after",
    "internalerror",
    "not read from or written to within the timeout period",
    "<code>requesttimeout</code>",
    "<code>invalidpart</code>",
    "end of file before message length reached",
    // Said by a store that stops in the middle of a request.
    "context canceled",
    "<code>slowdown</code>",
];

/// A piece of a backup: a range of keys and the files that hold it, none if it has no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The store that answered.
    pub(crate) store: StoreId,
    /// The keys.
    pub(crate) range: KeyRange<RawKey>,
    /// The files of the range.
    pub(crate) files: Vec<DataFile>,
}

/// What an answer means.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A piece is finished.
    Piece(Piece),
    /// A transaction's lock is in the way; the piece comes again once it is resolved.
    Locked(Box<LockInfo>),
    /// The piece comes again by itself.
    Again {
        /// What the store said.
        why: String,
        /// Whether this is known to pass. What is not known to is tried a few times only.
        is_known: bool,
    },
    /// No use to ask again.
    Refused(Refusal),
}

/// Why a store cannot back up, now or ever.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The external storage has no such directory for the store.
    #[error("store {store} does not find the external storage: {message}")]
    StorageMissing {
        /// The store.
        store: StoreId,
        /// What it said.
        message: String,
    },
    /// The store may not write to the external storage.
    #[error("store {store} may not write to the external storage: {message}")]
    StoragePermission {
        /// The store.
        store: StoreId,
        /// What it said.
        message: String,
    },
    /// The external storage is full.
    #[error("store {store} finds no space left on the external storage: {message}")]
    StorageFull {
        /// The store.
        store: StoreId,
        /// What it said.
        message: String,
    },
    /// The store has no credentials for the external storage.
    #[error("store {store} has no credentials for the external storage: {message}")]
    NoCredentials {
        /// The store.
        store: StoreId,
        /// What it said.
        message: String,
    },
    /// The store belongs to another cluster.
    #[error("store {store} belongs to cluster {found}, not to {wanted}")]
    ClusterId {
        /// The store.
        store: StoreId,
        /// The store's cluster.
        found: u64,
        /// The cluster of PD.
        wanted: u64,
    },
    /// The store does not give out raw keys in the API version that was asked for.
    #[error(
        "store {store} refuses a raw backup in API version {}: {message}",
        requested.as_str_name()
    )]
    ApiVersion {
        /// The store.
        store: StoreId,
        /// The version that it was asked for.
        requested: ApiVersion,
        /// What it said.
        message: String,
    },
    /// The answer breaks the protocol.
    #[error("store {store} answered against the protocol: {message}")]
    Protocol {
        /// The store.
        store: StoreId,
        /// How.
        message: String,
    },
    /// An unknown error came too often.
    #[error("store {store} failed {times} times, the last time with: {message}")]
    TooOften {
        /// The store.
        store: StoreId,
        /// How often.
        times: u32,
        /// What it said last.
        message: String,
    },
}

impl Classify for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Refusal::StorageMissing { .. }
            | Refusal::StoragePermission { .. }
            | Refusal::NoCredentials { .. }
            | Refusal::ClusterId { .. }
            | Refusal::ApiVersion { .. } => Kind::Invalid,
            Refusal::StorageFull { .. } | Refusal::TooOften { .. } => Kind::Retry,
            Refusal::Protocol { .. } => Kind::Internal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Refusal::StorageMissing { .. } | Refusal::StorageFull { .. } => Code::KV_STORAGE,
            Refusal::StoragePermission { .. } | Refusal::NoCredentials { .. } => {
                Code::STORAGE_INVALID_PERMISSION
            }
            Refusal::ClusterId { .. } => Code::KV_CLUSTER_ID_MISMATCH,
            Refusal::ApiVersion { .. } => Code::UNSUPPORTED_OPERATION,
            Refusal::Protocol { .. } | Refusal::TooOften { .. } => Code::KV_UNKNOWN,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            Refusal::StorageMissing { .. } => {
                "Use a place that this machine and every store reach under the same path, such as \
                 a shared mount or an object storage"
            }
            Refusal::StoragePermission { .. } => {
                "Give the user that the stores run as the right to write there"
            }
            Refusal::StorageFull { .. } => "Make room there and start again with an empty target",
            Refusal::NoCredentials { .. } => {
                "Send yours with --send-credentials-to-tikv=true, or set credentials up for the \
                 stores"
            }
            Refusal::ClusterId { .. } => "Check that --pd is the PD of this cluster",
            Refusal::ApiVersion { .. } => {
                "Check storage.api-version and storage.enable-ttl in the configuration of the \
                 stores: all must have the same"
            }
            Refusal::TooOften { store, .. } => {
                return Some(format!(
                    "Look into the log of store {store}, then start again"
                ));
            }
            Refusal::Protocol { .. } => return None,
        };
        Some(step.to_owned())
    }
}

/// What of the request an answer is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// The end version of the request.
    pub(crate) end_ts: TimeStamp,
    /// The API version that was asked for, if it was.
    pub(crate) raw_api_version: Option<ApiVersion>,
}

/// Tells what an answer means.
pub(crate) fn read(store: StoreId, expected: Expected, response: BackupResponse) -> Answer {
    match response.error {
        Some(error) => read_error(store, expected, error),
        None => match read_piece(store, expected, response) {
            Ok(piece) => Answer::Piece(piece),
            Err(message) => Answer::Refused(Refusal::Protocol { store, message }),
        },
    }
}

fn read_piece(
    store: StoreId,
    expected: Expected,
    response: BackupResponse,
) -> Result<Piece, String> {
    let range: KeyRange<RawKey> = KeyRange::new(response.start_key, response.end_key);
    if let Some(requested) = expected.raw_api_version
        && response.api_version != requested as i32
    {
        return Err(format!("files in API version {}", response.api_version));
    }
    let place = format!("answer of store {store}");
    let files = response
        .files
        .into_iter()
        .map(|file| {
            let file = DataFile::from_proto(&place, file).map_err(|error| error.to_string())?;
            if file.end_ts != expected.end_ts {
                return Err(format!(
                    "file {} is of timestamp {}",
                    file.name, file.end_ts
                ));
            }
            if !range.covers(&file.range) {
                return Err(format!(
                    "file {} holds {}, not {range}",
                    file.name, file.range
                ));
            }
            Ok(file)
        })
        .collect::<Result<_, _>>()?;
    Ok(Piece {
        store,
        range,
        files,
    })
}

fn read_error(store: StoreId, expected: Expected, error: Error) -> Answer {
    match error.detail {
        Some(Detail::ClusterIdError(ids)) => Answer::Refused(Refusal::ClusterId {
            store,
            found: ids.current,
            wanted: ids.request,
        }),
        Some(Detail::KvError(key_error)) => match key_error.locked {
            Some(lock) => Answer::Locked(Box::new(lock)),
            None => again(format!("{key_error:?}"), true),
        },
        Some(Detail::RegionError(error)) => again(region_text(&error), true),
        None => read_text(store, expected, error.msg),
    }
}

fn again(why: String, is_known: bool) -> Answer {
    Answer::Again { why, is_known }
}

fn region_text(error: &errorpb::Error) -> String {
    if error.message.is_empty() {
        format!("{error:?}")
    } else {
        error.message.clone()
    }
}

fn read_text(store: StoreId, expected: Expected, message: String) -> Answer {
    let lower = message.to_lowercase();
    let has = |part: &str| lower.contains(part);
    if let Some(requested) = expected.raw_api_version
        && has("invalid backup version")
    {
        return Answer::Refused(Refusal::ApiVersion {
            store,
            requested,
            message,
        });
    }
    if has("permissiondenied") || has("permission denied") {
        return Answer::Refused(Refusal::StoragePermission { store, message });
    }
    if has("no space left on device") || has("storagefull") {
        return Answer::Refused(Refusal::StorageFull { store, message });
    }
    if has("credential info not found") {
        return Answer::Refused(Refusal::NoCredentials { store, message });
    }
    if has("io") && (has("notfound") || has("no such file or directory")) {
        return Answer::Refused(Refusal::StorageMissing { store, message });
    }
    let is_known = PASSING.iter().any(|part| has(part));
    again(message, is_known)
}

#[cfg(test)]
mod tests {
    use br_proto::{backup::ClusterIdError, kvrpcpb::KeyError};

    use super::*;

    const EXPECTED: Expected = Expected {
        end_ts: TimeStamp(100),
        raw_api_version: None,
    };

    fn of_text(text: &str) -> Answer {
        let error = Error {
            msg: text.to_owned(),
            detail: None,
        };
        read(
            StoreId(7),
            EXPECTED,
            BackupResponse {
                error: Some(error),
                ..Default::default()
            },
        )
    }

    fn of_detail(detail: Detail) -> Answer {
        let error = Error {
            msg: String::new(),
            detail: Some(detail),
        };
        read(
            StoreId(7),
            EXPECTED,
            BackupResponse {
                error: Some(error),
                ..Default::default()
            },
        )
    }

    #[test]
    fn texts_tell_what_to_do() {
        let refusal = |text| match of_text(text) {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        let missing = r#"Io(Custom { kind: NotFound, error: "/backup is not found" })"#;
        assert!(matches!(refusal(missing), Refusal::StorageMissing { .. }));
        let denied = r#"Io(Os { code: 13, kind: PermissionDenied, message: "denied" })"#;
        assert!(matches!(refusal(denied), Refusal::StoragePermission { .. }));
        let full = r#"Io(Os { code: 28, kind: StorageFull, message: "No space left on device" })"#;
        assert!(matches!(refusal(full), Refusal::StorageFull { .. }));
        for (text, known) in [
            ("Connection reset by peer (os error 104)", true),
            ("<Code>RequestTimeout</Code>", true),
            ("something nobody has seen", false),
        ] {
            let answer = of_text(text);
            assert!(
                matches!(&answer, Answer::Again { is_known, .. } if *is_known == known),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn only_raw_backups_are_refused_for_their_api_version() {
        let text = "Other(\"invalid backup version, cur: V2, dst: V1\")";
        assert!(matches!(
            of_text(text),
            Answer::Again {
                is_known: false,
                ..
            }
        ));
        let expected = Expected {
            raw_api_version: Some(ApiVersion::V1),
            ..EXPECTED
        };
        let error = Some(Error {
            msg: text.to_owned(),
            detail: None,
        });
        let response = BackupResponse {
            error,
            ..Default::default()
        };
        let answer = read(StoreId(7), expected, response);
        let Answer::Refused(refusal @ Refusal::ApiVersion { .. }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(refusal.kind().exit_code(), 2);
    }

    #[test]
    fn details_tell_what_to_do() {
        let lock = LockInfo {
            lock_version: 5,
            ..Default::default()
        };
        let locked = KeyError {
            locked: Some(lock),
            ..Default::default()
        };
        assert!(
            matches!(of_detail(Detail::KvError(locked)), Answer::Locked(lock) if lock.lock_version == 5)
        );
        let region = errorpb::Error {
            message: "moved".to_owned(),
            ..Default::default()
        };
        let answer = of_detail(Detail::RegionError(region));
        assert!(matches!(answer, Answer::Again { why, is_known: true } if why == "moved"));
        let ids = ClusterIdError {
            current: 1,
            request: 2,
        };
        let answer = of_detail(Detail::ClusterIdError(ids));
        assert!(matches!(
            answer,
            Answer::Refused(Refusal::ClusterId { found: 1, .. })
        ));
    }

    #[test]
    fn files_must_match_the_request() {
        let file = |end_version, start_key: &str| br_proto::backup::File {
            name: "7/1_write.sst".to_owned(),
            sha256: vec![1; 32],
            start_key: start_key.into(),
            end_key: "c".into(),
            end_version,
            cf: "write".to_owned(),
            ..Default::default()
        };
        let answer = |file| {
            let response = BackupResponse {
                start_key: "b".into(),
                end_key: "c".into(),
                files: vec![file],
                ..Default::default()
            };
            read(StoreId(7), EXPECTED, response)
        };
        assert!(matches!(answer(file(100, "b")), Answer::Piece(piece) if piece.files.len() == 1));
        for wrong in [file(101, "b"), file(100, "a")] {
            assert!(matches!(
                answer(wrong),
                Answer::Refused(Refusal::Protocol { .. })
            ));
        }
    }
}
