use br_proto::{coprocessor, errorpb, import_sstpb, kvrpcpb, metapb};
use br_types::{Classify, Code, Kind, StoreId};

/// Why a store does not answer for a region, told apart by what the caller does next.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegionFault {
    /// Another peer leads.
    #[error("the store does not lead the region")]
    NotLeader {
        /// Who leads, if the store knows.
        leader: Option<metapb::Peer>,
    },
    /// The region has another shape by now.
    #[error("the region has changed")]
    EpochNotMatch {
        /// What is there instead, as far as the store knows.
        current: Vec<metapb::Region>,
    },
    /// The store has no such region (any more).
    #[error("the store does not have the region")]
    RegionNotFound,
    /// The keys belong to another region.
    #[error("the keys are not in the region")]
    KeyNotInRegion,
    /// The address belongs to another store by now.
    #[error("the address belongs to store {actual}, not to {expected}")]
    StoreNotMatch {
        /// Whom the request was for.
        expected: StoreId,
        /// Who got it.
        actual: StoreId,
    },
    /// The region merges, or is not ready for another passing reason.
    #[error("the region is not ready: {message}")]
    NotReady {
        /// In the store's words.
        message: String,
    },
    /// The store has too much to do.
    #[error("the store is busy: {reason}")]
    ServerIsBusy {
        /// In the store's words.
        reason: String,
        /// How long it wants to be left alone, milliseconds; 0: it does not say.
        backoff_ms: u64,
    },
    /// The term changed under the request; whether it was done is not known.
    #[error("the region changed its leader meanwhile")]
    StaleCommand,
    /// No room on stores.
    #[error("the disk of store {stores:?} is full: {reason}")]
    DiskFull {
        /// Those without room.
        stores: Vec<u64>,
        /// In the store's words.
        reason: String,
    },
    /// The request is too large for one raft entry.
    #[error("the request of {entry_size} bytes is too large for the store")]
    TooLarge {
        /// Its size in bytes.
        entry_size: u64,
    },
    /// The store does not know whether it carried the request out.
    #[error("the store does not know the outcome: {message}")]
    Undetermined {
        /// In the store's words.
        message: String,
    },
    /// A flashback is under way in the region.
    #[error("a flashback of the region is under way")]
    Flashback,
    /// Something else.
    #[error("the store refuses: {message}")]
    Other {
        /// In the store's words.
        message: String,
    },
}

impl From<errorpb::Error> for RegionFault {
    fn from(error: errorpb::Error) -> RegionFault {
        let message = error.message;
        if let Some(not_leader) = error.not_leader {
            let leader = not_leader.leader.filter(|leader| leader.store_id != 0);
            RegionFault::NotLeader { leader }
        } else if let Some(epoch) = error.epoch_not_match {
            RegionFault::EpochNotMatch {
                current: epoch.current_regions,
            }
        } else if error.region_not_found.is_some()
            || error.mismatch_peer_id.is_some()
            || error.is_witness.is_some()
        {
            RegionFault::RegionNotFound
        } else if error.key_not_in_region.is_some() {
            RegionFault::KeyNotInRegion
        } else if let Some(mismatch) = error.store_not_match {
            RegionFault::StoreNotMatch {
                expected: StoreId(mismatch.request_store_id),
                actual: StoreId(mismatch.actual_store_id),
            }
        } else if let Some(busy) = error.server_is_busy {
            RegionFault::ServerIsBusy {
                reason: busy.reason,
                backoff_ms: busy.backoff_ms,
            }
        } else if error.stale_command.is_some() {
            RegionFault::StaleCommand
        } else if let Some(full) = error.disk_full {
            RegionFault::DiskFull {
                stores: full.store_id,
                reason: full.reason,
            }
        } else if let Some(large) = error.raft_entry_too_large {
            RegionFault::TooLarge {
                entry_size: large.entry_size,
            }
        } else if error.undetermined_result.is_some() {
            RegionFault::Undetermined { message }
        } else if error.flashback_in_progress.is_some() || error.flashback_not_prepared.is_some() {
            RegionFault::Flashback
        } else if error.max_timestamp_not_synced.is_some()
            || error.read_index_not_ready.is_some()
            || error.proposal_in_merging_mode.is_some()
            || error.data_is_not_ready.is_some()
            || error.region_not_initialized.is_some()
            || error.recovery_in_progress.is_some()
            || error.bucket_version_not_match.is_some()
        {
            RegionFault::NotReady { message }
        } else {
            RegionFault::Other { message }
        }
    }
}

impl Classify for RegionFault {
    fn kind(&self) -> Kind {
        match self {
            RegionFault::NotLeader { .. }
            | RegionFault::EpochNotMatch { .. }
            | RegionFault::RegionNotFound
            | RegionFault::KeyNotInRegion
            | RegionFault::StoreNotMatch { .. }
            | RegionFault::StaleCommand => Kind::Reroute,
            RegionFault::NotReady { .. }
            | RegionFault::ServerIsBusy { .. }
            | RegionFault::DiskFull { .. }
            | RegionFault::Undetermined { .. }
            | RegionFault::Flashback
            | RegionFault::Other { .. } => Kind::Retry,
            RegionFault::TooLarge { .. } => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self {
            RegionFault::NotLeader { .. } => Code::KV_NOT_LEADER,
            RegionFault::EpochNotMatch { .. } => Code::KV_EPOCH_NOT_MATCH,
            RegionFault::KeyNotInRegion => Code::KV_KEY_NOT_IN_REGION,
            RegionFault::DiskFull { .. } => Code::KV_DISK_FULL,
            _ => Code::KV_STORAGE,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            RegionFault::DiskFull { .. } => Some("Make room on that store".into()),
            RegionFault::Flashback => Some("Wait until the flashback has ended".into()),
            _ => None,
        }
    }
}

/// Answers that may carry a region error.
pub trait RegionResponse {
    /// Takes the error out of the answer.
    fn take_region_error(&mut self) -> Option<errorpb::Error>;
}

macro_rules! region_responses {
    ($field:ident: $($name:ty),* $(,)?) => {$(
        impl RegionResponse for $name {
            fn take_region_error(&mut self) -> Option<errorpb::Error> {
                self.$field.take()
            }
        }
    )*};
}

region_responses!(region_error:
    kvrpcpb::GetResponse,
    kvrpcpb::BatchGetResponse,
    kvrpcpb::ScanResponse,
    kvrpcpb::PrewriteResponse,
    kvrpcpb::CommitResponse,
    kvrpcpb::BatchRollbackResponse,
    kvrpcpb::PessimisticRollbackResponse,
    kvrpcpb::TxnHeartBeatResponse,
    kvrpcpb::CheckTxnStatusResponse,
    kvrpcpb::CheckSecondaryLocksResponse,
    kvrpcpb::ScanLockResponse,
    kvrpcpb::ResolveLockResponse,
    kvrpcpb::DeleteRangeResponse,
    kvrpcpb::SplitRegionResponse,
    kvrpcpb::RawGetResponse,
    kvrpcpb::RawPutResponse,
    kvrpcpb::RawBatchPutResponse,
    kvrpcpb::RawDeleteResponse,
    kvrpcpb::RawScanResponse,
    kvrpcpb::RawDeleteRangeResponse,
    kvrpcpb::RawChecksumResponse,
    coprocessor::Response,
);
region_responses!(error: import_sstpb::IngestResponse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_typed_part_is_tried_again() {
        let fault = RegionFault::from(errorpb::Error {
            message: "failed to split: somehow".into(),
            ..Default::default()
        });
        assert_eq!(fault.kind(), Kind::Retry);
    }

    #[test]
    fn a_leader_without_store_is_no_hint() {
        let fault = RegionFault::from(errorpb::Error {
            not_leader: Some(errorpb::NotLeader {
                region_id: 1,
                leader: Some(metapb::Peer::default()),
            }),
            ..Default::default()
        });
        assert_eq!(fault, RegionFault::NotLeader { leader: None });
        assert_eq!(fault.kind(), Kind::Reroute);
    }
}
