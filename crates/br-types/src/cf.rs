use std::fmt;

/// A column family of a store's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cf {
    /// Long values, at their `start_ts`; raw key-value data.
    Default,
    /// Locks of transactions that are under way, one per key.
    Lock,
    /// Commit records, at their `commit_ts`.
    Write,
}

impl Cf {
    /// Every column family, in a fixed order.
    pub const ALL: [Cf; 3] = [Cf::Default, Cf::Lock, Cf::Write];

    /// The name as it stands in requests, file names and the engine.
    pub const fn name(self) -> &'static str {
        match self {
            Cf::Default => "default",
            Cf::Lock => "lock",
            Cf::Write => "write",
        }
    }

    /// The column family of that name; the empty name is `default`, as in TiKV's requests.
    pub fn from_name(name: &str) -> Option<Cf> {
        match name {
            "" | "default" => Some(Cf::Default),
            "lock" => Some(Cf::Lock),
            "write" => Some(Cf::Write),
            _ => None,
        }
    }
}

impl fmt::Display for Cf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
