//! The data files of a backup.

use std::collections::{BTreeMap, HashMap};

use br_format::backupmeta::{Content, DataFile, MetaNode};
use br_format::kv_stats::KvStats;
use br_format::names::{BACKUPMETA, MetaKind, parse_sst};
use br_tidb::table_key::table_id;
use br_types::{Cf, RawKey, TableId, TimeStamp};
use sha2::{Digest, Sha256};

use super::super::error::VerifyError;
use super::super::pairs::{self, Pair, cost_of};
use super::super::report::{Cost, Found, Part};
use super::{Broken, Examined, damage};

/// Hexadecimal digits of the SHA-256 in names of data files.
const HASH_DIGITS: usize = 64;

/// What the indices of data files came to.
#[derive(Default)]
pub(super) struct Files {
    /// Sums of the files of each table or partition.
    pub(super) sums: BTreeMap<TableId, KvStats>,
    /// Index objects that are damaged: nobody knows what they named.
    pub(super) broken: Vec<Broken>,
    ranges: Vec<Range>,
    /// Of another time than the backup.
    strays: Vec<Stray>,
}

/// A data file of another time than the backup.
struct Stray {
    name: String,
    named_by: String,
    times: (TimeStamp, TimeStamp),
    cost: Cost,
}

/// The keys of a piece.
struct Range {
    start: RawKey,
    end: RawKey,
    cf: Cf,
    name: String,
}

impl Examined<'_> {
    /// Looks at all data files; at their contents too, if that is asked for.
    pub(super) async fn files(&mut self) -> Result<Files, VerifyError> {
        let mut files = Files::default();
        let broken = self
            .each_node(MetaKind::DataFile, async |this, node| {
                let pairs = this.node(node, &mut files)?;
                if !this.reads_contents() {
                    return Ok(());
                }
                let form = pairs::form(&this.meta.head);
                let mut found = Vec::new();
                let (look, storage) = (this.look, this.storage);
                let contents =
                    pairs::check(look, storage, form, pairs, &this.phase, &mut found).await?;
                let all = &mut this.looked.contents;
                all.read += contents.read;
                all.read_bytes = all.read_bytes.saturating_add(contents.read_bytes);
                all.skipped += contents.skipped;
                all.skipped_bytes = all.skipped_bytes.saturating_add(contents.skipped_bytes);
                this.report.found.extend(found);
                Ok(())
            })
            .await?;
        files.broken = broken;
        self.judge_times(std::mem::take(&mut files.strays));
        self.overlaps(&mut files);
        Ok(files)
    }

    /// The files of one index object, in pairs.
    fn node(&mut self, node: &MetaNode, files: &mut Files) -> Result<Vec<Pair>, VerifyError> {
        let mut pairs: Vec<Pair> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for file in node.data_files() {
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    let problem = damage(error)?;
                    self.found(node.object(), None, &problem, Cost::All);
                    continue;
                }
            };
            self.count(&file, files);
            self.note_times(&file, node.object(), files);
            let problem = self.file_problem(&file);
            let stem = pairs::stem(&file.name).to_owned();
            let at = *places.entry(stem).or_insert_with(|| {
                pairs.push(Pair {
                    files: Vec::new(),
                    is_complete: true,
                    named_by: node.object().to_owned(),
                });
                pairs.len() - 1
            });
            let Some(pair) = pairs.get_mut(at) else {
                continue;
            };
            match problem {
                None => pair.files.push(file),
                Some(problem) => {
                    pair.is_complete = false;
                    let cost = cost_of(&file);
                    self.found(&file.name, Some(node.object()), &problem, cost);
                }
            }
        }
        pairs.retain(|pair| !pair.files.is_empty());
        Ok(pairs)
    }

    fn count(&mut self, file: &DataFile, files: &mut Files) {
        let looked = &mut self.looked;
        looked.objects += 1;
        looked.files += 1;
        looked.file_bytes = looked.file_bytes.saturating_add(file.size_bytes);
        looked.sums += file.stats;
        if let Some(id) = table_id(file.range.start.as_bytes()) {
            *files.sums.entry(id).or_default() += file.stats;
        }
        files.ranges.push(Range {
            start: file.range.start.clone(),
            end: file.range.end.clone(),
            cf: file.cf,
            name: file.name.clone(),
        });
    }

    fn note_times(&self, file: &DataFile, named_by: &str, files: &mut Files) {
        let head = &self.meta.head;
        let times = (file.start_ts, file.end_ts);
        let is_same = times == (head.last_backup_ts, head.backup_ts);
        if !is_same && !matches!(head.content, Content::Raw(_)) {
            files.strays.push(Stray {
                name: file.name.clone(),
                named_by: named_by.to_owned(),
                times,
                cost: cost_of(file),
            });
        }
    }

    /// Files of another time than the backup; if all are, it is the backup that says a wrong one.
    fn judge_times(&mut self, strays: Vec<Stray>) {
        let head = &self.meta.head;
        let (from_ts, to_ts) = (head.last_backup_ts, head.backup_ts);
        if let Some(first) = strays.first()
            && strays.len() as u64 == self.looked.files
        {
            let problem = format!(
                "it says that it is of ({from_ts}, {to_ts}], and its data files are of ({}, {}]",
                first.times.0, first.times.1
            );
            return self.found(BACKUPMETA, None, &problem, Cost::All);
        }
        for stray in strays {
            let problem = format!(
                "the index says that it is of ({}, {}], and that the backup is of ({from_ts}, \
                 {to_ts}]",
                stray.times.0, stray.times.1
            );
            self.found(&stray.name, Some(&stray.named_by), &problem, stray.cost);
        }
    }

    /// What is wrong with a file, as far as the index and the listing tell.
    fn file_problem(&mut self, file: &DataFile) -> Option<String> {
        // Raw backups of old stores do not say sizes.
        let size_bytes = (file.size_bytes != 0).then_some(file.size_bytes);
        if let Some(problem) = self.listing.problem(&file.name, size_bytes) {
            return Some(problem);
        }
        let head = &self.meta.head;
        if matches!(head.content, Content::Raw(_)) {
            return None;
        }
        if let Some((_, cf)) = parse_sst(&file.name)
            && cf != file.cf
        {
            let said = file.cf;
            return Some(format!(
                "the index says that it is of {said}, its name {cf}"
            ));
        }
        if name_hash(&file.name).is_some_and(|hash| !is_hash(hash, &file.range.start)) {
            let start = &file.range.start;
            return Some(format!(
                "the index says that it begins at {start}, its name says another key"
            ));
        }
        None
    }

    /// Pieces of one column family that have keys in common: those would count twice.
    fn overlaps(&mut self, files: &mut Files) {
        let mut ranges = std::mem::take(&mut files.ranges);
        ranges.sort_by(|a, b| (a.cf, &a.start).cmp(&(b.cf, &b.start)));
        for (before, after) in ranges.iter().zip(ranges.iter().skip(1)) {
            let is_apart = before.cf != after.cf
                || (!before.end.as_bytes().is_empty() && before.end <= after.start);
            if is_apart {
                continue;
            }
            let cost = match table_id(after.start.as_bytes()) {
                Some(id) => Cost::of([id]),
                None => Cost::All,
            };
            self.report.found.push(Found {
                part: Part::Backup,
                object: after.name.clone(),
                named_by: None,
                problem: format!("its keys overlap with those of {}", before.name),
                cost,
                window: None,
            });
        }
    }
}

/// The SHA-256 of the first key, in the names that stores give.
fn name_hash(name: &str) -> Option<&str> {
    let mut parts = name.split(['/', '_']);
    let hash = parts.nth(3)?;
    let is_hex = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hash.len() == HASH_DIGITS && is_hex).then_some(hash)
}

fn is_hash(hash: &str, key: &RawKey) -> bool {
    let digest = Sha256::digest(key.as_bytes());
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    text.eq_ignore_ascii_case(hash)
}
