//! Files of rows.

use std::path::{Path, PathBuf};

use br_tidb::schema::{ColumnInfo, tp};
use serde::Serialize;
use tokio::{
    fs::File,
    io::{AsyncWriteExt as _, BufWriter},
};

use super::{ExportError, ExportOptions, Format};

/// Bytes that are collected before the system is asked to write them.
const BUFFER_BYTES: usize = 1 << 20;

/// Makes the folder.
pub(super) fn make_folder(path: &Path) -> Result<(), ExportError> {
    std::fs::create_dir_all(path).map_err(|source| ExportError::Output {
        path: path.to_owned(),
        source,
    })
}

/// Writes the file of one table. Dropped before it is finished, it leaves nothing.
pub(super) struct TableWriter {
    file: BufWriter<File>,
    format: Format,
    part: PartFile,
    path: PathBuf,
    line: String,
}

/// The hidden file under way; removed when dropped, unless it was renamed.
struct PartFile(PathBuf);

impl Drop for PartFile {
    fn drop(&mut self) {
        // What cannot be removed is of no harm, and there is nobody to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[derive(Serialize)]
struct Header<'a> {
    db: &'a str,
    table: &'a str,
    columns: Vec<&'a str>,
    types: Vec<&'a str>,
    hex: Vec<&'a str>,
}

impl TableWriter {
    /// Begins a file.
    pub(super) async fn create(
        options: &ExportOptions,
        db: &str,
        table: &str,
        columns: &[&ColumnInfo],
    ) -> Result<Self, ExportError> {
        let name = file_name(db, table, options.format);
        let path = options.output.join(&name);
        let part = options.output.join(format!(".{name}.part"));
        let file = File::create(&part)
            .await
            .map_err(|source| ExportError::Output {
                path: part.clone(),
                source,
            })?;
        let mut writer = Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            format: options.format,
            part: PartFile(part),
            path,
            line: String::new(),
        };
        match options.format {
            Format::Jsonl => writer.line = jsonl_header(db, table, columns),
            Format::Csv => {
                let names = columns
                    .iter()
                    .map(|column| Some(column.name.original.as_str()));
                push_csv(&mut writer.line, names);
            }
        }
        writer.write_line().await?;
        Ok(writer)
    }

    /// Adds a row.
    pub(super) async fn row(&mut self, row: &[Option<String>]) -> Result<(), ExportError> {
        match self.format {
            Format::Jsonl => {
                self.line = serde_json::to_string(row).expect("text can always be written as JSON");
                self.line.push('\n');
            }
            Format::Csv => push_csv(&mut self.line, row.iter().map(Option::as_deref)),
        }
        self.write_line().await
    }

    /// Completes the file and gives its path.
    pub(super) async fn finish(mut self) -> Result<PathBuf, ExportError> {
        let outcome = async {
            self.file.flush().await?;
            self.file.get_ref().sync_all().await?;
            tokio::fs::rename(&self.part.0, &self.path).await
        };
        outcome.await.map_err(|source| ExportError::Output {
            path: self.path.clone(),
            source,
        })?;
        Ok(self.path.clone())
    }

    async fn write_line(&mut self) -> Result<(), ExportError> {
        let outcome = self.file.write_all(self.line.as_bytes()).await;
        self.line.clear();
        outcome.map_err(|source| ExportError::Output {
            path: self.part.0.clone(),
            source,
        })
    }
}

fn jsonl_header(db: &str, table: &str, columns: &[&ColumnInfo]) -> String {
    let is_hex = |column: &&&ColumnInfo| {
        column.field_type.is_binary_string() || column.field_type.tp == tp::BIT
    };
    let name = |column: &&'_ ColumnInfo| -> String { column.name.original.clone() };
    let names: Vec<String> = columns.iter().map(name).collect();
    let hex: Vec<String> = columns.iter().filter(is_hex).map(name).collect();
    let header = Header {
        db,
        table,
        columns: names.iter().map(String::as_str).collect(),
        types: columns
            .iter()
            .map(|column| column.field_type.name())
            .collect(),
        hex: hex.iter().map(String::as_str).collect(),
    };
    let mut line = serde_json::to_string(&header).expect("text can always be written as JSON");
    line.push('\n');
    line
}

/// Appends a line of CSV. Text that could be taken for NULL is quoted, and so is the empty one.
fn push_csv<'a>(line: &mut String, fields: impl Iterator<Item = Option<&'a str>>) {
    for (at, field) in fields.enumerate() {
        if at > 0 {
            line.push(',');
        }
        match field {
            None => line.push_str("\\N"),
            Some(text)
                if text.is_empty() || text == "\\N" || text.contains(['"', ',', '\r', '\n']) =>
            {
                line.push('"');
                line.push_str(&text.replace('"', "\"\""));
                line.push('"');
            }
            Some(text) => line.push_str(text),
        }
    }
    line.push_str("\r\n");
}

/// `{database}.{table}.{format}`; every byte of a name but ASCII letters, digits, `_` and `-` is
/// `%XX`.
fn file_name(db: &str, table: &str, format: Format) -> String {
    let suffix = match format {
        Format::Jsonl => "jsonl",
        Format::Csv => "csv",
    };
    format!("{}.{}.{suffix}", escaped(db), escaped(table))
}

fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_on_every_file_system() {
        assert_eq!(
            file_name("we`ird-Name", "ta.ble ümlaut", Format::Jsonl),
            "we%60ird-Name.ta%2Eble%20%C3%BCmlaut.jsonl"
        );
        assert_eq!(file_name("..", "/", Format::Csv), "%2E%2E.%2F.csv");
    }

    #[test]
    fn csv_tells_null_from_text() {
        let mut line = String::new();
        push_csv(
            &mut line,
            [None, Some("\\N"), Some(""), Some("a"), Some("b\"c,\n")].into_iter(),
        );
        assert_eq!(line, "\\N,\"\\N\",\"\",a,\"b\"\"c,\n\"\r\n");
    }
}
