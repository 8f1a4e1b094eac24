//! Sums over key-value pairs that prove a table complete, whatever the order and the files.

use std::iter::Sum;
use std::ops::AddAssign;

use br_codec::checksum::crc64_of_pair;

/// The XOR of CRC-64 and the totals over a set of key-value pairs.
///
/// A pair counts with its raw key (decoded, without timestamp) and its value. The CRC is CRC-64/XZ
/// over key and value together. Equal to `ADMIN CHECKSUM TABLE` of TiDB, and to what a store
/// answers to a checksum request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KvStats {
    /// The XOR of all CRCs.
    pub crc64_xor: u64,
    /// The number of pairs.
    pub total_kvs: u64,
    /// Bytes of all raw keys and values.
    pub total_bytes: u64,
}

impl KvStats {
    /// The sums of one pair.
    pub fn of_pair(raw_key: &[u8], value: &[u8]) -> KvStats {
        KvStats {
            crc64_xor: crc64_of_pair(raw_key, value),
            total_kvs: 1,
            total_bytes: raw_key.len() as u64 + value.len() as u64,
        }
    }

    /// Takes one more pair in.
    pub fn add_pair(&mut self, raw_key: &[u8], value: &[u8]) {
        *self += KvStats::of_pair(raw_key, value);
    }

    /// Whether no pair is in.
    ///
    /// A backup without checksums says the same of its tables, so there zero means "not known".
    pub fn is_zero(&self) -> bool {
        *self == KvStats::default()
    }
}

/// Sums of both sets, which must not overlap. Totals wrap, as they do in the official tool.
impl AddAssign for KvStats {
    #[allow(clippy::suspicious_op_assign_impl, reason = "sums of CRCs are XORs")]
    fn add_assign(&mut self, other: KvStats) {
        self.crc64_xor ^= other.crc64_xor;
        self.total_kvs = self.total_kvs.wrapping_add(other.total_kvs);
        self.total_bytes = self.total_bytes.wrapping_add(other.total_bytes);
    }
}

impl Sum for KvStats {
    fn sum<I: Iterator<Item = KvStats>>(parts: I) -> KvStats {
        parts.fold(KvStats::default(), |mut sum, part| {
            sum += part;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn check_value_of_crc64_xz() {
        let stats = KvStats::of_pair(b"1234", b"56789");
        let expected = KvStats {
            crc64_xor: 0x995D_C9BB_DF19_39FA,
            total_kvs: 1,
            total_bytes: 9,
        };
        assert_eq!(stats, expected);
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(
            pairs in prop::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..20), at in 0usize..20,
        ) {
            let (left, right) = pairs.split_at(at.min(pairs.len()));
            let of = |pairs: &[(Vec<u8>, Vec<u8>)]| -> KvStats {
                pairs.iter().map(|(key, value)| KvStats::of_pair(key, value)).sum()
            };
            let mut swapped = of(right);
            swapped += of(left);
            prop_assert_eq!(swapped, of(&pairs));
        }
    }
}
