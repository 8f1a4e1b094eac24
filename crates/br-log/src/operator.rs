use br_rt::ProcessName;

/// Who does something to a log backup, for those who find traces of it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The host.
    pub host: String,
    /// The process.
    pub pid: u32,
}

impl Operator {
    /// This process on this host.
    pub fn this() -> Operator {
        let process = ProcessName::current();
        Operator {
            host: process.host,
            pid: process.pid,
        }
    }
}
