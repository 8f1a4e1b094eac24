use std::sync::Arc;

use br_proto::kvrpcpb::{Context, IsolationLevel};
use br_types::TimeStamp;

/// At which timestamp and under which rules something is read.
#[derive(Clone, Debug, Default)]
pub struct ReadContext {
    /// Versions committed at or below it are seen.
    pub ts: TimeStamp,
    /// Snapshot isolation blocks on locks; the read-committed levels do not.
    pub isolation: IsolationLevel,
    resolved: Arc<[u64]>,
    committed: Arc<[u64]>,
}

impl ReadContext {
    /// A read at `ts` with the isolation level and the known transactions of a request.
    pub fn new(ts: TimeStamp, context: Option<&Context>) -> Self {
        let Some(context) = context else {
            return Self::at(ts);
        };
        Self {
            ts,
            isolation: context.isolation_level(),
            resolved: sorted(&context.resolved_locks),
            committed: sorted(&context.committed_locks),
        }
    }

    /// A read at `ts` under snapshot isolation that knows of no transaction.
    pub fn at(ts: TimeStamp) -> Self {
        Self {
            ts,
            ..Self::default()
        }
    }

    /// Whether locks of that transaction are to be passed by: it has not committed at or below
    /// [`ts`](Self::ts).
    pub fn is_resolved(&self, start_ts: TimeStamp) -> bool {
        self.resolved.binary_search(&start_ts.0).is_ok()
    }

    /// Whether that transaction has committed at or below [`ts`](Self::ts), so that the values of
    /// its locks are to be read.
    pub fn is_committed(&self, start_ts: TimeStamp) -> bool {
        self.committed.binary_search(&start_ts.0).is_ok()
    }
}

fn sorted(timestamps: &[u64]) -> Arc<[u64]> {
    let mut sorted = timestamps.to_vec();
    sorted.sort_unstable();
    sorted.into()
}
