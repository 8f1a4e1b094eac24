use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::TaskError;
use crate::log::LogFormatError;
use crate::log::time::rfc3339;

const TEXT: &str = "text/plain;charset=UTF-8";
const ERROR: &str = "application/x-protobuf;messagetype=brpb.StreamBackupError";

/// The value of [`super::TaskKey::Pause`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Versions before 8.5 wrote nothing.
    V1,
    /// Who paused it, and why.
    V2(PauseV2),
}

/// Who paused a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Severity {
    /// An error: somebody has to look at it.
    Error,
    /// A person.
    Manual,
    /// What newer tools have.
    Other(String),
}

impl Severity {
    /// As it stands in the value.
    pub fn name(&self) -> &str {
        match self {
            Severity::Error => "ERROR",
            Severity::Manual => "MANUAL",
            Severity::Other(name) => name,
        }
    }

    fn parse(name: String) -> Severity {
        match name.as_str() {
            "ERROR" => Severity::Error,
            "MANUAL" => Severity::Manual,
            _ => Severity::Other(name),
        }
    }
}

/// Why a task was paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// For people.
    Text(String),
    /// The error of a store.
    Error(TaskError),
    /// What newer tools have: type and bytes.
    Other(String, Vec<u8>),
}

/// Who paused a task, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseV2 {
    /// A person or an error.
    pub severity: Severity,
    /// The host where that happened.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// When, RFC 3339.
    pub time: String,
    /// Why.
    pub reason: PauseReason,
}

#[derive(Deserialize, Serialize)]
struct Json {
    severity: String,
    #[serde(default)]
    operation_hostname: String,
    #[serde(default)]
    operation_pid: u32,
    #[serde(default)]
    operation_time: String,
    #[serde(default)]
    payload_type: String,
    #[serde(default)]
    payload: Option<String>,
}

impl PauseV2 {
    /// A pause at this moment.
    pub fn new(
        severity: Severity,
        (host, pid): (String, u32),
        now_unix_ms: u64,
        reason: PauseReason,
    ) -> PauseV2 {
        PauseV2 {
            severity,
            host,
            pid,
            time: rfc3339(now_unix_ms),
            reason,
        }
    }
}

impl Pause {
    /// Reads the value.
    ///
    /// # Errors
    /// It is neither empty nor JSON of the right form. The task is paused all the same.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Pause, LogFormatError> {
        if bytes.is_empty() {
            return Ok(Pause::V1);
        }
        let json: Json = serde_json::from_slice(bytes)
            .map_err(|error| LogFormatError::malformed(key, error.to_string()))?;
        let payload = STANDARD
            .decode(json.payload.unwrap_or_default())
            .map_err(|error| LogFormatError::malformed(key, error.to_string()))?;
        Ok(Pause::V2(PauseV2 {
            severity: Severity::parse(json.severity),
            host: json.operation_hostname,
            pid: json.operation_pid,
            time: json.operation_time,
            reason: read_reason(key, json.payload_type, payload),
        }))
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let Pause::V2(pause) = self else {
            return Vec::new();
        };
        let (payload_type, payload) = match &pause.reason {
            PauseReason::Text(text) => (TEXT.to_owned(), text.clone().into_bytes()),
            PauseReason::Error(error) => (ERROR.to_owned(), error.encode()),
            PauseReason::Other(kind, bytes) => (kind.clone(), bytes.clone()),
        };
        serde_json::to_vec(&Json {
            severity: pause.severity.name().to_owned(),
            operation_hostname: pause.host.clone(),
            operation_pid: pause.pid,
            operation_time: pause.time.clone(),
            payload_type,
            payload: Some(STANDARD.encode(payload)),
        })
        .expect("text and numbers have a JSON form")
    }

    /// Whether an error paused it.
    pub fn is_error(&self) -> bool {
        matches!(self, Pause::V2(pause) if pause.severity == Severity::Error)
    }
}

/// Stores write `messageType`, tools `messagetype`; names of parameters have no case.
fn read_reason(key: &str, kind: String, payload: Vec<u8>) -> PauseReason {
    let lower = kind.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let is_error = parts.any(|part| part == "messagetype=brpb.streambackuperror");
    match media {
        "text/plain" => match String::from_utf8(payload) {
            Ok(text) => PauseReason::Text(text),
            Err(error) => PauseReason::Other(kind, error.into_bytes()),
        },
        "application/x-protobuf" if is_error => match TaskError::decode(key, &payload) {
            Ok(error) => PauseReason::Error(error),
            Err(_) => PauseReason::Other(kind, payload),
        },
        _ => PauseReason::Other(kind, payload),
    }
}
