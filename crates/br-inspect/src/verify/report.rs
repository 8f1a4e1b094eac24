use std::collections::BTreeSet;

use br_format::backupmeta::BackupHead;
use br_format::kv_stats::KvStats;
use br_log::read::LogBounds;
use br_types::{TableId, TimeStamp};

use super::names::TableNames;
use super::restorable::{self, Restorable};
use super::{Depth, Sample, VerifyOptions};

/// What an object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The backup.
    Backup,
    /// The log.
    Log,
}

/// Commits that are lost: from the first timestamp to the last, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first timestamp.
    pub from_ts: TimeStamp,
    /// The last timestamp.
    pub to_ts: TimeStamp,
}

/// The tables of which something is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostTables {
    /// No row is: statistics, or a copy of what stands elsewhere.
    None,
    /// These, as `database.table`; partitions are named behind.
    Named(Vec<String>),
    /// Nobody can tell which, or every one.
    All,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it belongs to.
    pub part: Part,
    /// The object.
    pub object: String,
    /// The object that says how it has to be; either may be the damaged one.
    pub named_by: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What it costs.
    pub tables: LostTables,
    /// Of a log, when.
    pub window: Option<Window>,
}

/// Something that costs nothing, and that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it belongs to.
    pub part: Part,
    /// What there is.
    pub text: String,
    /// Objects that it is about; not all of them, if there are very many.
    pub objects: Vec<String>,
}

/// Contents that were read, and those that were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects that were read.
    pub read: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Objects that the sample left out.
    pub skipped: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
}

/// What was looked at of a backup.
#[derive(Clone, Debug)]
pub struct BackupLooked {
    /// What it is; none if its index is damaged.
    pub head: Option<BackupHead>,
    /// Tables in it.
    pub tables: u64,
    /// Objects that it names.
    pub objects: u64,
    /// Data files among them.
    pub files: u64,
    /// Bytes of those.
    pub file_bytes: u64,
    /// Sums over all pairs, as the index has them.
    pub sums: KvStats,
    /// Contents of data files.
    pub contents: Contents,
}

/// What was looked at of a log.
#[derive(Clone, Debug)]
pub struct LogLooked {
    /// Whose it is, where it begins and ends; none if that is damaged.
    pub bounds: Option<LogBounds>,
    /// Index objects.
    pub metas: u64,
    /// Objects that are named.
    pub objects: u64,
    /// Bytes of those with events.
    pub object_bytes: u64,
    /// Records.
    pub records: u64,
    /// Bytes of those.
    pub record_bytes: u64,
    /// Contents of objects with events, and of SSTs that stand for such.
    pub contents: Contents,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Verified {
    /// How deep it was looked.
    pub depth: Depth,
    /// At which contents.
    pub sample: Sample,
    /// The backup, if there is one.
    pub backup: Option<BackupLooked>,
    /// The log, if there is one.
    pub log: Option<LogLooked>,
    /// Damage, by part and object.
    pub findings: Vec<Finding>,
    /// What is no damage.
    pub notes: Vec<Note>,
    /// What can be restored in spite of it.
    pub restorable: Restorable,
}

/// What a finding costs, before ids have names.
#[derive(Clone, Debug)]
pub(super) enum Cost {
    Nothing,
    Tables(BTreeSet<TableId>),
    All,
}

impl Cost {
    pub(super) fn of(ids: impl IntoIterator<Item = TableId>) -> Cost {
        Cost::Tables(ids.into_iter().collect())
    }
}

/// A finding, before ids have names.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) part: Part,
    pub(super) object: String,
    pub(super) named_by: Option<String>,
    pub(super) problem: String,
    pub(super) cost: Cost,
    pub(super) window: Option<Window>,
}

/// What is collected on the way.
#[derive(Default)]
pub(super) struct Report {
    pub(super) names: TableNames,
    pub(super) backup: Option<BackupLooked>,
    pub(super) log: Option<LogLooked>,
    pub(super) found: Vec<Found>,
    pub(super) notes: Vec<Note>,
    /// Whether an index object of the backup cannot be read: no restore goes past that.
    pub(super) is_index_broken: bool,
    /// What the log's metadata says of its ranges.
    pub(super) log_ranges: Vec<br_format::log::names::Stats>,
}

impl Report {
    pub(super) fn note(&mut self, part: Part, text: impl Into<String>, objects: Vec<String>) {
        self.notes.push(Note {
            part,
            text: text.into(),
            objects,
        });
    }

    /// Whether something was found about that object already.
    pub(super) fn knows(&self, part: Part, object: &str) -> bool {
        let mut found = self.found.iter();
        found.any(|found| found.part == part && found.object == object)
    }

    pub(super) fn finish(mut self, options: &VerifyOptions) -> Verified {
        self.found
            .sort_by(|a, b| (a.part, &a.object).cmp(&(b.part, &b.object)));
        let restorable = restorable::of(&self);
        let names = &self.names;
        let findings = self.found.into_iter().map(|found| Finding {
            part: found.part,
            object: found.object,
            named_by: found.named_by,
            problem: found.problem,
            tables: match found.cost {
                Cost::Nothing => LostTables::None,
                Cost::All => LostTables::All,
                Cost::Tables(ids) => LostTables::Named(names.list(&ids)),
            },
            window: found.window,
        });
        Verified {
            depth: options.depth,
            sample: options.sample,
            findings: findings.collect(),
            backup: self.backup,
            log: self.log,
            notes: self.notes,
            restorable,
        }
    }
}
