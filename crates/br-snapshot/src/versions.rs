//! Which versions of stores this tool was made for.
//!
//! # Source
//! The official tool's rules (br/pkg/version): stores from 3.1.0-beta.2 on, and no more than two
//! major versions between them and the tool.

use br_types::{Classify, Code, Kind, StoreId};
use semver::Version;

/// The major version of the official tool that this one stands for: it decides which clusters are
/// too new or too old.
pub const COMPATIBLE_MAJOR: u64 = 9;
/// The oldest stores that know the protocol of backup.
const STORE_MIN: &str = "3.1.0-beta.2";
/// Major versions that a store may lag behind.
const MAJOR_LAG_MAX: u64 = 2;

/// A store whose version does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The text is no version.
    #[error("store {store} says that its version is {text:?}, which is none")]
    NotAVersion {
        /// The store.
        store: StoreId,
        /// What it says.
        text: String,
    },
    /// Older than everything that is known to work.
    #[error("store {store} is of version {found}, older than {STORE_MIN}")]
    TooOld {
        /// The store.
        store: StoreId,
        /// Its version.
        found: Version,
    },
    /// Too far behind this tool, or ahead of it.
    #[error(
        "store {store} is of version {found}, but this tool is made for versions {} to \
         {COMPATIBLE_MAJOR}",
        COMPATIBLE_MAJOR - MAJOR_LAG_MAX
    )]
    MajorMismatch {
        /// The store.
        store: StoreId,
        /// Its version.
        found: Version,
    },
}

impl Classify for VersionError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn code(&self) -> Code {
        Code::VERSION_MISMATCH
    }

    fn next_step(&self) -> Option<String> {
        Some(
            "Use a tool of the version of the cluster, or, if you know that it fits, \
             --check-requirements=false"
                .to_owned(),
        )
    }
}

/// Reads a version as stores and PD write it: a leading `v`, quotes of JSON, and what builds from
/// source append (`-dirty`, `-12-gabcdef`) are passed over.
pub fn parse(text: &str) -> Option<Version> {
    let text = text.trim_matches(['"', ' ', '\n', '\t']);
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.strip_suffix("-dirty").unwrap_or(text);
    Version::parse(without_commit(text)).ok()
}

/// The text without `-N-gHASH` at its end.
fn without_commit(text: &str) -> &str {
    let Some((front, hash)) = text.rsplit_once("-g") else {
        return text;
    };
    let Some((version, commits)) = front.rsplit_once('-') else {
        return text;
    };
    let is_hash = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_count = !commits.is_empty() && commits.bytes().all(|byte| byte.is_ascii_digit());
    if is_hash && is_count { version } else { text }
}

/// Checks the version of a store.
///
/// # Errors
/// [`VersionError`].
pub fn check_store(store: StoreId, text: &str) -> Result<(), VersionError> {
    let not_a_version = || VersionError::NotAVersion {
        store,
        text: text.to_owned(),
    };
    let found = parse(text).ok_or_else(not_a_version)?;
    let min = Version::parse(STORE_MIN).expect("the constant is a version");
    if found < min {
        return Err(VersionError::TooOld { store, found });
    }
    if found.major > COMPATIBLE_MAJOR || COMPATIBLE_MAJOR - found.major > MAJOR_LAG_MAX {
        return Err(VersionError::MajorMismatch { store, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_they_are_written() {
        for (text, expected) in [
            ("9.0.0-beta.2", "9.0.0-beta.2"),
            ("v8.5.0", "8.5.0"),
            ("\"9.0.0\"\n", "9.0.0"),
            ("8.1.0-alpha-12-gabc123", "8.1.0-alpha"),
            ("v7.5.1-3-gdeadbeef-dirty", "7.5.1"),
        ] {
            assert_eq!(
                parse(text).map(|v| v.to_string()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        assert_eq!(parse("nightly"), None);
    }

    #[test]
    fn stores_of_all_ages() {
        let check = |text| check_store(StoreId(1), text);
        assert!(check("9.0.0-beta.2").is_ok());
        assert!(check("8.5.0").is_ok());
        assert!(check("7.1.0").is_ok());
        assert!(matches!(
            check("6.5.0"),
            Err(VersionError::MajorMismatch { .. })
        ));
        assert!(matches!(
            check("10.0.0"),
            Err(VersionError::MajorMismatch { .. })
        ));
        assert!(matches!(check("3.0.9"), Err(VersionError::TooOld { .. })));
        assert!(matches!(
            check("new"),
            Err(VersionError::NotAVersion { .. })
        ));
    }
}
