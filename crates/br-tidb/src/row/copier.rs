//! Copies rows from one table to another one whose columns have the same names, as
//! `REPLACE INTO target(columns) SELECT columns FROM source` would.

use std::collections::HashMap;

use super::{
    Datum, RowError, StoredRow,
    decoder::{Handle, HandleColumns},
    from_text::{of_text, origin_value},
    index_entry::RowPart,
    stored_row::compact,
    text::upper_hex,
    time::DateTime,
    value::{RowValue, Stored},
};
use crate::schema::{ColumnInfo, FieldType, SchemaState, TableInfo, flag, tp};

/// Two tables between which rows cannot be copied.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("column {column:?} {why}")]
pub struct IncompatibleColumn {
    /// The column.
    pub column: String,
    /// What is wrong.
    pub why: String,
}

/// Copies rows of one table to another.
#[derive(Clone, Debug)]
pub struct RowCopier {
    columns: Vec<Copied>,
    /// Columns that the source does not have: by id, with their value.
    added: Vec<(i64, RowPart)>,
    handle: Handle,
}

#[derive(Clone, Debug)]
struct Copied {
    from: ColumnInfo,
    /// Where in the source's handle it is.
    in_handle: Option<usize>,
    /// In rows from before it was added.
    default: RowPart,
    to: i64,
    names: Names,
}

/// How numbers of an ENUM or SET change.
#[derive(Clone, Debug)]
enum Names {
    Same,
    /// The new place of each name.
    Enum(Vec<u64>),
    Set(Vec<u64>),
}

impl RowCopier {
    /// Prepares to copy. Columns that only the target has get their default; `now_unix_s` is that of
    /// `CURRENT_TIMESTAMP`.
    ///
    /// # Errors
    /// A column that the target lacks, that holds less there or sorts otherwise, or that the
    /// source lacks and that has no default.
    pub fn new(
        from: &TableInfo,
        to: &TableInfo,
        now_unix_s: u64,
    ) -> Result<RowCopier, IncompatibleColumn> {
        let fail = |column: &str, why: &str| IncompatibleColumn {
            column: column.to_owned(),
            why: why.to_owned(),
        };
        let (handle, in_handle) = HandleColumns::of(from)
            .map_err(|error| fail("", &error.to_string()))?
            .into_parts();
        let is_stored =
            |column: &&ColumnInfo| column.state == SchemaState::PUBLIC && !column.is_virtual();
        let targets: HashMap<&str, &ColumnInfo> = to
            .columns
            .iter()
            .filter(is_stored)
            .map(|column| (column.name.lower.as_str(), column))
            .collect();
        let mut columns = Vec::new();
        for column in from.columns.iter().filter(is_stored) {
            let name = &column.name.original;
            let target = targets
                .get(column.name.lower.as_str())
                .ok_or_else(|| fail(name, "is missing in the cluster"))?;
            let names = match fits(&column.field_type, &target.field_type) {
                Ok(names) => names,
                Err(why) => return Err(fail(name, &why)),
            };
            let default = origin_value(column)
                .ok_or_else(|| fail(name, "has a default that cannot be read"))?;
            columns.push(Copied {
                from: column.clone(),
                in_handle: in_handle.iter().position(|id| *id == column.id),
                default,
                to: target.id,
                names,
            });
        }
        let is_added = |column: &&ColumnInfo| {
            let same = |copied: &Copied| copied.to == column.id;
            !columns.iter().any(same)
        };
        let added = to.columns.iter().filter(is_stored).filter(is_added);
        let added = added.map(|column| {
            let value = default_of(column, now_unix_s)
                .ok_or_else(|| fail(&column.name.original, "is missing in the backup"))?;
            Ok((column.id, value))
        });
        Ok(RowCopier {
            added: added.collect::<Result<_, _>>()?,
            columns,
            handle,
        })
    }

    /// Copies a row: `handle` is its key in the source without the record prefix.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn copy(&self, handle: &[u8], value: &[u8]) -> Result<StoredRow, RowError> {
        let key = self.handle.read(handle)?;
        let value = RowValue::parse(value)?;
        let mut row = StoredRow::new();
        for column in &self.columns {
            row.set(column.to, column.value(&key, &value)?);
        }
        for (id, part) in &self.added {
            row.set(*id, part.clone());
        }
        Ok(row)
    }
}

impl Copied {
    fn value(&self, key: &[Datum<'_>], value: &RowValue<'_>) -> Result<RowPart, RowError> {
        let damaged = |source| RowError::Column {
            column: self.from.name.original.clone(),
            source,
        };
        let field = &self.from.field_type;
        let part = match value.column(self.from.id).map_err(damaged)? {
            Stored::Bytes(bytes) => RowPart::Bytes(bytes.to_vec()),
            Stored::Datum(datum) => compact(field, &datum).map_err(damaged)?,
            stored => match self.in_handle.and_then(|at| key.get(at)) {
                Some(datum) => compact(field, datum).map_err(damaged)?,
                None if stored == Stored::Null => RowPart::Null,
                None => self.default.clone(),
            },
        };
        self.names.change(part).map_err(damaged)
    }
}

impl Names {
    fn change(&self, part: RowPart) -> Result<RowPart, br_codec::DecodeError> {
        let (RowPart::Bytes(bytes), Names::Enum(places) | Names::Set(places)) = (&part, self)
        else {
            return Ok(part);
        };
        let number = super::text::uint(bytes)?;
        let place = |number: u64| {
            let at = usize::try_from(number).ok();
            at.and_then(|at| places.get(at)).copied()
        };
        let changed = match self {
            // 0 is the empty name of a value that was not known.
            Names::Enum(_) if number == 0 => Some(0),
            Names::Enum(_) => place(number - 1),
            _ => (0..u64::BITS)
                .filter(|bit| number >> bit & 1 == 1)
                .try_fold(0_u64, |bits, bit| {
                    Some(bits | 1 << (place(bit.into())? - 1))
                }),
        };
        let changed = changed.ok_or(br_codec::DecodeError::new(
            "value",
            "it has a name that its type has not",
        ))?;
        Ok(RowPart::Bytes(super::index_entry::compact_uint(changed)))
    }
}

/// Types whose values are stored in the same way.
fn family(field: &FieldType) -> u8 {
    match field.tp {
        tp::TINY | tp::SHORT | tp::INT24 | tp::LONG | tp::LONGLONG => tp::LONGLONG,
        _ if field.is_string() => tp::STRING,
        other => other,
    }
}

/// Whether every value of the one fits into the other; the rules of the official tool.
fn fits(from: &FieldType, to: &FieldType) -> Result<Names, String> {
    let kind = |field: &FieldType| {
        let collate = &field.collate;
        match field.is_string() {
            true => format!("{}({}) {collate}", field.name(), field.flen),
            false => format!("{}({})", field.name(), field.flen),
        }
    };
    let differ = || {
        format!(
            "is {} in the backup and {} in the cluster",
            kind(from),
            kind(to)
        )
    };
    let has = |field: &FieldType, flag: u64| field.flag & flag != 0;
    let same_flags = [flag::NOT_NULL, flag::UNSIGNED]
        .iter()
        .all(|flag| has(from, *flag) == has(to, *flag));
    let narrower = |from: i64, to: i64| from >= 0 && to >= 0 && from > to;
    let is_number = family(from) == tp::LONGLONG;
    // What an integer shows in its declared width says nothing of its size.
    let is_narrower = match is_number {
        true => size_of(from.tp) > size_of(to.tp),
        false => narrower(from.flen, to.flen) && !matches!(from.tp, tp::ENUM | tp::SET),
    };
    let is_text = from.is_string() || matches!(from.tp, tp::ENUM | tp::SET);
    if family(from) != family(to)
        || !same_flags
        || is_narrower
        || narrower(from.decimal, to.decimal)
        || is_text && from.charset != to.charset
        || from.is_string() && from.collate != to.collate
    {
        return Err(differ());
    }
    if !matches!(from.tp, tp::ENUM | tp::SET) || to.elems.starts_with(&from.elems) {
        return Ok(Names::Same);
    }
    let places = from.elems.iter().map(|name| {
        let at = to.elems.iter().position(|known| known == name);
        at.map(|at| at as u64 + 1).ok_or_else(differ)
    });
    let places = places.collect::<Result<_, _>>()?;
    Ok(match from.tp {
        tp::ENUM => Names::Enum(places),
        _ => Names::Set(places),
    })
}

fn size_of(number: u8) -> u8 {
    match number {
        tp::TINY => 1,
        tp::SHORT => 2,
        tp::INT24 => 3,
        tp::LONG => 4,
        _ => 8,
    }
}

/// What a new row has in a column that nobody gave; `None`: it has to be given.
fn default_of(column: &ColumnInfo, now_unix_s: u64) -> Option<RowPart> {
    let field = &column.field_type;
    let json = column.default_value.as_ref();
    let value = json.and_then(|json| serde_json::from_str(json.get()).ok());
    match value {
        None | Some(serde_json::Value::Null) => {
            (field.flag & flag::NOT_NULL == 0).then_some(RowPart::Null)
        }
        Some(serde_json::Value::String(text)) => {
            let is_time = matches!(field.tp, tp::TIMESTAMP | tp::DATETIME);
            if is_time && text.to_ascii_uppercase().starts_with("CURRENT_TIMESTAMP") {
                let packed = DateTime::from_unix_s(now_unix_s).to_packed();
                return Some(RowPart::Bytes(super::index_entry::compact_uint(packed)));
            }
            match field.is_binary_string() {
                true => of_text(field, &upper_hex(text.as_bytes())),
                false => of_text(field, &text),
            }
        }
        Some(serde_json::Value::Number(number)) => of_text(field, &number.to_string()),
        Some(_) => None,
    }
}
