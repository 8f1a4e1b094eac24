use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::Arc,
};

use br_types::{Classify, Kind};

use super::{
    block::{self, BLOCK_BYTES, BlockHead, HEAD_BYTES},
    merge::Merge,
    version::Version,
};
use crate::scratch::ScratchDir;

/// A local file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The system refuses.
    #[error("the sorted data in {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is read is not what was written.
    #[error("the sorted data in {} was damaged on the local disk at {at}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
}

impl Classify for RunError {
    fn kind(&self) -> Kind {
        match self {
            RunError::Io { .. } => Kind::Retry,
            RunError::Damaged { .. } => Kind::Internal,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some("Free space, or name another folder with --pitr-temp-dir, and run it again".to_owned())
    }
}

/// Sorted versions in a file, removed when dropped.
pub(crate) struct Run {
    file: File,
    path: PathBuf,
    blocks: Vec<BlockPlace>,
    data_bytes: u64,
}

struct BlockPlace {
    first_key: Vec<u8>,
    at: u64,
    data_bytes: u64,
}

impl Run {
    /// Writes what a merge gives.
    ///
    /// # Errors
    /// A local file cannot be written or read.
    pub(crate) fn write(scratch: &ScratchDir, mut merge: Merge) -> Result<Run, RunError> {
        let path = scratch.new_path("run");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.map_err(|source| RunError::Io {
            path: path.clone(),
            source,
        })?;
        let mut writer = RunWriter {
            run: Run {
                file,
                path,
                blocks: Vec::new(),
                data_bytes: 0,
            },
            raw: Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4),
            first_key: Vec::new(),
            data_bytes: 0,
            at: 0,
        };
        while let Some(version) = merge.peek() {
            writer.push(&version)?;
            merge.advance()?;
        }
        writer.end_block()?;
        Ok(writer.run)
    }

    /// Bytes of keys and values.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Gives the first key of each block with the bytes in it.
    pub(crate) fn samples<'r>(&'r self, mut take: impl FnMut(&'r [u8], u64)) {
        for block in &self.blocks {
            take(&block.first_key, block.data_bytes);
        }
    }

    fn io(&self) -> impl Fn(io::Error) -> RunError + '_ {
        |source| RunError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn read_block(&self, block: usize) -> Result<Option<Vec<u8>>, RunError> {
        let Some(place) = self.blocks.get(block) else {
            return Ok(None);
        };
        let mut head = [0; HEAD_BYTES];
        self.file
            .read_exact_at(&mut head, place.at)
            .map_err(self.io())?;
        let head = BlockHead::parse(head);
        let damaged = || RunError::Damaged {
            path: self.path.clone(),
            at: place.at,
        };
        let limit = lz4_flex::block::get_maximum_output_size(head.raw_len);
        if head.stored_len > limit || (head.raw_len as u64) < place.data_bytes {
            return Err(damaged());
        }
        let mut stored = vec![0; head.stored_len];
        self.file
            .read_exact_at(&mut stored, place.at + HEAD_BYTES as u64)
            .map_err(self.io())?;
        head.unpack(&stored).ok_or_else(damaged).map(Some)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a run was left behind");
        }
    }
}

struct RunWriter {
    run: Run,
    /// The entries of the block in the making, its first key, and the bytes of its data.
    raw: Vec<u8>,
    first_key: Vec<u8>,
    data_bytes: u64,
    at: u64,
}

impl RunWriter {
    fn push(&mut self, version: &Version<'_>) -> Result<(), RunError> {
        if self.raw.is_empty() {
            self.first_key = version.key.to_vec();
        }
        block::push(&mut self.raw, version);
        self.data_bytes += (version.key.len() + version.value.len()) as u64;
        if self.raw.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), RunError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let stored = block::pack(&self.raw);
        let written = (&self.run.file).write_all(&stored);
        written.map_err(self.run.io())?;
        self.run.blocks.push(BlockPlace {
            first_key: std::mem::take(&mut self.first_key),
            at: self.at,
            data_bytes: self.data_bytes,
        });
        self.run.data_bytes += self.data_bytes;
        self.at += stored.len() as u64;
        self.data_bytes = 0;
        self.raw.clear();
        Ok(())
    }
}

/// A place in a run.
pub(super) struct RunCursor {
    run: Arc<Run>,
    next_block: usize,
    block: Vec<u8>,
    at: usize,
}

impl RunCursor {
    /// At the first version of this key or a later one.
    pub(super) fn seek(run: Arc<Run>, encoded_key: &[u8]) -> Result<RunCursor, RunError> {
        // Versions of the key may begin in the block before the first that begins with it.
        let after = run
            .blocks
            .partition_point(|block| block.first_key.as_slice() < encoded_key);
        let mut cursor = RunCursor {
            run,
            next_block: after.saturating_sub(1),
            block: Vec::new(),
            at: 0,
        };
        cursor.load()?;
        while cursor
            .peek()
            .is_some_and(|version| version.key < encoded_key)
        {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    pub(super) fn peek(&self) -> Option<Version<'_>> {
        block::entry(&self.block, self.at).map(|(version, _)| version)
    }

    pub(super) fn advance(&mut self) -> Result<(), RunError> {
        if let Some((_, next)) = block::entry(&self.block, self.at) {
            self.at = next;
        }
        match self.at >= self.block.len() {
            true => self.load(),
            false if self.peek().is_none() => Err(RunError::Damaged {
                path: self.run.path.clone(),
                at: self.next_block as u64,
            }),
            false => Ok(()),
        }
    }

    /// The next block, or none.
    fn load(&mut self) -> Result<(), RunError> {
        self.block = self.run.read_block(self.next_block)?.unwrap_or_default();
        self.next_block += 1;
        self.at = 0;
        Ok(())
    }
}
