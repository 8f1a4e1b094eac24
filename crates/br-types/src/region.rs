use std::fmt;

/// The version of a region's shape: which keys it holds and where its replicas are.
///
/// Source: `metapb.RegionEpoch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionEpoch {
    /// Grows when replicas are added or removed.
    pub conf_ver: u64,
    /// Grows with each split and merge.
    pub version: u64,
}

impl fmt::Display for RegionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conf_ver {} version {}", self.conf_ver, self.version)
    }
}
