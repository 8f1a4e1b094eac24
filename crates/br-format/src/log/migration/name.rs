use crate::log::names::MIGRATION_FOLDER;

const SUFFIX: &str = ".mgrt";
const NUMBER_DIGITS: usize = 8;
const HASH_DIGITS: usize = 16;

/// The name of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MigrationName {
    /// All those that were merged.
    Base,
    /// A base that is being written. After a crash it may stay, and says nothing.
    BaseTemporary,
    /// One that was appended, with its number (from 1) and [`super::Migration::hash`].
    Layer {
        /// Its place in the order.
        number: u32,
        /// Of its content.
        hash: u64,
    },
}

impl MigrationName {
    /// The whole name.
    pub fn to_name(self) -> String {
        match self {
            MigrationName::Base => format!("{MIGRATION_FOLDER}/BASE"),
            MigrationName::BaseTemporary => format!("{MIGRATION_FOLDER}/BASE_TMP"),
            MigrationName::Layer { number, hash } => {
                format!("{MIGRATION_FOLDER}/{number:08}_{hash:016X}{SUFFIX}")
            }
        }
    }

    /// Reads a name; none if it is another one. Such an object must stop a reader: it may be an
    /// edit that it does not know.
    pub fn parse(name: &str) -> Option<MigrationName> {
        let name = name.strip_prefix(MIGRATION_FOLDER)?.strip_prefix('/')?;
        match name {
            "BASE" => return Some(MigrationName::Base),
            "BASE_TMP" => return Some(MigrationName::BaseTemporary),
            _ => {}
        }
        let (number, hash) = name.strip_suffix(SUFFIX)?.split_once('_')?;
        let is_number = number.len() >= NUMBER_DIGITS && number.bytes().all(|b| b.is_ascii_digit());
        let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_number || !is_hash {
            return None;
        }
        Some(MigrationName::Layer {
            number: number.parse().ok()?,
            hash: u64::from_str_radix(hash, 16).ok()?,
        })
    }
}
