//! The push against stores of this process that misbehave by plan, on virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard},
};

use br_format::{
    backupmeta::{BackupHead, Content, Layout, MetaWriter},
    crypter::Crypter,
};
use br_proto::{
    backup::{self, BackupResponse, File, error::Detail},
    errorpb,
    kvrpcpb::{ApiVersion, KeyError},
};
use br_rt::{Progress, Silent, UnixMillis};
use br_storage::{Backend, Storage};
use br_types::{ClusterId, TimeStamp};
use futures::{StreamExt, stream};

use super::*;

const TS: TimeStamp = TimeStamp(500);

#[derive(Debug, thiserror::Error)]
#[error("the fake cluster says {0:?}")]
struct Fake(Kind);

impl Classify for Fake {
    fn kind(&self) -> Kind {
        self.0
    }
}

/// A region with its leader.
#[derive(Clone, Debug)]
struct Region {
    range: KeyRange<RawKey>,
    leader: u64,
}

/// One thing that a request to a store does; without one it answers for the store's regions.
#[derive(Clone, Debug)]
enum Trouble {
    /// The stream breaks before the first answer.
    Break,
    /// Every region gives this text as its error.
    Text(&'static str),
    /// Every region gives a region error.
    RegionError,
    /// Answers for all regions, also those of others: the leaders have just moved here.
    AnswersForAll,
    /// Answers nothing and does not end.
    Hangs,
}

#[derive(Default)]
struct World {
    regions: Vec<Region>,
    /// Locks by key: start timestamp.
    locks: BTreeMap<Vec<u8>, u64>,
    troubles: BTreeMap<u64, VecDeque<Trouble>>,
    live: Vec<LiveStore>,
    /// What happens to the world after the nth request (from 0).
    after: BTreeMap<usize, fn(&mut World)>,
    requests: usize,
    /// Every sub range asked for, with its store.
    asked: Vec<(u64, KeyRange<RawKey>)>,
    files: u64,
    rejects_resolving: bool,
}

#[derive(Default)]
struct FakeStores(Mutex<World>);

impl FakeStores {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("not poisoned")
    }
}

impl World {
    fn answer(&mut self, store: u64, request: &BackupRequest) -> Vec<BackupResponse> {
        let trouble = self.troubles.get_mut(&store).and_then(VecDeque::pop_front);
        let mut answers = Vec::new();
        for sub in &request.sub_ranges {
            let wanted = KeyRange::new(sub.start_key.clone(), sub.end_key.clone());
            self.asked.push((store, wanted.clone()));
            for region in self.regions.clone() {
                let takes_all = matches!(trouble, Some(Trouble::AnswersForAll));
                if region.leader != store && !takes_all {
                    continue;
                }
                let Some(piece) = region.range.intersect(&wanted) else {
                    continue;
                };
                answers.push(match trouble {
                    Some(Trouble::Text(text)) => of_error(text, None),
                    Some(Trouble::RegionError) => {
                        let error = errorpb::Error {
                            message: "moved".into(),
                            ..Default::default()
                        };
                        of_error("", Some(Detail::RegionError(error)))
                    }
                    _ => self.scan(store, request, &piece),
                });
            }
        }
        answers
    }

    fn scan(
        &mut self,
        store: u64,
        request: &BackupRequest,
        piece: &KeyRange<RawKey>,
    ) -> BackupResponse {
        let context = request.context.clone().unwrap_or_default();
        let lock = self.locks.iter().find(|(key, start_ts)| {
            piece.contains(&RawKey::new(key.as_slice()))
                && !context.resolved_locks.contains(start_ts)
        });
        if let Some((key, start_ts)) = lock {
            let lock = LockInfo {
                key: key.clone(),
                lock_version: *start_ts,
                ..Default::default()
            };
            let error = KeyError {
                locked: Some(lock),
                ..Default::default()
            };
            return of_error("", Some(Detail::KvError(error)));
        }
        self.files += 1;
        let file = File {
            name: format!("{store}/{}_write.sst", self.files),
            sha256: vec![0; 32],
            start_key: piece.start.as_bytes().to_vec(),
            end_key: piece.end.as_bytes().to_vec(),
            end_version: TS.0,
            crc64xor: self.files,
            total_kvs: 1,
            total_bytes: 10,
            cf: "write".to_owned(),
            size: 100,
            ..Default::default()
        };
        BackupResponse {
            start_key: file.start_key.clone(),
            end_key: file.end_key.clone(),
            files: vec![file],
            ..Default::default()
        }
    }
}

fn of_error(text: &str, detail: Option<Detail>) -> BackupResponse {
    let error = backup::Error {
        msg: text.to_owned(),
        detail,
    };
    BackupResponse {
        error: Some(error),
        ..Default::default()
    }
}

impl Stores for FakeStores {
    type Error = Fake;

    async fn live(&self) -> Result<Vec<LiveStore>, Fake> {
        Ok(self.world().live.clone())
    }

    async fn backup(&self, store: StoreId, request: BackupRequest) -> Result<Answers<Fake>, Fake> {
        let mut world = self.world();
        let number = world.requests;
        world.requests += 1;
        let trouble = world
            .troubles
            .get(&store.0)
            .and_then(|queue| queue.front())
            .cloned();
        let answers = world.answer(store.0, &request);
        if let Some(change) = world.after.remove(&number) {
            change(&mut world);
        }
        match trouble {
            Some(Trouble::Break) => Err(Fake(Kind::Retry)),
            Some(Trouble::Hangs) => Ok(stream::pending().boxed()),
            _ => Ok(stream::iter(answers.into_iter().map(Ok)).boxed()),
        }
    }

    async fn resolve(&self, locks: Vec<LockInfo>, read_ts: TimeStamp) -> Result<Resolved, Fake> {
        assert_eq!(read_ts, TS);
        let mut world = self.world();
        if world.rejects_resolving {
            return Err(Fake(Kind::Retry));
        }
        let mut resolved = Resolved::default();
        for lock in locks {
            // Odd transactions are dead, even ones live on and are pushed.
            if lock.lock_version % 2 == 1 {
                world.locks.remove(&lock.key);
            }
            resolved.passable.push(TimeStamp(lock.lock_version));
        }
        Ok(resolved)
    }
}

fn range(start: &str, end: &str) -> KeyRange<RawKey> {
    KeyRange::new(start.as_bytes(), end.as_bytes())
}

fn region(start: &str, end: &str, leader: u64) -> Region {
    Region {
        range: range(start, end),
        leader,
    }
}

fn live(ids: &[u64]) -> Vec<LiveStore> {
    ids.iter()
        .map(|id| LiveStore {
            id: StoreId(*id),
            started_unix_s: 1,
        })
        .collect()
}

/// Three regions, on two stores.
fn world() -> World {
    World {
        regions: vec![region("", "f", 1), region("f", "p", 2), region("p", "", 1)],
        live: live(&[1, 2]),
        ..World::default()
    }
}

struct Ran {
    outcome: Result<Pushed, PushError<Fake>>,
    world: World,
    /// The files in backupmeta.
    files: Vec<File>,
    seconds: u64,
}

fn run(world: World, wanted: &[KeyRange<RawKey>], cancel_after: Option<Duration>) -> Ran {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let rt = Rt::simulated(1, UnixMillis(0));
        let name = format!("push-{:?}", std::thread::current().id());
        br_storage::forget_memory(&name);
        let backend = Backend::Memory {
            name: name.clone(),
            prefix: String::new(),
        };
        let storage = Storage::open(&rt, &backend).await.expect("memory");
        let writer = MetaWriter::new(Layout::V1, Crypter::plaintext(), || {
            unreachable!("plaintext")
        });
        let mut sink = MetaSink::new(storage.clone(), writer);
        let stores = Arc::new(FakeStores(Mutex::new(world)));
        let cancel = CancellationToken::new();
        if let Some(after) = cancel_after {
            let (cancel, timer) = (cancel.clone(), rt.clone());
            rt.spawn(async move {
                timer.sleep(after).await;
                cancel.cancel();
            })
            .detach();
        }
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let push = Push {
            rt: &rt,
            cancel: &cancel,
            stores: stores.clone(),
            template: BackupRequest {
                end_version: TS.0,
                ..Default::default()
            },
            expected: Expected {
                end_ts: TS,
                raw_api_version: None,
            },
            requests_per_store: 2,
            phase: &Phase::start(&progress, "Full Backup", br_rt::Unit::Ranges, 0),
            counts: Counts::Regions,
            resume: None,
        };
        let outcome = push.run(wanted.to_vec(), &mut sink).await;
        let head = BackupHead {
            cluster_id: ClusterId(1),
            cluster_version: "9.0.0".to_owned(),
            br_version: String::new(),
            content: Content::Txn,
            last_backup_ts: TimeStamp::ZERO,
            backup_ts: TS,
            api_version: ApiVersion::V1,
            policies: Vec::new(),
            new_collations_enabled: None,
            backup_result: String::new(),
        };
        sink.finish(head).await.expect("memory");
        let bytes = storage.read("backupmeta").await.expect("just written");
        let meta: backup::BackupMeta = prost::Message::decode(bytes).expect("just written");
        let seconds = rt.wall().0 / 1000;
        br_storage::forget_memory(&name);
        let world = std::mem::take(&mut *stores.world());
        Ran {
            outcome,
            world,
            files: meta.files,
            seconds,
        }
    })
}

/// The files in backupmeta lie side by side, without gap or overlap, from `start` to `end`.
fn assert_contiguous(files: &[File], wanted: &KeyRange<RawKey>) {
    let mut files: Vec<&File> = files.iter().collect();
    files.sort_by(|a, b| a.start_key.cmp(&b.start_key));
    let mut at = wanted.start.as_bytes().to_vec();
    for file in &files {
        assert_eq!(file.start_key, at, "{files:?}");
        at = file.end_key.clone();
    }
    assert_eq!(at, wanted.end.as_bytes());
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names.len(), files.len());
}

fn assert_whole(ran: &Ran, wanted: &KeyRange<RawKey>) -> Pushed {
    let pushed = *ran.outcome.as_ref().expect("backed up");
    assert_contiguous(&ran.files, wanted);
    assert_eq!(pushed.pieces, ran.files.len() as u64);
    pushed
}

#[test]
fn every_store_answers_for_its_leaders() {
    let ran = run(world(), &[range("b", "x")], None);
    let pushed = assert_whole(&ran, &range("b", "x"));
    assert_eq!(
        pushed,
        Pushed {
            rounds: 1,
            pieces: 3,
            ..Pushed::default()
        }
    );
}

#[test]
fn unbounded_ranges_and_several_of_them() {
    let ran = run(world(), &[range("", "")], None);
    assert_whole(&ran, &range("", ""));
    let ran = run(
        world(),
        &[range("g", "h"), range("a", "c"), range("h", "q")],
        None,
    );
    let pushed = ran.outcome.expect("backed up");
    assert_eq!(pushed.pieces, 4);
    assert_contiguous(&ran.files[1..], &range("g", "q"));
}

#[test]
fn a_leader_that_moves_in_the_middle_is_found_in_the_next_round() {
    let mut world = world();
    // The first request of all is answered, then the leader of the middle moves to the store that
    // is through already.
    world.after.insert(0, |world| world.regions[1].leader = 1);
    let ran = run(world, &[range("", "")], None);
    let pushed = assert_whole(&ran, &range("", ""));
    assert_eq!(pushed.rounds, 2);
    // Only what was missing was asked for again.
    assert!(
        ran.world.asked[2..]
            .iter()
            .all(|(_, asked)| *asked == range("f", "p"))
    );
}

#[test]
fn what_two_stores_answer_counts_once() {
    let mut world = world();
    world.troubles.insert(2, [Trouble::AnswersForAll].into());
    let ran = run(world, &[range("a", "z")], None);
    let pushed = assert_whole(&ran, &range("a", "z"));
    assert_eq!((pushed.pieces, pushed.superseded), (3, 2));
    assert_eq!(ran.world.files, 5);
}

#[test]
fn a_split_between_rounds_leaves_no_gap() {
    let mut world = world();
    world.troubles.insert(1, [Trouble::RegionError].into());
    world.after.insert(1, |world| {
        world.regions[0] = region("", "c", 1);
        world.regions.insert(1, region("c", "f", 2));
        // And a merge.
        world
            .regions
            .retain(|region| region.range.start.as_bytes() != b"p");
        world.regions[2] = region("f", "", 2);
    });
    let ran = run(world, &[range("", "")], None);
    let pushed = assert_whole(&ran, &range("", ""));
    assert_eq!((pushed.rounds, pushed.pieces), (2, 4));
}

#[test]
fn broken_streams_are_tried_again() {
    let mut world = world();
    world.troubles.insert(1, vec![Trouble::Break; 5].into());
    world.troubles.insert(2, vec![Trouble::Break; 3].into());
    let ran = run(world, &[range("", "")], None);
    assert_whole(&ran, &range("", ""));
}

#[test]
fn a_lost_store_is_replaced_by_the_new_leaders() {
    let mut world = world();
    world.troubles.insert(1, [Trouble::Hangs].into());
    world.after.insert(1, |world| {
        world.live = live(&[2]);
        world
            .regions
            .iter_mut()
            .for_each(|region| region.leader = 2);
    });
    let ran = run(world, &[range("", "")], None);
    assert_whole(&ran, &range("", ""));
    assert!(ran.seconds < 60, "{}", ran.seconds);
}

#[test]
fn a_store_that_started_anew_is_asked_anew() {
    let mut world = world();
    world.troubles.insert(1, [Trouble::Hangs].into());
    world
        .after
        .insert(1, |world| world.live[0].started_unix_s = 2);
    let ran = run(world, &[range("", "")], None);
    assert_whole(&ran, &range("", ""));
    assert!(ran.seconds < 60, "{}", ran.seconds);
}

#[test]
fn locks_are_resolved_or_passed_by() {
    let mut world = world();
    for (key, start_ts) in [("a", 11), ("b", 20), ("c", 13), ("g", 22), ("z", 31)] {
        world.locks.insert(key.into(), start_ts);
    }
    let ran = run(world, &[range("", "")], None);
    let pushed = assert_whole(&ran, &range("", ""));
    assert_eq!(pushed.locks, 5);
    assert_eq!(ran.world.locks.len(), 2, "the living keep their locks");
}

#[test]
fn unknown_errors_end_after_some_tries() {
    let mut world = world();
    world
        .troubles
        .insert(1, vec![Trouble::Text("the moon is full"); 100].into());
    let ran = run(world, &[range("", "")], None);
    let Err(error @ PushError::Refused(Refusal::TooOften { times: 11, .. })) = &ran.outcome else {
        panic!("{:?}", ran.outcome)
    };
    assert!(error.to_string().contains("the moon is full"));
    assert_eq!(error.kind().exit_code(), 5);
}

#[test]
fn a_missing_directory_ends_at_once() {
    let mut world = world();
    world
        .troubles
        .insert(2, [Trouble::Text("Io(Custom { kind: NotFound })")].into());
    let ran = run(world, &[range("", "")], None);
    assert!(
        matches!(ran.outcome, Err(PushError::Refused(Refusal::StorageMissing { store, .. })) if store == StoreId(2))
    );
}

#[test]
fn nothing_new_for_long_is_an_error_that_says_what_is_missing() {
    let mut world = world();
    world.regions[1].leader = 0;
    world.troubles.insert(2, [Trouble::Break].into());
    let ran = run(world, &[range("", "")], None);
    let Err(PushError::Stalled {
        missing: 1,
        first,
        waited,
        last_errors,
    }) = &ran.outcome
    else {
        panic!("{:?}", ran.outcome)
    };
    assert_eq!(*first, range("f", "p"));
    assert!(*waited >= STALL_MAX);
    assert!(last_errors.contains_key(&StoreId(2)));
}

#[test]
fn locks_that_stay_end_as_a_stall() {
    let mut world = world();
    world.locks.insert("a".into(), 11);
    world.rejects_resolving = true;
    let ran = run(world, &[range("", "")], None);
    assert!(
        matches!(ran.outcome, Err(PushError::Stalled { .. })),
        "{:?}",
        ran.outcome
    );
}

#[test]
fn cancellation_ends_a_wait() {
    let mut world = world();
    world.troubles.insert(1, [Trouble::Hangs].into());
    let ran = run(world, &[range("", "")], Some(Duration::from_secs(5)));
    assert!(matches!(ran.outcome, Err(PushError::Cancelled)));
    assert_eq!(ran.seconds, 5);
}
