//! Which databases and tables a backup takes.

use br_tidb::filter::TableFilter;

use super::{BackupError, Scope};

/// The databases and tables of a scope.
#[derive(Clone, Debug)]
pub(super) enum Selection {
    /// Those that a filter takes.
    Filter(TableFilter),
    /// One database, in lower case.
    Database(String),
    /// One table, in lower case.
    Table(String, String),
}

impl Selection {
    /// `None` for raw and transactional keys.
    pub(super) fn of(scope: &Scope) -> Option<Selection> {
        match scope {
            Scope::Full { filter } => Some(Selection::Filter(filter.clone())),
            Scope::Database { db } => Some(Selection::Database(db.to_lowercase())),
            Scope::Table { db, table } => {
                Some(Selection::Table(db.to_lowercase(), table.to_lowercase()))
            }
            Scope::Raw { .. } | Scope::Txn { .. } => None,
        }
    }

    /// Whether the whole cluster is meant, with its placement policies.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Selection::Filter(_))
    }

    /// Whether a database is looked at, and kept even if it has no tables.
    pub(super) fn takes_db(&self, db: &str) -> bool {
        match self {
            Selection::Filter(filter) => filter.matches_db(db),
            Selection::Database(wanted) | Selection::Table(wanted, _) => {
                *wanted == db.to_lowercase()
            }
        }
    }

    /// Whether a table is taken.
    pub(super) fn takes_table(&self, db: &str, table: &str) -> bool {
        match self {
            Selection::Filter(filter) => filter.matches_table(db, table),
            Selection::Database(wanted) => *wanted == db.to_lowercase(),
            Selection::Table(wanted_db, wanted) => {
                *wanted_db == db.to_lowercase() && *wanted == table.to_lowercase()
            }
        }
    }

    /// Checks that something is taken.
    pub(super) fn check_found(&self, databases: usize, tables: usize) -> Result<(), BackupError> {
        match self {
            Selection::Filter(_) if databases == 0 => Err(BackupError::NothingToBackUp),
            Selection::Database(name) if databases == 0 => {
                Err(BackupError::NoDatabase { name: name.clone() })
            }
            Selection::Table(db, table) if tables == 0 => Err(BackupError::NoTable {
                name: format!("{db}.{table}"),
            }),
            _ => Ok(()),
        }
    }
}
