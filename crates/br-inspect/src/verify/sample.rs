use sha2::{Digest, Sha256};

/// Parts of a million.
const WHOLE: u32 = 1_000_000;

/// Which objects are looked at closely: a share of them, chosen by their names and a seed, so that
/// the same sample comes out again, and another seed looks elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    per_million: u32,
    seed: u64,
}

impl Sample {
    /// Everything.
    pub const fn all() -> Sample {
        Sample {
            per_million: WHOLE,
            seed: 0,
        }
    }

    /// So many of a million objects; more is all.
    pub fn new(per_million: u32, seed: u64) -> Sample {
        Sample {
            per_million: per_million.min(WHOLE),
            seed,
        }
    }

    /// Whether it takes everything.
    pub fn is_all(&self) -> bool {
        self.per_million >= WHOLE
    }

    /// Its share in percent.
    pub fn percent(&self) -> f64 {
        f64::from(self.per_million) / f64::from(WHOLE / 100)
    }

    /// What it was chosen by.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether it takes what has this name.
    pub fn takes(&self, name: &str) -> bool {
        if self.is_all() {
            return true;
        }
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(name)
            .finalize();
        let (head, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*head) % u64::from(WHOLE) < u64::from(self.per_million)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_its_share_and_comes_out_again() {
        let names: Vec<_> = (0..20_000).map(|at| format!("1/{at}.sst")).collect();
        let taken =
            |sample: Sample| -> Vec<bool> { names.iter().map(|name| sample.takes(name)).collect() };
        let first = taken(Sample::new(100_000, 7));
        let count = first.iter().filter(|taken| **taken).count();
        assert!((1_800..2_200).contains(&count), "{count}");
        assert_eq!(first, taken(Sample::new(100_000, 7)));
        assert_ne!(first, taken(Sample::new(100_000, 8)));
        assert!(taken(Sample::all()).iter().all(|taken| *taken));
        assert!(!taken(Sample::new(0, 7)).iter().any(|taken| *taken));
    }
}
