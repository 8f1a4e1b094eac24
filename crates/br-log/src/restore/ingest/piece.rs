use std::{path::PathBuf, sync::Arc};

use br_cluster::RegionRoute;
use br_codec::key;
use br_sst::{SstFileWriter, SstFiles};
use br_types::{Cf, EncodedKey, KeyRange};

use super::IngestTotals;
use crate::{
    restore::{
        error::PointError,
        sort::Sorted,
        versions::{KeyVersions, VersionReader},
    },
    scratch::ScratchDir,
};

/// Bytes of keys and values of a piece: large enough that a region takes few, small enough that
/// several fit into memory while they are sent.
const PIECE_BYTES: u64 = 32 << 20;

/// Data of one region in at most two files.
pub(super) struct Piece {
    /// The region.
    pub(super) route: RegionRoute,
    /// The keys: from the first one to behind the last one.
    pub(super) range: KeyRange<EncodedKey>,
    /// One file for each column family that has anything.
    pub(super) files: Vec<SstOfPiece>,
    /// What is in it.
    pub(super) totals: IngestTotals,
}

/// A file of a piece; removed when dropped.
pub(super) struct SstOfPiece {
    pub(super) cf: Cf,
    pub(super) path: PathBuf,
    /// First and last key, memcomparable, without timestamp.
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
}

impl Drop for SstOfPiece {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a file was left behind");
        }
    }
}

/// Makes the pieces of a range, one after the other.
pub(super) struct PieceMaker {
    reader: VersionReader,
    end: EncodedKey,
    ssts: Arc<dyn SstFiles>,
    scratch: Arc<ScratchDir>,
    versions: KeyVersions,
    /// Room for a data key.
    data_key: Vec<u8>,
}

impl PieceMaker {
    /// # Errors
    /// A local file cannot be read.
    pub(super) fn new(
        sorted: &Sorted,
        range: KeyRange<EncodedKey>,
        newest_only: bool,
        ssts: Arc<dyn SstFiles>,
        scratch: Arc<ScratchDir>,
    ) -> Result<PieceMaker, PointError> {
        Ok(PieceMaker {
            reader: VersionReader::new(sorted, range.start.as_bytes(), newest_only)?,
            end: range.end,
            ssts,
            scratch,
            versions: KeyVersions::default(),
            data_key: Vec::new(),
        })
    }

    /// The next key; `None` at the end of the range.
    pub(super) fn next_key(&self) -> Option<EncodedKey> {
        let key = EncodedKey::from(self.reader.peek_key()?);
        (self.end.is_empty() || key < self.end).then_some(key)
    }

    /// The next piece, of keys of this region; `None` if what there was for it had come to nothing
    /// and the range is at its end.
    ///
    /// # Errors
    /// A value is missing, or a local file cannot be used.
    pub(super) fn make(&mut self, route: RegionRoute) -> Result<Option<Piece>, PointError> {
        let region_end = route.range().end;
        let end = match (region_end.is_empty(), self.end.is_empty()) {
            (true, _) => self.end.clone(),
            (false, true) => region_end,
            (false, false) => region_end.min(self.end.clone()),
        };
        let mut open = OpenPiece::default();
        let mut first: Option<Vec<u8>> = None;
        let mut last = Vec::new();
        while open.totals.kv_bytes < PIECE_BYTES
            && self.reader.next(end.as_bytes(), &mut self.versions)?
        {
            let versions = &self.versions;
            last.clear();
            last.extend_from_slice(&versions.key);
            if first.is_none() {
                first = Some(versions.key.clone());
            }
            for (cf, ts, value) in versions.all() {
                self.data_key.clear();
                self.data_key.push(key::DATA_PREFIX);
                self.data_key.extend_from_slice(&versions.key);
                key::append_ts(&mut self.data_key, ts);
                let file = open.file(cf, &*self.ssts, &self.scratch, &versions.key)?;
                file.writer.put(&self.data_key, value)?;
                file.place.last.clear();
                file.place.last.extend_from_slice(&versions.key);
                open.totals.kv_bytes += (self.data_key.len() + value.len()) as u64;
                open.totals.records += u64::from(cf == Cf::Write);
            }
        }
        let start = EncodedKey::from(first.unwrap_or_default());
        // The least key behind one is the one with a zero more; so is that of memcomparable keys.
        last.push(0);
        let range = KeyRange {
            start,
            end: EncodedKey::from(last),
        };
        let (files, totals) = open.finish()?;
        if files.is_empty() && self.next_key().is_none() {
            return Ok(None);
        }
        Ok(Some(Piece {
            route,
            range,
            files,
            totals,
        }))
    }
}

#[derive(Default)]
struct OpenPiece {
    files: Vec<OpenFile>,
    totals: IngestTotals,
}

struct OpenFile {
    writer: Box<dyn SstFileWriter>,
    place: SstOfPiece,
}

impl OpenPiece {
    fn file(
        &mut self,
        cf: Cf,
        ssts: &dyn SstFiles,
        scratch: &ScratchDir,
        first: &[u8],
    ) -> Result<&mut OpenFile, PointError> {
        let at = match self.files.iter().position(|file| file.place.cf == cf) {
            Some(at) => at,
            None => {
                let path = scratch.new_path("sst");
                self.files.push(OpenFile {
                    writer: ssts.create(&path)?,
                    place: SstOfPiece {
                        cf,
                        path,
                        first: first.to_vec(),
                        last: Vec::new(),
                    },
                });
                self.files.len() - 1
            }
        };
        Ok(self.files.get_mut(at).expect("it was found or just added"))
    }

    fn finish(mut self) -> Result<(Vec<SstOfPiece>, IngestTotals), PointError> {
        self.totals.files = self.files.len() as u64;
        let mut places = Vec::with_capacity(self.files.len());
        for file in self.files {
            file.writer.finish()?;
            places.push(file.place);
        }
        Ok((places, self.totals))
    }
}
