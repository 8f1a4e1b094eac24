use std::path::PathBuf;

use br_codec::checksum;
use br_rt::Rt;
use br_types::Cf;

use crate::{
    engine::{Engine, EngineError, SstOptions, SstWriter},
    scratch_file::ScratchFile,
};

/// Where and how the files of a request are written before they are uploaded.
#[derive(Clone, Debug)]
pub(super) struct WriterOptions {
    /// Local folder.
    pub(super) dir: PathBuf,
    /// Compression.
    pub(super) sst: SstOptions,
}

/// What `backupmeta` says of a file's entries. An entry counts for one file only: that which holds
/// its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// XOR of the checksums of raw key and value.
    pub(super) crc64xor: u64,
    /// Entries.
    pub(super) kvs: u64,
    /// Bytes of raw keys and values.
    pub(super) bytes: u64,
}

impl Totals {
    fn count(&mut self, user_key: &[u8], user_value: &[u8]) {
        self.crc64xor ^= checksum::crc64_of_pair(user_key, user_value);
        self.kvs += 1;
        self.bytes += (user_key.len() + user_value.len()) as u64;
    }
}

/// A file that is complete and waits for its upload.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) cf: Cf,
    pub(super) file: ScratchFile,
    pub(super) totals: Totals,
}

/// Writes the files of one piece: default and write for transactions, one for raw data. A file is
/// begun with its first entry, for an SST file without entries is none.
pub(super) struct PieceWriter<'a> {
    rt: &'a Rt,
    engine: &'a dyn Engine,
    options: &'a WriterOptions,
    files: Vec<OpenFile>,
}

struct OpenFile {
    cf: Cf,
    file: ScratchFile,
    sst: Box<dyn SstWriter>,
    totals: Totals,
}

impl<'a> PieceWriter<'a> {
    pub(super) fn new(rt: &'a Rt, engine: &'a dyn Engine, options: &'a WriterOptions) -> Self {
        PieceWriter {
            rt,
            engine,
            options,
            files: Vec::with_capacity(2),
        }
    }

    /// Adds an entry to the file of a column family. `counted` is what checksums count of it, or
    /// `None` if another file counts it.
    pub(super) fn put(
        &mut self,
        cf: Cf,
        data_key: &[u8],
        value: &[u8],
        counted: Option<(&[u8], &[u8])>,
    ) -> Result<(), EngineError> {
        let at = match self.files.iter().position(|open| open.cf == cf) {
            Some(at) => at,
            None => self.open(cf)?,
        };
        let Some(open) = self.files.get_mut(at) else {
            return Ok(());
        };
        open.sst.put(data_key, value)?;
        if let Some((user_key, user_value)) = counted {
            open.totals.count(user_key, user_value);
        }
        Ok(())
    }

    fn open(&mut self, cf: Cf) -> Result<usize, EngineError> {
        let file = ScratchFile::new(self.rt, &self.options.dir, "sst");
        let sst = self.engine.sst_writer(file.path(), self.options.sst)?;
        self.files.push(OpenFile {
            cf,
            file,
            sst,
            totals: Totals::default(),
        });
        Ok(self.files.len() - 1)
    }

    /// Bytes of keys and values counted so far.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|open| open.totals.bytes).sum()
    }

    /// Completes the files; default before write.
    pub(super) fn finish(mut self) -> Result<Vec<FinishedFile>, EngineError> {
        self.files.sort_by_key(|open| open.cf);
        let finish = |open: OpenFile| {
            open.sst.finish()?;
            Ok(FinishedFile {
                cf: open.cf,
                file: open.file,
                totals: open.totals,
            })
        };
        self.files.into_iter().map(finish).collect()
    }
}
