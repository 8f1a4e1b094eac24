//! `backup.lock`: the mark of a place that a backup has claimed.
//!
//! It is the first object of a backup and is never removed. By itself it does not block a later
//! backup: that takes data files beside it.

/// Its content, as the official tool writes it.
pub const CONTENT: &str =
    "DO NOT DELETE\nThis file exists to remind other backup jobs won't use this path";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backupmeta::tests::golden;

    #[test]
    fn content_is_that_of_the_official_tool() {
        assert_eq!(golden("full/backup.lock"), CONTENT.as_bytes());
    }
}
