//! The two files of one piece of a region: what each holds, and that they go together.

use br_codec::bytes::decode_into;
use br_codec::key::{DATA_PREFIX, split_data_key, split_ts};
use br_codec::{ApiVersion, DecodeError, RawValue, WriteKind, WriteRef};
use br_format::backupmeta::DataFile;
use br_format::crypter::Crypter;
use br_format::kv_stats::KvStats;
use br_sst::{EntryKind, SstError, Table, TableIter};
use br_types::{Cf, RawKey, TimeStamp};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What kind of keys the files of a backup hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Records and values of transactions.
    Txn,
    /// Raw keys.
    Raw(ApiVersion),
}

/// A file of a pair, as it is stored.
pub(super) struct Half {
    pub(super) file: DataFile,
    pub(super) stored: Bytes,
}

/// What is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) object: String,
    pub(super) text: String,
}

/// The file is whole, and what it is decrypted to makes no sense.
#[derive(Debug)]
pub(super) struct WrongKey {
    pub(super) object: String,
}

/// Checks the files of a piece; either may not be there.
pub(super) fn check(
    halves: Vec<Half>,
    is_complete: bool,
    form: Form,
    crypter: &Crypter,
) -> Result<Vec<Problem>, WrongKey> {
    let mut problems = Vec::new();
    let mut tables = Vec::new();
    let wanted = halves.len();
    for half in halves {
        match open(half, crypter)? {
            Ok(open) => tables.push(open),
            Err(problem) => problems.push(problem),
        }
    }
    // What belongs together can be told only if both are there.
    let is_related = is_complete && tables.len() == wanted;
    match form {
        Form::Raw(version) => {
            for table in &tables {
                let mut sums = Sums::new(&table.file);
                if let Err(error) = raw_entries(table, version, &mut sums) {
                    sums.wrong(&error);
                }
                sums.finish(table, &mut problems);
            }
        }
        Form::Txn => txn_entries(&tables, is_related, &mut problems),
    }
    Ok(problems)
}

struct OpenTable {
    file: DataFile,
    table: Table<Bytes>,
}

fn open(half: Half, crypter: &Crypter) -> Result<Result<OpenTable, Problem>, WrongKey> {
    let Half { file, stored } = half;
    let problem = |text: String| {
        Ok(Err(Problem {
            object: file.name.clone(),
            text,
        }))
    };
    let found: [u8; 32] = Sha256::digest(&stored).into();
    if found != file.sha256 {
        let (found, expected) = (hex(&found), hex(&file.sha256));
        return problem(format!(
            "its SHA-256 is {found}, and {expected} was written"
        ));
    }
    let iv = file.cipher_iv.filter(|_| !crypter.is_plaintext());
    let plain = match &iv {
        Some(iv) => {
            let mut bytes = Vec::from(stored);
            crypter.apply(iv, &mut bytes);
            bytes.into()
        }
        None => stored,
    };
    match Table::open(plain) {
        Ok(table) => Ok(Ok(OpenTable { file, table })),
        Err(SstError::NotATable(_)) if iv.is_some() => Err(WrongKey { object: file.name }),
        Err(error) => problem(error.to_string()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is counted over one file, and what is wrong with it.
struct Sums<'a> {
    file: &'a DataFile,
    stats: KvStats,
    entries: u64,
    last_key: Vec<u8>,
    raw: Vec<u8>,
    first_problem: Option<String>,
    problems: u64,
}

impl<'a> Sums<'a> {
    fn new(file: &'a DataFile) -> Sums<'a> {
        Sums {
            file,
            stats: KvStats::default(),
            entries: 0,
            last_key: Vec::new(),
            raw: Vec::new(),
            first_problem: None,
            problems: 0,
        }
    }

    fn wrong(&mut self, problem: &dyn ToString) {
        self.problems += 1;
        if self.first_problem.is_none() {
            self.first_problem = Some(problem.to_string());
        }
    }

    fn wrong_at(&mut self, encoded: &[u8], problem: &str) {
        let raw = br_codec::key::decode(encoded).unwrap_or_else(|_| RawKey::from(encoded));
        self.wrong(&format!("key {raw} {problem}"));
    }

    /// Order and kind of an entry.
    fn entry(&mut self, user_key: &[u8], kind: EntryKind) {
        self.entries += 1;
        if kind != EntryKind::Put {
            self.wrong(&"it has an entry that sets no value");
        }
        if self.entries > 1 && user_key <= self.last_key.as_slice() {
            self.wrong(&"its keys are not in order");
        }
        user_key.clone_into(&mut self.last_key);
    }

    /// Counts a pair; `encoded` is memcomparable.
    fn pair(&mut self, encoded: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        self.raw.clear();
        decode_into(&mut self.raw, &mut &*encoded)?;
        self.count(value);
        Ok(())
    }

    /// Counts the pair of the key in `raw`.
    fn count(&mut self, value: &[u8]) {
        self.stats.add_pair(&self.raw, value);
        self.within();
    }

    fn within(&mut self) {
        let range = &self.file.range;
        let raw = self.raw.as_slice();
        let end = range.end.as_bytes();
        if raw < range.start.as_bytes() || (!end.is_empty() && raw >= end) {
            let key = RawKey::from(raw);
            self.wrong(&format!("key {key} is not within its range {range}"));
        }
    }

    fn finish(mut self, table: &OpenTable, problems: &mut Vec<Problem>) {
        if self.problems == 0 {
            let counted = table.table.properties().entries();
            if counted.is_some_and(|counted| counted != self.entries) {
                let text = format!("it has {} entries, and says another number", self.entries);
                self.wrong(&text);
            }
            let expected = self.file.stats;
            // The first tools did not sum.
            if self.stats != expected && !expected.is_zero() {
                self.wrong(&format!(
                    "it has {} pairs of {} bytes with CRC-64 {:016x}, and {} of {} with {:016x} \
                     were written",
                    self.stats.total_kvs,
                    self.stats.total_bytes,
                    self.stats.crc64_xor,
                    expected.total_kvs,
                    expected.total_bytes,
                    expected.crc64_xor
                ));
            }
        }
        let Some(first) = self.first_problem else {
            return;
        };
        let text = match self.problems {
            1 => first,
            more => format!("{first} (and {} more)", more - 1),
        };
        problems.push(Problem {
            object: self.file.name.clone(),
            text,
        });
    }
}

fn raw_entries(
    table: &OpenTable,
    version: ApiVersion,
    sums: &mut Sums<'_>,
) -> Result<(), SstError> {
    let mut entries = table.table.iter();
    entries.seek(&[])?;
    while let Some(entry) = entries.next()? {
        sums.entry(entry.user_key, entry.kind);
        if let Err(error) = raw_entry(entry.user_key, entry.value, version, sums) {
            sums.wrong(&error);
        }
    }
    Ok(())
}

fn raw_entry(
    user_key: &[u8],
    value: &[u8],
    version: ApiVersion,
    sums: &mut Sums<'_>,
) -> Result<(), DecodeError> {
    let Some(key) = user_key.strip_prefix(&[DATA_PREFIX]) else {
        return Err(DecodeError::new("data key", "it does not begin with 'z'"));
    };
    let value = RawValue::decode(version, value)?.user_value;
    match version {
        ApiVersion::V2 => {
            let (encoded, _) = split_ts(key)?;
            sums.pair(encoded, value)
        }
        ApiVersion::V1 | ApiVersion::V1Ttl => {
            key.clone_into(&mut sums.raw);
            sums.count(value);
            Ok(())
        }
    }
}

/// Records and values, side by side in the order of their keys.
fn txn_entries(tables: &[OpenTable], is_related: bool, problems: &mut Vec<Problem>) {
    let find = |cf| tables.iter().find(|table| table.file.cf == cf);
    let (write, default) = (find(Cf::Write), find(Cf::Default));
    let mut values = default.map(|table| Values::new(table, is_related));
    if let Some(table) = write {
        let mut records = Records {
            sums: Sums::new(&table.file),
            key: Vec::new(),
            needs: Vec::new(),
            is_related,
        };
        if let Err(error) = records.read(table, values.as_mut()) {
            records.sums.wrong(&error);
        }
        records.sums.finish(table, problems);
    }
    if let (Some(mut values), Some(table)) = (values, default) {
        values.skip_to(None);
        values.sums.finish(table, problems);
    }
}

/// The records of one file; of the key in use, the values that it needs.
struct Records<'a> {
    sums: Sums<'a>,
    key: Vec<u8>,
    needs: Vec<TimeStamp>,
    is_related: bool,
}

impl Records<'_> {
    fn read(
        &mut self,
        table: &OpenTable,
        mut values: Option<&mut Values<'_>>,
    ) -> Result<(), SstError> {
        let mut entries = table.table.iter();
        entries.seek(&[])?;
        while let Some(entry) = entries.next()? {
            self.sums.entry(entry.user_key, entry.kind);
            let taken = self.record(entry.user_key, entry.value, values.as_deref_mut());
            if let Err(error) = taken {
                self.sums.wrong(&error);
            }
        }
        self.settle(values);
        Ok(())
    }

    fn record(
        &mut self,
        user_key: &[u8],
        value: &[u8],
        values: Option<&mut Values<'_>>,
    ) -> Result<(), DecodeError> {
        let (key, commit_ts) = split_data_key(user_key)?;
        if key != self.key {
            self.settle(values);
            key.clone_into(&mut self.key);
        }
        let record = WriteRef::parse(value)?;
        let file = self.sums.file;
        // Files that were ingested have one timestamp for both.
        if record.start_ts > commit_ts {
            self.sums.wrong_at(key, "is committed before it began");
        }
        if commit_ts > file.end_ts || (!file.start_ts.is_zero() && commit_ts <= file.start_ts) {
            let text = format!("is of {commit_ts}, which is not within the file's time");
            self.sums.wrong_at(key, &text);
        }
        if record.kind == WriteKind::Put && record.short_value.is_none() {
            self.needs.push(record.start_ts);
            self.sums.raw.clear();
            decode_into(&mut self.sums.raw, &mut &*key)?;
            self.sums.within();
            return Ok(());
        }
        self.sums.pair(key, record.short_value.unwrap_or_default())
    }

    /// The key in use has ended: its records and its values have to be the same.
    fn settle(&mut self, values: Option<&mut Values<'_>>) {
        if !self.is_related {
            self.needs.clear();
            return;
        }
        if let Some(values) = values {
            values.skip_to(Some(&self.key));
            while let Some(ts) = values.take(&self.key) {
                match self.needs.iter().position(|need| *need == ts) {
                    Some(at) => {
                        self.needs.swap_remove(at);
                    }
                    None => values.orphan(),
                }
            }
        }
        for start_ts in std::mem::take(&mut self.needs) {
            let text = format!("has no value of {start_ts} in the default file");
            let key = std::mem::take(&mut self.key);
            self.sums.wrong_at(&key, &text);
            self.key = key;
        }
    }
}

/// The values of one file.
struct Values<'a> {
    entries: TableIter<'a, Bytes>,
    /// The key and timestamp in use; none: that was the end.
    head: Option<(Vec<u8>, TimeStamp)>,
    sums: Sums<'a>,
    is_related: bool,
    /// The one that was taken last.
    taken: Vec<u8>,
}

impl<'a> Values<'a> {
    fn new(table: &'a OpenTable, is_related: bool) -> Values<'a> {
        let mut values = Values {
            entries: table.table.iter(),
            head: None,
            sums: Sums::new(&table.file),
            is_related,
            taken: Vec::new(),
        };
        match values.entries.seek(&[]) {
            Ok(()) => values.advance(),
            Err(error) => values.sums.wrong(&error),
        }
        values
    }

    fn advance(&mut self) {
        self.head = None;
        loop {
            let entry = match self.entries.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return,
                Err(error) => return self.sums.wrong(&error),
            };
            self.sums.entry(entry.user_key, entry.kind);
            let parts = split_data_key(entry.user_key);
            let counted = parts.and_then(|(key, ts)| {
                self.sums.pair(key, entry.value)?;
                Ok((key.to_vec(), ts))
            });
            match counted {
                Ok((key, ts)) => {
                    if ts > self.sums.file.end_ts {
                        self.sums.wrong_at(&key, "is newer than the backup");
                    }
                    self.head = Some((key, ts));
                    return;
                }
                Err(error) => self.sums.wrong(&error),
            }
        }
    }

    /// Passes over what lies before a key (`None`: over all), which no record needs.
    fn skip_to(&mut self, key: Option<&[u8]>) {
        while let Some((head, _)) = &self.head {
            if key.is_some_and(|key| head.as_slice() >= key) {
                return;
            }
            head.clone_into(&mut self.taken);
            self.orphan();
            self.advance();
        }
    }

    /// The timestamp of the next value of that key.
    fn take(&mut self, key: &[u8]) -> Option<TimeStamp> {
        let (head, ts) = self.head.as_ref()?;
        if head != key {
            return None;
        }
        let ts = *ts;
        key.clone_into(&mut self.taken);
        self.advance();
        Some(ts)
    }

    fn orphan(&mut self) {
        if self.is_related {
            let key = std::mem::take(&mut self.taken);
            self.sums.wrong_at(&key, "has a value that no record needs");
            self.taken = key;
        }
    }
}
