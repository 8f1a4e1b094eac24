use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use br_rt::Rt;

use crate::scratch_file::ScratchFile;

/// A piece of a spill file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Records that did not fit in memory, of all files of one payload; removed when it is dropped.
///
/// # After a crash
/// The folder is emptied at the next start: what was not flushed is scanned anew.
pub(crate) struct SpillFile {
    file: File,
    len: u64,
    // After the file: it is closed, then removed.
    _scratch: ScratchFile,
}

impl SpillFile {
    /// An empty one in `dir`, which must exist.
    pub(crate) fn create(rt: &Rt, dir: &Path) -> io::Result<SpillFile> {
        let scratch = ScratchFile::new(rt, dir, "spill");
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(scratch.path())?;
        Ok(SpillFile {
            file,
            len: 0,
            _scratch: scratch,
        })
    }

    /// Adds bytes at its end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<Extent> {
        let extent = Extent {
            offset: self.len,
            len: bytes.len() as u64,
        };
        // After a failed append the end of the file is not known; the task is over then.
        self.file.write_all(bytes)?;
        self.len += extent.len;
        Ok(extent)
    }

    /// Reads `into.len()` bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}
