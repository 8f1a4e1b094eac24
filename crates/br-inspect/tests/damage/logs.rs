//! Logs: their objects, metadata, checkpoints; and compactions.

use std::collections::BTreeMap;

use br_format::crypter::Crypter;
use br_format::log::checkpoint::CheckpointCopy;
use br_format::log::marker::Marker;
use br_format::log::metadata::LogMeta;
use br_format::log::names::{CENTRAL_CHECKPOINT, MetaName, global_checkpoint};
use br_format::log::seal::{FlushMark, Seal};
use br_inspect::verify::{Finding, LostTables, Part, Verified};
use br_types::{Cf, KeyRange, RegionId, StoreId, TableId, TimeStamp};

use crate::place::{Damage, Done, Place, Random, names, number};
use crate::table::Table;

/// Bytes of each metadata object that are flipped: it has no sum of its own.
const META_FLIPS: u64 = 60;
const FLIPS: usize = 3;

fn kind(object: &str) -> &'static str {
    match object {
        "backupmeta" => "mark of the log",
        "backup.lock" => "backup.lock",
        name if name.starts_with("v1/backupmeta/") => "metadata of a flush",
        name if name.starts_with("v1/global_checkpoint/") => "copy of the checkpoint",
        name if name.contains("/schema-meta/") => "events of schemas",
        name if name.ends_with(".log") => "events",
        name => panic!("what is {name}?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log() {
    let place = Place::copy_of("log", Crypter::plaintext());
    keep_what_is_there(&place);
    matrix(&place, "log", is_silent).await;
}

/// With seals nothing goes unnoticed but the mark and locks, and the loss of a whole copy of the
/// checkpoint: the others say the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_log() {
    let place = Place::copy_of("log", Crypter::plaintext());
    keep_what_is_there(&place);
    seal(&place);
    matrix(&place, "sealed log", |place, done, report| {
        let object = done.objects[0].as_str();
        match kind(object) {
            "copy of the checkpoint" => match done.damage {
                Damage::Remove => true,
                Damage::Swap => is_without_effect(place, done),
                Damage::Flip | Damage::Cut => false,
            },
            // Two without events, one for the other.
            "metadata of a flush" => done.damage == Damage::Swap && is_without_effect(place, done),
            _ => is_silent(place, done, report),
        }
    })
    .await;
}

/// Gives all flushes and copies of the checkpoint their seals, as our stores do.
fn seal(place: &Place) {
    let mut last = BTreeMap::<StoreId, FlushMark>::new();
    for name in place.objects() {
        let Some(parsed) = MetaName::parse(&name) else {
            continue;
        };
        // Their names begin with the time: each store's come in order.
        let last = last.entry(parsed.store().unwrap()).or_default();
        let mut meta = LogMeta::decode(&name, &place.read(&name)).unwrap();
        let seal = Seal { previous: *last };
        meta.seal = Some(seal);
        *last = FlushMark {
            flush_ts: parsed.flush_ts().unwrap(),
            number: seal.number(),
            min_ts: meta.min_ts,
            max_ts: match meta.groups.is_empty() {
                true => meta.resolved_ts,
                false => meta.max_ts,
            },
        };
        place.write(&name, &meta.encode());
    }
    let copies = last.into_iter();
    let mut copies: Vec<_> = copies
        .map(|(store, last)| (global_checkpoint(store), last))
        .collect();
    copies.push((CENTRAL_CHECKPOINT.to_owned(), FlushMark::default()));
    for (name, last) in copies {
        let mut copy = match place.objects().contains(&name) {
            true => CheckpointCopy::decode(&name, &place.read(&name)).unwrap(),
            false => continue,
        };
        copy.last_flush = Some(last);
        place.write(&name, &copy.encode());
    }
}

type Silent = fn(&Place, &Done, &Verified) -> bool;

async fn matrix(place: &Place, title: &str, may_be_silent: Silent) {
    let whole = place.verify().await.unwrap();
    assert_eq!(whole.findings, [], "the log is whole");
    let mut table = Table::default();
    let mut random = Random(number("DAMAGE_SEED", 1));
    let objects = place.objects();
    for (at, object) in objects.iter().enumerate() {
        let length = place.read(object).len();
        let flips = match kind(object) {
            "metadata of a flush" | "mark of the log" => {
                number("DAMAGE_BYTES", META_FLIPS) as usize
            }
            "copy of the checkpoint" => 8,
            _ => FLIPS,
        };
        for _ in 0..flips.min(length) {
            let (byte, bit) = (random.below(length), random.below(8));
            let done = place.flip(object, byte, bit);
            judge(place, done, &mut table, may_be_silent).await;
        }
        if length > 0 {
            let done = place.cut(object, &mut random);
            judge(place, done, &mut table, may_be_silent).await;
        }
        let done = place.remove(object);
        judge(place, done, &mut table, may_be_silent).await;
        let other = &objects[(at + 1 + random.below(objects.len() - 1)) % objects.len()];
        if place.read(object) != place.read(other) {
            let done = place.swap(object, other);
            judge(place, done, &mut table, may_be_silent).await;
        }
    }
    let whole = place.verify().await.unwrap();
    assert_eq!(whole.findings, [], "the log is whole again");
    table.show(title);
}

/// The golden log in this repository has its small objects only: the metadata is made to name no
/// others.
pub(crate) fn keep_what_is_there(place: &Place) {
    let objects = place.objects();
    for name in objects
        .iter()
        .filter(|name| kind(name) == "metadata of a flush")
    {
        let mut meta = LogMeta::decode(name, &place.read(name)).unwrap();
        meta.groups.retain(|group| objects.contains(&group.path));
        meta.recompute_range();
        place.write(name, &meta.encode());
    }
}

async fn judge(place: &Place, done: Done, table: &mut Table, may_be_silent: Silent) {
    let object = &done.objects[0];
    let verified = place.verify().await;
    let what = || format!("{object} {}: {verified:#?}", done.damage.name());
    let Ok(report) = &verified else {
        let said = verified.as_ref().unwrap_err().to_string();
        assert!(said.contains(object.as_str()), "{said}");
        table.named(kind(object), done.damage);
        return place.undo(done);
    };
    // Of metadata that is gone only the beginning of its name is known.
    let is_missed = |finding: &Finding| {
        done.damage == Damage::Remove && object.starts_with(finding.object.as_str())
    };
    if names(&report.findings, &done.objects) || report.findings.iter().any(is_missed) {
        for finding in &report.findings {
            assert_eq!(finding.part, Part::Log);
            assert_ne!(finding.tables, LostTables::Named(Vec::new()), "{}", what());
        }
        if kind(object).starts_with("events") && done.damage != Damage::Swap {
            let named = report.findings.iter().find(|one| one.object == *object);
            let window = named.unwrap().window.unwrap();
            assert!(window.from_ts <= window.to_ts, "{}", what());
            let until = report.restorable.until_ts.unwrap();
            assert!(until < window.to_ts, "{}", what());
        }
        table.named(kind(object), done.damage);
    } else {
        assert!(may_be_silent(place, &done, report), "{}", what());
        table.without_effect(kind(object), done.damage);
    }
    place.undo(done);
}

fn is_silent(place: &Place, done: &Done, report: &Verified) -> bool {
    let mut told = report.notes.iter().flat_map(|note| &note.objects);
    is_without_effect(place, done)
        || (done.damage == Damage::Remove && told.any(|name| done.objects.contains(name)))
        || is_told_by_events(place, done, report)
}

/// Metadata that is gone as a whole: its events are told as what nothing names.
fn is_told_by_events(place: &Place, done: &Done, report: &Verified) -> bool {
    if done.damage != Damage::Remove || kind(&done.objects[0]) != "metadata of a flush" {
        return false;
    }
    let meta = LogMeta::decode("before", done.before()).unwrap();
    let told: Vec<_> = report.notes.iter().flat_map(|note| &note.objects).collect();
    let lost: Vec<_> = report.findings.iter().collect();
    let _ = place;
    meta.groups.iter().all(|group| told.contains(&&group.path)) || !lost.is_empty()
}

/// Damage that verify may pass over: nothing that a restore reads has changed.
fn is_without_effect(place: &Place, done: &Done) -> bool {
    let object = done.objects[0].as_str();
    match kind(object) {
        "backup.lock" => true,
        // The greatest copy counts, and no copy may go beyond the last flush.
        "copy of the checkpoint" => match done.damage {
            Damage::Remove => true,
            Damage::Flip => true,
            Damage::Swap => done
                .objects
                .iter()
                .all(|name| kind(name) == "copy of the checkpoint"),
            Damage::Cut => false,
        },
        // Only its cluster and where it begins count; the backup below the log proves the cluster.
        "mark of the log" => match done.damage {
            Damage::Flip => true,
            Damage::Cut => {
                let mark = |bytes: &[u8]| match Marker::decode(bytes) {
                    Ok(Marker::Log(mark)) => (mark.cluster_id, mark.start_ts),
                    other => panic!("{other:?}"),
                };
                mark(done.before()) == mark(&place.read(object))
            }
            Damage::Remove | Damage::Swap => false,
        },
        "metadata of a flush" => {
            if done.damage != Damage::Flip {
                let meta = LogMeta::decode("before", done.before()).unwrap();
                return meta.groups.is_empty();
            }
            let after = LogMeta::decode("after", &place.read(object));
            let before = LogMeta::decode("before", done.before()).unwrap();
            let after = after.unwrap();
            let is_empty = before.groups.is_empty() && after.groups.is_empty();
            let same = is_empty || is_same(before.clone(), after.clone());
            assert!(
                same,
                "{:?}\n{:?}",
                without_hints(before),
                without_hints(after)
            );
            same
        }
        _ => false,
    }
}

/// Whether metadata says the same but for hints: which region it was, and how far it had come.
fn is_same(before: LogMeta, after: LogMeta) -> bool {
    let least: Vec<TimeStamp> = begins(&before);
    let now: Vec<TimeStamp> = begins(&after);
    // With an earlier begin more is read than is needed.
    let reads_enough =
        least.len() == now.len() && now.iter().zip(&least).all(|(now, least)| now <= least);
    without_hints(before) == without_hints(after) && reads_enough
}

/// Only those of commits count: files of values are found by them.
fn begins(meta: &LogMeta) -> Vec<TimeStamp> {
    let files = meta.groups.iter().flat_map(|group| &group.files);
    let commits = files.filter(|file| file.identity.cf == Cf::Write);
    commits.map(|file| file.min_begin_ts).collect()
}

fn without_hints(mut meta: LogMeta) -> LogMeta {
    meta.resolved_ts = TimeStamp::ZERO;
    for group in &mut meta.groups {
        group.min_resolved_ts = TimeStamp::ZERO;
        group.min_ts = TimeStamp::ZERO;
        group.max_ts = TimeStamp::ZERO;
        for file in &mut group.files {
            file.resolved_ts = TimeStamp::ZERO;
            file.min_begin_ts = TimeStamp::ZERO;
            file.identity.region = RegionId(0);
            if file.identity.is_schema {
                // Those of schemas are of no table.
                file.identity.table = TableId(0);
            }
            file.region_range = KeyRange::default();
            file.region_epochs.clear();
            // Old stores did not write these; SHA-256 says more than they.
            file.crc64_xor = 0;
            file.first_key.clear();
            file.last_key.clear();
        }
    }
    meta
}
