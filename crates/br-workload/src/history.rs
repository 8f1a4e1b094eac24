//! # What it does
//! Writes what a workload committed to a file, so that another process can compare later.
//!
//! # Objects it reads and writes
//! One file of JSON lines: the tables, then each committed transaction with its timestamp, in the
//! order in which the commits were acknowledged.
//!
//! # After a crash
//! A last line that is cut off was not acknowledged to anybody, and is left out when reading.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use br_types::TimeStamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Model, RowChange, SchemaChange},
    table::Table,
};

/// A history file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file.
    #[error("history file {path}: {source}")]
    File {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line.
    #[error("history file {path}, line {line}: {source}")]
    Line {
        /// Where it is.
        path: PathBuf,
        /// Which one, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// It has no tables.
    #[error("history file {path} is empty")]
    Empty {
        /// Where it is.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    database: String,
    tables: Vec<Table>,
}

#[derive(Serialize, Deserialize)]
struct Commit {
    commit_ts: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<RowChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    schemas: Vec<SchemaChange>,
}

/// Appends what is committed.
pub struct HistoryWriter {
    path: PathBuf,
    file: Mutex<File>,
}

impl HistoryWriter {
    /// Begins a file, in the place of one that may be there.
    ///
    /// # Errors
    /// [`HistoryError::File`].
    pub fn create(
        path: &Path,
        database: &str,
        tables: &[Table],
    ) -> Result<HistoryWriter, HistoryError> {
        let failed = |source| HistoryError::File {
            path: path.to_owned(),
            source,
        };
        let file = File::create(path).map_err(failed)?;
        let writer = HistoryWriter {
            path: path.to_owned(),
            file: Mutex::new(file),
        };
        writer.append(&Head {
            database: database.to_owned(),
            tables: tables.to_vec(),
        })?;
        Ok(writer)
    }

    /// Notes a transaction that was acknowledged.
    ///
    /// # Errors
    /// [`HistoryError::File`].
    pub fn commit(&self, commit_ts: TimeStamp, changes: &[RowChange]) -> Result<(), HistoryError> {
        self.append(&Commit {
            commit_ts: commit_ts.0,
            changes: changes.to_vec(),
            schemas: Vec::new(),
        })
    }

    /// Notes a change of schemas that was acknowledged.
    ///
    /// # Errors
    /// [`HistoryError::File`].
    pub fn change_schemas(
        &self,
        commit_ts: TimeStamp,
        changes: &[SchemaChange],
    ) -> Result<(), HistoryError> {
        self.append(&Commit {
            commit_ts: commit_ts.0,
            changes: Vec::new(),
            schemas: changes.to_vec(),
        })
    }

    fn append(&self, line: &impl Serialize) -> Result<(), HistoryError> {
        let failed = |source| HistoryError::File {
            path: self.path.clone(),
            source,
        };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).map_err(failed)
    }
}

/// Reads a history file: the database's name, and the model of its tables.
///
/// # Errors
/// [`HistoryError`].
pub fn read(path: &Path) -> Result<(String, Model), HistoryError> {
    let failed = |source| HistoryError::File {
        path: path.to_owned(),
        source,
    };
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    let mut read: Option<(String, Model)> = None;
    for number in 1.. {
        line.clear();
        lines.read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let bad = |source| HistoryError::Line {
            path: path.to_owned(),
            line: number,
            source,
        };
        match &mut read {
            None => {
                let head: Head = serde_json::from_slice(&line).map_err(bad)?;
                read = Some((head.database, Model::new(head.tables)));
            }
            Some((_, model)) => {
                let commit: Commit = serde_json::from_slice(&line).map_err(bad)?;
                model.change_schemas(TimeStamp(commit.commit_ts), &commit.schemas);
                model.commit(TimeStamp(commit.commit_ts), &commit.changes);
            }
        }
    }
    read.ok_or_else(|| HistoryError::Empty {
        path: path.to_owned(),
    })
}
