use br_types::{Classify, Kind};

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is damaged: {problem}")]
pub struct DecodeError {
    /// What was being read, such as "write record".
    pub what: &'static str,
    /// What is wrong with it, such as "ends within the start timestamp".
    pub problem: &'static str,
}

impl DecodeError {
    /// An error about `what`.
    pub const fn new(what: &'static str, problem: &'static str) -> Self {
        Self { what, problem }
    }
}

impl Classify for DecodeError {
    fn kind(&self) -> Kind {
        Kind::Data
    }
}
