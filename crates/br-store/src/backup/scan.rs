//! Writes the entries of one piece into local SST files, one pair of files at a time.
//!
//! A file ends when it holds enough; the next scan of the same view goes on where it ended. So a
//! scan holds nothing between files and can run on any blocking thread.

use br_codec::key;
use br_rt::{CancellationToken, Rt};
use br_types::{Cf, EncodedKey, KeyRange, RawKey, TimeStamp};

use super::{
    error::PieceError,
    form::{Form, RawRoom},
    writer::{FinishedFile, PieceWriter, WriterOptions},
};
use crate::{
    courtesy::{Background, Courtesy},
    engine::Snapshot,
    mvcc::RangeView,
};

/// Entries between two looks at the cancellation and at what clients suffer: about a millisecond.
const ENTRIES_BETWEEN_CHECKS: u32 = 1024;

/// What every scan of a request needs.
pub(super) struct ScanOptions {
    pub(super) form: Form,
    pub(super) raw_cf: Cf,
    /// Versions at or below it are left out.
    pub(super) start_ts: TimeStamp,
    pub(super) writer: WriterOptions,
    /// Bytes of keys and values in a pair of files, from which on it ends.
    pub(super) file_bytes_max: u64,
    pub(super) cancel: CancellationToken,
    pub(super) courtesy: Courtesy,
}

/// One pair of files.
pub(super) struct Scanned {
    /// None if there was nothing; else default before write.
    pub(super) files: Vec<FinishedFile>,
    /// Where the next pair begins; `None` if the piece is done.
    pub(super) next: Option<EncodedKey>,
}

/// Looks at the cancellation now and then, and gives way to clients.
struct Checks<'a> {
    cancel: &'a CancellationToken,
    worker: Background,
    count: u32,
}

impl Checks<'_> {
    fn new(options: &ScanOptions) -> Checks<'_> {
        Checks {
            cancel: &options.cancel,
            worker: options.courtesy.backup(),
            count: 0,
        }
    }

    fn entry(&mut self) -> Result<(), PieceError> {
        self.count += 1;
        if self.count < ENTRIES_BETWEEN_CHECKS {
            return Ok(());
        }
        self.count = 0;
        self.worker.give_way_blocking();
        if self.cancel.is_cancelled() {
            Err(PieceError::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// Scans committed versions of `view` from `from` on.
pub(super) fn transactional(
    rt: &Rt,
    options: &ScanOptions,
    view: &RangeView,
    from: &EncodedKey,
) -> Result<Scanned, PieceError> {
    let mut writer = PieceWriter::new(rt, &options.writer);
    let mut checks = Checks::new(options);
    let mut entries = view.entries_from(&key::data_key(from.as_bytes()), options.start_ts)?;
    let mut user_key = Vec::new();
    while let Some(entry) = entries.next()? {
        if writer.bytes() >= options.file_bytes_max {
            let next = Some(EncodedKey::from(entry.encoded_key));
            return Ok(Scanned {
                files: writer.finish()?,
                next,
            });
        }
        user_key.clear();
        let mut input = entry.encoded_key;
        br_codec::bytes::decode_into(&mut user_key, &mut input)?;
        let counted = Some((&user_key[..], entry.value.unwrap_or_default()));
        match entry.default {
            Some((default_key, value)) => {
                writer.put(Cf::Default, default_key, value, counted)?;
                writer.put(Cf::Write, entry.write_key, entry.write_value, None)?;
            }
            None => writer.put(Cf::Write, entry.write_key, entry.write_value, counted)?,
        }
        checks.entry()?;
    }
    Ok(Scanned {
        files: writer.finish()?,
        next: None,
    })
}

/// Scans raw entries of `range` in a snapshot: the newest of each key, if it is there and has not
/// expired.
pub(super) fn raw(
    rt: &Rt,
    options: &ScanOptions,
    snapshot: &dyn Snapshot,
    range: &KeyRange<EncodedKey>,
) -> Result<Scanned, PieceError> {
    let form = options.form;
    let mut writer = PieceWriter::new(rt, &options.writer);
    let mut checks = Checks::new(options);
    let now_seconds = rt.wall().0 / 1000;
    let mut cursor = snapshot.iter(options.raw_cf, key::data_range(range));
    let mut room = RawRoom::default();
    let mut data_key = vec![key::DATA_PREFIX];
    let mut last: Vec<u8> = Vec::new();
    let mut found = cursor.seek_to_first()?;
    while found {
        let stored_key = key::strip_data_prefix(cursor.key())?;
        let identity = if form.has_raw_versions() {
            let (encoded, _) = key::split_ts(stored_key)?;
            encoded
        } else {
            stored_key
        };
        // Versions of a key stand newest first, and only that one counts.
        let is_older = form.has_raw_versions() && identity == last.as_slice();
        if !is_older {
            if form.has_raw_versions() {
                last.clear();
                last.extend_from_slice(identity);
            }
            if let Some(entry) = form.convert(stored_key, cursor.value(), now_seconds, &mut room)? {
                if writer.bytes() >= options.file_bytes_max {
                    let next = Some(EncodedKey::from(identity));
                    return Ok(Scanned {
                        files: writer.finish()?,
                        next,
                    });
                }
                data_key.truncate(1);
                data_key.extend_from_slice(entry.key);
                let counted = Some((entry.user_key, entry.user_value));
                writer.put(options.raw_cf, &data_key, entry.value, counted)?;
            }
        }
        checks.entry()?;
        found = cursor.next()?;
    }
    Ok(Scanned {
        files: writer.finish()?,
        next: None,
    })
}

/// The range that the answer for one pair of files names.
pub(super) fn answer_range(
    form: Form,
    start: &EncodedKey,
    end: &EncodedKey,
) -> Result<KeyRange<RawKey>, PieceError> {
    Ok(KeyRange {
        start: form.decode_bound(start)?,
        end: form.decode_bound(end)?,
    })
}
