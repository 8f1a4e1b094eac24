use br_proto::kvrpcpb;
use br_types::TimeStamp;

/// How a transaction stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TxnStatus {
    /// Committed.
    Committed(TimeStamp),
    /// Rolled back, or it never was.
    RolledBack,
    /// Only a pessimistic lock of it was there, and it is removed: nothing is written, and nothing
    /// is on record.
    NothingPrewritten,
    /// It lives.
    Alive {
        /// Whether readers at the asked timestamp may pass its locks: it will commit later.
        passable: bool,
        /// Its primary lock.
        primary: Option<Box<kvrpcpb::LockInfo>>,
        /// Milliseconds from its start on.
        ttl_ms: u64,
    },
}

impl TxnStatus {
    /// Reads the answer of `KvCheckTxnStatus`.
    pub(crate) fn from_answer(answer: kvrpcpb::CheckTxnStatusResponse) -> TxnStatus {
        use kvrpcpb::Action;
        let action = answer.action();
        if answer.commit_version != 0 {
            return TxnStatus::Committed(TimeStamp(answer.commit_version));
        }
        // The primary of an async commit stays as it is even when its time is over: `ttl` is set
        // or `lock_info` is.
        if answer.lock_ttl != 0
            || answer
                .lock_info
                .as_ref()
                .is_some_and(|lock| lock.use_async_commit)
        {
            return TxnStatus::Alive {
                passable: action == Action::MinCommitTsPushed,
                ttl_ms: answer.lock_ttl,
                primary: answer.lock_info.map(Box::new),
            };
        }
        match action {
            Action::TtlExpirePessimisticRollback | Action::LockNotExistDoNothing => {
                TxnStatus::NothingPrewritten
            }
            _ => TxnStatus::RolledBack,
        }
    }
}

/// Whether a lock's time is over at `now`.
pub(crate) fn is_expired(start: TimeStamp, ttl_ms: u64, now: TimeStamp) -> bool {
    start.physical_ms().saturating_add(ttl_ms) < now.physical_ms()
}
