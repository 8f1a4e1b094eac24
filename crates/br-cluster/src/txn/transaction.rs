//! # What it does
//! An optimistic transaction: buffers writes, then prewrites and commits all of them at one
//! timestamp.
//!
//! # Ordering and invariants
//! The first key in order is the primary. It is prewritten before the others and committed before
//! them; its commit is the commit of all. Reads see the transaction's own writes.
//!
//! # Retries
//! Region errors by the router. Reads wait for locks of others by [`crate::KEY_ERROR_RETRY`], writes
//! for a few seconds only, since two transactions may wait for each other. A write conflict is not
//! tried again: the caller reads anew and decides.
//!
//! # Cancellation
//! Before the primary's commit: everything is rolled back. The commit of the primary and the
//! rollback run to their end, which their policy bounds.
//!
//! # After a crash
//! Locks that stay behind are resolved by whoever meets them, by what the primary says.

use std::{collections::BTreeMap, time::Duration};

use br_proto::kvrpcpb;
use br_rt::Monotonic;
use br_types::{KeyRange, RawKey, TimeStamp};

use super::{
    Snapshot,
    batches::Keyed,
    commit::{Committer, LOCK_TTL},
};
use crate::KvError;

/// Bytes that one transaction may buffer. Larger work belongs into several transactions.
const TXN_BYTES_MAX: usize = 100 << 20;

/// What is counted for a key besides its bytes and those of its value.
const KEY_OVERHEAD_BYTES: usize = 64;

/// A transaction that is not committed yet. Dropped without a commit, it has done nothing.
pub struct Transaction {
    snapshot: Snapshot,
    begun: Monotonic,
    /// By the user's keys.
    writes: BTreeMap<RawKey, Write>,
    bytes: usize,
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Vec<u8>),
    Insert(Vec<u8>),
    Delete,
    Lock,
}

/// A write as it goes into a prewrite.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub(crate) key: RawKey,
    pub(crate) write: Write,
}

impl Keyed for Mutation {
    fn key(&self) -> &RawKey {
        &self.key
    }

    fn size_bytes(&self) -> usize {
        self.key.len() + self.write.value().map_or(0, <[u8]>::len)
    }
}

impl Write {
    /// The value that readers see afterwards.
    fn value(&self) -> Option<&[u8]> {
        match self {
            Write::Put(value) | Write::Insert(value) => Some(value),
            Write::Delete | Write::Lock => None,
        }
    }

    fn op(&self) -> kvrpcpb::Op {
        match self {
            Write::Put(_) => kvrpcpb::Op::Put,
            Write::Insert(_) => kvrpcpb::Op::Insert,
            Write::Delete => kvrpcpb::Op::Del,
            Write::Lock => kvrpcpb::Op::Lock,
        }
    }
}

impl Mutation {
    pub(crate) fn to_proto(&self) -> kvrpcpb::Mutation {
        kvrpcpb::Mutation {
            op: self.write.op().into(),
            key: self.key.as_bytes().to_vec(),
            value: self.write.value().unwrap_or_default().to_vec(),
            ..Default::default()
        }
    }
}

impl Transaction {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let begun = snapshot.router().rt().now();
        Self {
            snapshot,
            begun,
            writes: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// When it began: its reads are of this timestamp.
    pub fn start_ts(&self) -> TimeStamp {
        self.snapshot.ts()
    }

    /// The data as of its start, without its own writes.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The value of a key, its own writes included.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn get(&self, key: &RawKey) -> Result<Option<Vec<u8>>, KvError> {
        match self.writes.get(key) {
            None | Some(Write::Lock) => self.snapshot.get(key).await,
            Some(write) => Ok(write.value().map(<[u8]>::to_vec)),
        }
    }

    /// The first `limit` pairs of a range, its own writes included.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn scan(
        &self,
        range: &KeyRange<RawKey>,
        limit: usize,
    ) -> Result<Vec<(RawKey, Vec<u8>)>, KvError> {
        let own = || self.writes.iter().filter(|(key, _)| range.contains(key));
        // Each own deletion hides at most one pair.
        let hidden = own().filter(|(_, write)| **write == Write::Delete).count();
        let read = self
            .snapshot
            .scan_all(range, limit.saturating_add(hidden))
            .await?;
        let mut pairs: BTreeMap<RawKey, Vec<u8>> = read.into_iter().collect();
        for (key, write) in own() {
            match write {
                Write::Put(value) | Write::Insert(value) => {
                    pairs.insert(key.clone(), value.clone());
                }
                Write::Delete => {
                    pairs.remove(key);
                }
                Write::Lock => {}
            }
        }
        Ok(pairs.into_iter().take(limit).collect())
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`KvError::TooLarge`].
    pub fn put(&mut self, key: RawKey, value: Vec<u8>) -> Result<(), KvError> {
        self.buffer(key, Write::Put(value))
    }

    /// Sets a key that must not exist; the commit checks it.
    ///
    /// # Errors
    /// [`KvError::TooLarge`].
    pub fn insert(&mut self, key: RawKey, value: Vec<u8>) -> Result<(), KvError> {
        self.buffer(key, Write::Insert(value))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`KvError::TooLarge`].
    pub fn delete(&mut self, key: RawKey) -> Result<(), KvError> {
        self.buffer(key, Write::Delete)
    }

    /// Lets the commit fail if somebody else writes the key meanwhile; does not change it.
    ///
    /// # Errors
    /// [`KvError::TooLarge`].
    pub fn lock(&mut self, key: RawKey) -> Result<(), KvError> {
        if self.writes.contains_key(&key) {
            return Ok(());
        }
        self.buffer(key, Write::Lock)
    }

    fn buffer(&mut self, key: RawKey, write: Write) -> Result<(), KvError> {
        let size = |key: &RawKey, write: &Write| {
            key.len() + write.value().map_or(0, <[u8]>::len) + KEY_OVERHEAD_BYTES
        };
        self.bytes += size(&key, &write);
        if let Some(old) = self.writes.get(&key) {
            self.bytes = self.bytes.saturating_sub(size(&key, old));
        }
        self.writes.insert(key, write);
        if self.bytes > TXN_BYTES_MAX {
            return Err(KvError::TooLarge {
                limit_bytes: TXN_BYTES_MAX,
            });
        }
        Ok(())
    }

    /// Writes everything, at the timestamp that it gives; the start timestamp if there was nothing
    /// to write.
    ///
    /// # Errors
    /// [`KvError::WriteConflict`] and [`KvError::AlreadyExists`]: nothing is written.
    /// [`KvError::Undetermined`]: everything may be written or nothing. All others: nothing is.
    pub async fn commit(self) -> Result<TimeStamp, KvError> {
        let start = self.start_ts();
        match self.committer(LOCK_TTL) {
            Some(committer) => committer.commit().await,
            None => Ok(start),
        }
    }

    /// Prewrites everything and leaves it so, as a client that dies before its commit: the locks
    /// stay until their time to live, `ttl`, is over and somebody resolves them.
    ///
    /// # Errors
    /// As [`Transaction::commit`], but for the undetermined outcome.
    pub async fn leave_locks(self, ttl: Duration) -> Result<(), KvError> {
        match self.committer(ttl) {
            Some(committer) => committer.leave_locks().await,
            None => Ok(()),
        }
    }

    fn committer(self, lock_ttl: Duration) -> Option<Committer> {
        let prefix = self.snapshot.prefix();
        let mutations: Vec<Mutation> = self
            .writes
            .into_iter()
            .map(|(key, write)| Mutation {
                key: prefix.wire(&key),
                write,
            })
            .collect();
        let primary = mutations.first()?.key.clone();
        Some(Committer::new(
            self.snapshot,
            self.begun,
            lock_ttl,
            primary,
            mutations,
        ))
    }
}
