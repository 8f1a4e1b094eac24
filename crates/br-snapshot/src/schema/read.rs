use std::future::Future;

use br_cluster::{KvError, Scanner, Snapshot};
use br_types::{KeyRange, RawKey};

/// Reads keys at one timestamp.
pub trait MetaRead: Send + Sync {
    /// A scan under way.
    type Scan: MetaScan;

    /// The value of a key.
    fn get(&self, key: &RawKey) -> impl Future<Output = Result<Option<Vec<u8>>, KvError>> + Send;

    /// Reads a range upwards.
    fn scan(&self, range: &KeyRange<RawKey>) -> Self::Scan;

    /// Reads a range downwards.
    fn scan_reverse(&self, range: &KeyRange<RawKey>) -> Self::Scan;
}

/// A scan under way.
pub trait MetaScan: Send {
    /// The next pair; `None` at the end of the range.
    fn next(&mut self) -> impl Future<Output = Result<Option<(RawKey, Vec<u8>)>, KvError>> + Send;
}

impl MetaRead for Snapshot {
    type Scan = Scanner;

    async fn get(&self, key: &RawKey) -> Result<Option<Vec<u8>>, KvError> {
        Snapshot::get(self, key).await
    }

    fn scan(&self, range: &KeyRange<RawKey>) -> Scanner {
        Snapshot::scan(self, range)
    }

    fn scan_reverse(&self, range: &KeyRange<RawKey>) -> Scanner {
        Snapshot::scan_reverse(self, range)
    }
}

impl MetaScan for Scanner {
    async fn next(&mut self) -> Result<Option<(RawKey, Vec<u8>)>, KvError> {
        Scanner::next(self).await
    }
}
