use std::path::Path;

/// Bytes of the file system that holds `path`: all of it, and what is free for this process. Zeros
/// if the system does not say.
pub(crate) fn space(path: &Path) -> (u64, u64) {
    match rustix::fs::statvfs(path) {
        Ok(stat) => (
            stat.f_blocks.saturating_mul(stat.f_frsize),
            stat.f_bavail.saturating_mul(stat.f_frsize),
        ),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot tell the disk's space");
            (0, 0)
        }
    }
}
