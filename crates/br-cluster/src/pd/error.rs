use br_proto::pdpb;
use br_types::{
    Classify, ClusterId, Code, EncodedKey, KeyRange, Kind, RegionId, StoreId, TimeStamp,
};

use crate::RpcError;

/// What PD answered instead of a result.
#[derive(Debug, thiserror::Error)]
pub enum PdError {
    /// No answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// None of the members knows a leader, or none answers.
    #[error("no leader of PD found among {endpoints}: {cause}")]
    NoLeader {
        /// Who was asked.
        endpoints: String,
        /// The last answer.
        cause: String,
    },
    /// The members belong to another cluster than at the start.
    #[error("PD belongs to cluster {found}, not to cluster {expected}")]
    ClusterIdMismatch {
        /// The cluster of this client.
        expected: ClusterId,
        /// Whose PD answered.
        found: ClusterId,
    },
    /// PD took the call and refused it.
    #[error("{method}: {message}")]
    Refused {
        /// The method.
        method: &'static str,
        /// `pdpb.ErrorType`.
        kind: pdpb::ErrorType,
        /// In PD's words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("{method}: the answer of PD {what}")]
    InvalidResponse {
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The regions that PD gave do not cover the range yet.
    #[error("the regions of {range} are in motion: {what}")]
    RegionsIncomplete {
        /// The range.
        range: KeyRange<EncodedKey>,
        /// The hole.
        what: String,
    },
    /// There is no such region.
    #[error("there is no region {0}")]
    NoRegion(RegionId),
    /// There is no such store.
    #[error("there is no store {0}")]
    NoStore(StoreId),
    /// Stores of another make do not know sealed storages: they would write plain objects.
    #[error("stores that neither read nor write sealed storages: {}", listed(.0))]
    CannotSeal(Vec<StoreId>),
    /// What should be protected from garbage collection is gone already.
    #[error("versions at {wanted} may be collected already: the safe point is {safe_point}")]
    SafePointExceeded {
        /// The timestamp that must stay readable.
        wanted: TimeStamp,
        /// PD's safe point.
        safe_point: TimeStamp,
    },
    /// A call over HTTP failed.
    #[error(transparent)]
    Http(#[from] crate::HttpError),
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Classify for PdError {
    fn kind(&self) -> Kind {
        match self {
            PdError::Rpc(error) => error.kind(),
            PdError::Http(error) => error.kind(),
            PdError::NoLeader { .. } | PdError::RegionsIncomplete { .. } => Kind::Retry,
            PdError::ClusterIdMismatch { .. }
            | PdError::SafePointExceeded { .. }
            | PdError::CannotSeal(_) => Kind::Invalid,
            PdError::Refused { kind, .. } => match kind {
                // A cluster that is just starting.
                pdpb::ErrorType::NotBootstrapped => Kind::Retry,
                _ => Kind::Invalid,
            },
            PdError::InvalidResponse { .. } => Kind::Internal,
            PdError::NoRegion(_) => Kind::Reroute,
            PdError::NoStore(_) => Kind::Reroute,
            PdError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            PdError::Rpc(error) => error.code(),
            PdError::Http(error) => error.code(),
            PdError::NoLeader { .. } => Code::PD_LEADER_NOT_FOUND,
            PdError::ClusterIdMismatch { .. } => Code::KV_CLUSTER_ID_MISMATCH,
            PdError::RegionsIncomplete { .. } => Code::PD_BATCH_SCAN_REGION,
            PdError::InvalidResponse { .. } => Code::PD_INVALID_RESPONSE,
            PdError::SafePointExceeded { .. } => Code::BACKUP_GC_SAFEPOINT_EXCEEDED,
            PdError::Refused { .. } | PdError::NoRegion(_) | PdError::NoStore(_) => {
                Code::PD_UPDATE_FAILED
            }
            PdError::CannotSeal(_) => Code::UNSUPPORTED_OPERATION,
            PdError::Cancelled => Code::CANCELLED,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            PdError::Rpc(error) => error.next_step(),
            PdError::Http(error) => error.next_step(),
            PdError::NoLeader { cause, .. } if cause.contains("ertificate") => Some(
                "Check --ca, --cert and --key: who signed the certificates, and that none has \
                 expired"
                    .into(),
            ),
            PdError::NoLeader { .. } => {
                Some("Check the addresses given with --pd, and that PD has a leader".into())
            }
            PdError::CannotSeal(_) => Some(
                "leave out --seal-key: TiKV's stores know --crypter.method and, for a log, \
                 --master-key"
                    .into(),
            ),
            PdError::ClusterIdMismatch { .. } => {
                Some("Give only addresses of one cluster with --pd".into())
            }
            PdError::SafePointExceeded { .. } => {
                Some("Choose a later timestamp, or raise tidb_gc_life_time".into())
            }
            _ => None,
        }
    }
}

fn listed(stores: &[StoreId]) -> String {
    let stores: Vec<_> = stores.iter().map(StoreId::to_string).collect();
    stores.join(", ")
}

impl PdError {
    /// Whether PD does not know the method: an older version.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, PdError::Rpc(error) if error.is_unimplemented())
    }

    /// Whether PD refused with that type.
    pub fn is_refused_as(&self, wanted: pdpb::ErrorType) -> bool {
        matches!(self, PdError::Refused { kind, .. } if *kind == wanted)
    }
}
