use std::collections::BTreeMap;

use br_codec::key;
use br_proto::{errorpb, kvrpcpb, metapb, pdpb};

pub(crate) const CLUSTER_ID: u64 = 7;
const START_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct FakeRegion {
    pub(crate) id: u64,
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
    pub(crate) version: u64,
    pub(crate) leader: u64,
}

impl FakeRegion {
    fn holds(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && (self.end.is_empty() || key < self.end.as_slice())
    }

    fn peer(&self, store_id: u64) -> metapb::Peer {
        metapb::Peer {
            id: self.id * 100 + store_id,
            store_id,
            ..Default::default()
        }
    }

    pub(crate) fn leader_peer(&self) -> metapb::Peer {
        self.peer(self.leader)
    }

    pub(crate) fn meta(&self) -> metapb::Region {
        metapb::Region {
            id: self.id,
            start_key: self.start.clone(),
            end_key: self.end.clone(),
            region_epoch: Some(metapb::RegionEpoch {
                conf_ver: 1,
                version: self.version,
            }),
            peers: vec![self.peer(1), self.peer(2)],
            ..Default::default()
        }
    }

    pub(crate) fn to_pd(&self) -> pdpb::Region {
        pdpb::Region {
            region: Some(self.meta()),
            leader: Some(self.leader_peer()),
            ..Default::default()
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct FakeLock {
    pub(crate) info: kvrpcpb::LockInfo,
    pub(crate) value: Option<Vec<u8>>,
}

/// Commit timestamp, start timestamp, value.
type FakeCommit = (u64, u64, Option<Vec<u8>>);

/// Everything there is.
pub(crate) struct State {
    pub(crate) members: Vec<String>,
    pub(crate) stores: Vec<(u64, String)>,
    /// Which member of PD leads.
    pub(crate) pd_leader: usize,
    pub(crate) regions: Vec<FakeRegion>,
    /// Physical part in milliseconds, and the counter.
    tso: (u64, u64),
    /// The counts of the TSO requests that came.
    pub(crate) tso_counts: Vec<u32>,
    pub(crate) safe_point: u64,
    pub(crate) protections: BTreeMap<String, u64>,
    pub(crate) locks: BTreeMap<Vec<u8>, FakeLock>,
    /// By key, the newest last. A rollback has no commit.
    pub(crate) commits: BTreeMap<Vec<u8>, Vec<FakeCommit>>,
    pub(crate) rollbacks: Vec<(Vec<u8>, u64)>,
    /// Commits that are carried out but not answered.
    pub(crate) lose_commit_answers: u32,
}

impl State {
    pub(super) fn new() -> State {
        let region = FakeRegion {
            id: 1,
            start: Vec::new(),
            end: Vec::new(),
            version: 1,
            leader: 1,
        };
        State {
            members: Vec::new(),
            stores: Vec::new(),
            pd_leader: 0,
            regions: vec![region],
            tso: (START_MS, 0),
            tso_counts: Vec::new(),
            safe_point: 0,
            protections: BTreeMap::new(),
            locks: BTreeMap::new(),
            commits: BTreeMap::new(),
            rollbacks: Vec::new(),
            lose_commit_answers: 0,
        }
    }

    /// The last of `count` new timestamps.
    pub(crate) fn tso(&mut self, count: u64) -> (u64, u64) {
        self.tso.1 += count;
        self.tso
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.tso = (self.tso.0 + ms, 0);
    }

    pub(crate) fn rewind_ms(&mut self, ms: u64) {
        self.tso = (self.tso.0 - ms, 0);
    }

    /// Splits at an encoded key; the new region has the lower part and leads on `leader`.
    pub(crate) fn split(&mut self, at: &[u8], leader: u64) {
        let id = self
            .regions
            .iter()
            .map(|region| region.id)
            .max()
            .unwrap_or_default()
            + 1;
        let index = self
            .regions
            .iter()
            .position(|region| region.holds(at))
            .expect("covered");
        let old = &mut self.regions[index];
        old.version += 1;
        let new = FakeRegion {
            id,
            start: std::mem::replace(&mut old.start, at.to_vec()),
            end: at.to_vec(),
            version: old.version,
            leader,
        };
        self.regions.insert(index, new);
    }

    pub(crate) fn region_of(&self, key: &[u8]) -> Option<&FakeRegion> {
        self.regions.iter().find(|region| region.holds(key))
    }

    /// What is wrong with a request for raw keys, if anything is.
    pub(crate) fn check(
        &self,
        store: u64,
        context: Option<&kvrpcpb::Context>,
        keys: &[&[u8]],
    ) -> Option<errorpb::Error> {
        let context = context.expect("requests carry a context");
        let Some(region) = self
            .regions
            .iter()
            .find(|region| region.id == context.region_id)
        else {
            let region_not_found = Some(errorpb::RegionNotFound {
                region_id: context.region_id,
            });
            return Some(errorpb::Error {
                region_not_found,
                ..Default::default()
            });
        };
        if region.leader != store {
            let not_leader = Some(errorpb::NotLeader {
                region_id: region.id,
                leader: Some(region.leader_peer()),
            });
            return Some(errorpb::Error {
                not_leader,
                ..Default::default()
            });
        }
        if context.region_epoch.map(|epoch| epoch.version) != Some(region.version) {
            let current_regions = self.regions.iter().map(FakeRegion::meta).collect();
            let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
            return Some(errorpb::Error {
                epoch_not_match,
                ..Default::default()
            });
        }
        for raw in keys {
            assert!(
                region.holds(key::encode(raw).as_bytes()),
                "a key of another region came"
            );
        }
        None
    }

    /// The value of a key at a timestamp, or the lock in the way.
    pub(crate) fn read(
        &self,
        key: &[u8],
        ts: u64,
        passable: &[u64],
    ) -> Result<Option<Vec<u8>>, kvrpcpb::LockInfo> {
        if let Some(lock) = self.locks.get(key)
            && lock.info.lock_version <= ts
            && !passable.contains(&lock.info.lock_version)
        {
            return Err(lock.info.clone());
        }
        let commits = self.commits.get(key).map(Vec::as_slice).unwrap_or_default();
        let seen = commits.iter().rev().find(|(commit, ..)| *commit <= ts);
        Ok(seen.and_then(|(_, _, value)| value.clone()))
    }

    /// Ends the lock of a transaction on a key: commits at `commit`, or rolls back for 0.
    pub(crate) fn finish(&mut self, key: &[u8], start: u64, commit: u64) -> bool {
        let is_own = self
            .locks
            .get(key)
            .is_some_and(|lock| lock.info.lock_version == start);
        if is_own && let Some(lock) = self.locks.remove(key) {
            if commit == 0 {
                self.rollbacks.push((key.to_vec(), start));
            } else {
                self.commits
                    .entry(key.to_vec())
                    .or_default()
                    .push((commit, start, lock.value));
            }
        }
        is_own
    }

    pub(crate) fn commit_of(&self, key: &[u8], start: u64) -> Option<u64> {
        let commits = self.commits.get(key)?;
        commits
            .iter()
            .find(|(_, of, _)| *of == start)
            .map(|(commit, ..)| *commit)
    }
}
