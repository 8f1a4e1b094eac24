use std::io;

use bytes::Bytes;

/// Bytes of a file, by position. The implementor does the I/O.
pub trait RandomAccess {
    /// Bytes of the whole file.
    fn size_bytes(&self) -> u64;

    /// Exactly `len` bytes from `offset` on, which lie within the file.
    ///
    /// # Errors
    /// Whatever reading them gives; fewer bytes are an error too.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;
}

/// A file in memory; blocks without compression are not copied.
impl RandomAccess for Bytes {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).ok();
        let end = start
            .and_then(|start| start.checked_add(len))
            .filter(|&end| end <= self.len());
        match (start, end) {
            (Some(start), Some(end)) => Ok(self.slice(start..end)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<T: RandomAccess + ?Sized> RandomAccess for &T {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        (**self).read_at(offset, len)
    }
}
