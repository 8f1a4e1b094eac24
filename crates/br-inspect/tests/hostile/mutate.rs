//! Damage, by a seed.

/// Numbers at which parsers go wrong.
const NUMBERS: [u64; 10] = [
    0,
    1,
    0x7F,
    0x80,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    u64::MAX,
];

pub(crate) struct Mutator(u64);

impl Mutator {
    pub(crate) fn new(seed: u64, name: &str) -> Mutator {
        let of_name = name
            .bytes()
            .fold(seed, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        Mutator(of_name)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            bound => (self.next() % bound as u64) as usize,
        }
    }

    /// One of the seeds, damaged.
    pub(crate) fn damage(&mut self, seeds: &[Vec<u8>], size_max: usize) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        if bytes.len() > size_max {
            // The end of a table is where reading begins.
            match self.below(2) {
                0 => bytes.truncate(size_max),
                _ => bytes.drain(..bytes.len() - size_max).for_each(drop),
            }
        }
        for _ in 0..=self.below(4) {
            self.once(&mut bytes, seeds);
        }
        bytes
    }

    fn once(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let len = self.below(16).min(bytes.len().saturating_sub(at));
        match self.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.drain(at..at + len).for_each(drop),
            4 => {
                let piece = bytes[at..at + len].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let noise: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
                bytes.splice(at..at, noise);
            }
            6 => {
                // A number of fixed length, in either order.
                let number = NUMBERS[self.below(NUMBERS.len())];
                let width = [1, 2, 4, 8][self.below(4)];
                let number = match self.below(2) {
                    0 => number.to_le_bytes()[..width].to_vec(),
                    _ => number.to_be_bytes()[8 - width..].to_vec(),
                };
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, number);
            }
            7 => {
                // A varint.
                let mut number = NUMBERS[self.below(NUMBERS.len())];
                let mut varint = Vec::new();
                while number >= 0x80 {
                    varint.push(number as u8 | 0x80);
                    number >>= 7;
                }
                varint.push(number as u8);
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, varint);
            }
            8 => {
                // A piece of another one.
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                let piece = other[from..(from + 64).min(other.len())].to_vec();
                bytes.splice(at..at + len, piece);
            }
            _ => {}
        }
    }
}
