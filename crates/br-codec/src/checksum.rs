//! CRC-64/XZ, the checksum of key-value data in backups and of `ADMIN CHECKSUM TABLE`.

use crc_fast::{CrcAlgorithm, Digest};

/// Pairs of up to so many bytes, which most rows are, are put side by side first.
const PAIR_BYTES_COPIED_MAX: usize = 512;

/// A CRC-64/XZ over bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Crc64(Digest);

impl Crc64 {
    /// Over nothing yet.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Xz))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

/// The checksum of one byte string.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Xz, bytes)
}

/// The checksum of a key-value pair: of the raw key, then the value. A backup file's `crc64xor` is
/// the XOR of those of its pairs, so it does not depend on their order.
pub fn crc64_of_pair(key: &[u8], value: &[u8]) -> u64 {
    // One pass over both: to begin anew costs more than to copy a row.
    let mut room = [0; PAIR_BYTES_COPIED_MAX];
    let (keys, values) = (key.len(), key.len() + value.len());
    if let (Some(head), true) = (room.get_mut(..keys), values <= PAIR_BYTES_COPIED_MAX) {
        head.copy_from_slice(key);
        if let Some(tail) = room.get_mut(keys..values) {
            tail.copy_from_slice(value);
        }
        return crc64(room.get(..values).unwrap_or_default());
    }
    let mut crc = Crc64::new();
    crc.update(key);
    crc.update(value);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
        assert_eq!(crc64_of_pair(b"1234", b"56789"), 0x995D_C9BB_DF19_39FA);
        assert_eq!(Crc64::new().value(), 0);
        for (key, value) in [
            (0, 0),
            (0, 512),
            (512, 0),
            (30, 482),
            (30, 483),
            (513, 0),
            (9, 2000),
        ] {
            let bytes: Vec<u8> = (0..key + value).map(|i| i as u8).collect();
            let (key, value) = bytes.split_at(key);
            assert_eq!(crc64_of_pair(key, value), crc64(&bytes));
        }
    }
}
