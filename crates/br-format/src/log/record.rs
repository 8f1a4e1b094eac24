//! The stream of records that a logical file is, before compression and encryption.
//!
//! ```text
//! record := key_len:u32 LE | key | value_len:u32 LE | value
//! key    := memcomparable(raw key) BE8(!ts)
//! ```
//! The timestamp is the `start_ts` in the default column family and the `commit_ts` in write. There
//! is no `z` before the key. Records stand in the order in which they were applied.

use br_codec::{DecodeError, key, number::read_slice};
use br_types::TimeStamp;

const WHAT: &str = "log record";

/// One record; borrows from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Memcomparable, with its timestamp.
    pub key: &'a [u8],
    /// What the column family has at that key; empty in files of deletions.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The memcomparable key and the timestamp.
    ///
    /// # Errors
    /// The key is shorter than a timestamp.
    pub fn split_key(&self) -> Result<(&'a [u8], TimeStamp), DecodeError> {
        key::split_ts(self.key)
    }

    /// Appends it to a stream.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        for part in [self.key, self.value] {
            let length = u32::try_from(part.len())
                .expect("a raft entry, which it came in, is much smaller than 4 GiB");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(part);
        }
    }

    /// Bytes of it in a stream.
    pub fn encoded_len(&self) -> usize {
        2 * size_of::<u32>() + self.key.len() + self.value.len()
    }
}

/// The records of a stream; nothing comes after an error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// The records of this stream.
    pub fn new(stream: &'a [u8]) -> Self {
        Self { rest: stream }
    }

    /// Bytes that are left.
    pub fn rest_len(&self) -> usize {
        self.rest.len()
    }

    fn part(&mut self) -> Result<&'a [u8], DecodeError> {
        let (length, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::new(WHAT, "it ends within a length"))?;
        self.rest = rest;
        let length = usize::try_from(u32::from_le_bytes(*length))
            .map_err(|_| DecodeError::new(WHAT, "a length is too great"))?;
        read_slice(&mut self.rest, length)
            .map_err(|_| DecodeError::new(WHAT, "it ends within a key or value"))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self
            .part()
            .and_then(|key| self.part().map(|value| Record { key, value }));
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layout_is_little_endian() {
        let record = Record {
            key: b"ab",
            value: b"c",
        };
        let mut out = Vec::new();
        record.encode_into(&mut out);
        assert_eq!(out, b"\x02\0\0\0ab\x01\0\0\0c");
        assert_eq!(out.len(), record.encoded_len());
    }

    #[test]
    fn a_cut_stream_ends_with_one_error() {
        let whole = b"\x02\0\0\0ab\x01\0\0\0c";
        for cut in 1..whole.len() {
            let found: Vec<_> = Records::new(&whole[..cut]).collect();
            assert_eq!(found.len(), 1, "{cut}");
            assert!(found[0].is_err(), "{cut}");
        }
        let huge = b"\xFF\xFF\xFF\xFFab";
        assert!(Records::new(huge).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn records_come_back(pairs: Vec<(Vec<u8>, Vec<u8>)>) {
            let mut stream = Vec::new();
            for (key, value) in &pairs {
                Record { key, value }.encode_into(&mut stream);
            }
            let found: Vec<_> = Records::new(&stream)
                .map(|record| record.map(|record| (record.key.to_vec(), record.value.to_vec())))
                .collect::<Result<_, _>>()
                .unwrap();
            prop_assert_eq!(found, pairs);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            for record in Records::new(&noise).flatten() {
                let _ = record.split_key();
            }
        }
    }
}
