//! Requests and bytes of this process, for the summary of a command: what it would cost.
//!
//! Counted for the process as a whole, as a command opens its storages in many places.

use std::sync::atomic::{AtomicU64, Ordering};

use ::http::{Method, Uri};

/// Requests to storages over HTTP and what they carried; retries count as what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Reads of objects and of their sizes.
    pub reads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Writes: objects, parts, beginnings and ends of uploads in parts.
    pub writes: u64,
    /// Deletions.
    pub deletes: u64,
    /// Bytes of bodies that were received.
    pub received_bytes: u64,
    /// Bytes of bodies that were sent.
    pub sent_bytes: u64,
    /// Answers by which a server asked to go slower.
    pub throttled: u64,
    /// Requests and bodies without an end: refused connections, resets, stalls.
    pub broken: u64,
}

impl Traffic {
    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.reads + self.lists + self.writes + self.deletes
    }
}

static READS: AtomicU64 = AtomicU64::new(0);
static LISTS: AtomicU64 = AtomicU64::new(0);
static WRITES: AtomicU64 = AtomicU64::new(0);
static DELETES: AtomicU64 = AtomicU64::new(0);
static RECEIVED: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);
static THROTTLED: AtomicU64 = AtomicU64::new(0);
static BROKEN: AtomicU64 = AtomicU64::new(0);

/// The requests of this process to storages over HTTP so far.
pub fn traffic_of_process() -> Traffic {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Traffic {
        reads: load(&READS),
        lists: load(&LISTS),
        writes: load(&WRITES),
        deletes: load(&DELETES),
        received_bytes: load(&RECEIVED),
        sent_bytes: load(&SENT),
        throttled: load(&THROTTLED),
        broken: load(&BROKEN),
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(super) fn requested(method: &Method, uri: &Uri, sent_bytes: usize) {
    let is_list = || {
        let query = uri.query().unwrap_or_default();
        // S3 and GCS; Azure.
        query.contains("list-type=") || query.contains("comp=list")
    };
    let counter = match *method {
        Method::GET if is_list() => &LISTS,
        Method::GET | Method::HEAD => &READS,
        Method::DELETE => &DELETES,
        _ => &WRITES,
    };
    add(counter, 1);
    add(&SENT, sent_bytes as u64);
}

pub(super) fn received(bytes: u64) {
    add(&RECEIVED, bytes);
}

pub(super) fn throttled() {
    add(&THROTTLED, 1);
}

pub(super) fn broken() {
    add(&BROKEN, 1);
}
