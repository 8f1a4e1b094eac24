/// The most memory that this process had at a time, MB; 0 where the system does not tell.
pub(crate) fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilo_bytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilo_bytes.unwrap_or(0) / 1024
}
