use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use br_codec::{DecodeError, number::read_u8};

use super::{
    Datum, RowError,
    text::{read_compact, text, upper_hex},
    value::{RowValue, Stored},
};
use crate::{
    schema::{ColumnInfo, SchemaState, TableInfo, flag, tp},
    table_key::int_handle,
};

/// Decodes the rows of one table.
///
/// Shown are the columns that users see and that are stored: public ones, not hidden, not
/// generated on reading; in the table's order. A column is taken from the row's value if it is
/// there, for the key may have only part of it (prefix indexes) or only its sort key (collations);
/// else from the key; else it is the origin default, the value of rows from before the column was
/// added.
pub struct RowDecoder {
    columns: Vec<Column>,
    handle: Handle,
}

struct Column {
    info: ColumnInfo,
    /// Where in the handle it is.
    in_handle: Option<usize>,
    default: Option<String>,
}

/// The columns that the keys of a table's rows are made of.
pub(super) struct HandleColumns {
    form: Handle,
    /// Their ids, in their order.
    columns: Vec<i64>,
}

impl HandleColumns {
    /// # Errors
    /// The table has no primary key although its handle is one.
    pub(super) fn of(table: &TableInfo) -> Result<HandleColumns, RowError> {
        let no_key = || RowError::NoPrimaryKey {
            table: table.name.original.clone(),
        };
        let mut columns = Vec::new();
        let form = if table.pk_is_handle {
            let is_key = |column: &&ColumnInfo| column.field_type.flag & flag::PRIMARY_KEY != 0;
            columns.push(table.columns.iter().find(is_key).ok_or_else(no_key)?.id);
            Handle::Integer
        } else if table.is_common_handle {
            let key = table
                .indexes
                .iter()
                .find(|index| index.is_primary)
                .ok_or_else(no_key)?;
            for part in &key.columns {
                let column = table.columns.get(part.offset).ok_or_else(no_key)?;
                columns.push(column.id);
            }
            Handle::Columns(key.columns.len())
        } else {
            Handle::RowId
        };
        Ok(HandleColumns { form, columns })
    }

    pub(super) fn columns(&self) -> &[i64] {
        &self.columns
    }

    pub(super) fn into_parts(self) -> (Handle, Vec<i64>) {
        (self.form, self.columns)
    }
}

/// What the key of a row has after its prefix.
#[derive(Clone, Debug)]
pub(super) enum Handle {
    /// An integer that is no column.
    RowId,
    /// An integer that is a column.
    Integer,
    /// The columns of a clustered primary key.
    Columns(usize),
}

impl RowDecoder {
    /// Prepares to decode rows of a table.
    ///
    /// # Errors
    /// The table has no primary key although its handle is one, or an origin default cannot be
    /// read.
    pub fn new(table: &TableInfo) -> Result<Self, RowError> {
        let (handle, handle_columns) = HandleColumns::of(table)?.into_parts();
        let is_shown = |column: &&ColumnInfo| {
            column.state == SchemaState::PUBLIC && !column.hidden && !column.is_virtual()
        };
        let columns = table.columns.iter().filter(is_shown).map(|info| {
            let in_handle = handle_columns.iter().position(|id| *id == info.id);
            Ok(Column {
                info: info.clone(),
                in_handle,
                default: origin_default(info)?,
            })
        });
        Ok(Self {
            columns: columns.collect::<Result<_, RowError>>()?,
            handle,
        })
    }

    /// The columns that are shown.
    pub fn columns(&self) -> impl Iterator<Item = &ColumnInfo> {
        self.columns.iter().map(|column| &column.info)
    }

    /// Decodes a row: `handle` is its key without the record prefix. Replaces what is in `row` by
    /// the values of the columns that are shown; `None` is NULL.
    ///
    /// # Errors
    /// The row is damaged; `row` may then have some of its values.
    pub fn decode(
        &self,
        handle: &[u8],
        value: &[u8],
        row: &mut Vec<Option<String>>,
    ) -> Result<(), RowError> {
        row.clear();
        let key = self.handle.read(handle)?;
        let value = RowValue::parse(value)?;
        for column in &self.columns {
            row.push(column.text(&key, &value)?);
        }
        Ok(())
    }
}

impl Handle {
    pub(super) fn read<'a>(&self, handle: &'a [u8]) -> Result<Vec<Datum<'a>>, DecodeError> {
        match self {
            Handle::RowId => int_handle(handle).map(|_| Vec::new()),
            Handle::Integer => Ok(vec![Datum::Int(int_handle(handle)?)]),
            Handle::Columns(count) => {
                let mut input = handle;
                let columns = (0..*count).map(|_| Datum::read(&mut input));
                let columns = columns.collect::<Result<_, _>>()?;
                if input.is_empty() {
                    Ok(columns)
                } else {
                    Err(DecodeError::new(
                        "row key",
                        "it has more columns than the primary key",
                    ))
                }
            }
        }
    }
}

impl Column {
    fn text(&self, key: &[Datum<'_>], value: &RowValue<'_>) -> Result<Option<String>, RowError> {
        let damaged = |source| RowError::Column {
            column: self.info.name.original.clone(),
            source,
        };
        match value.column(self.info.id).map_err(damaged)? {
            Stored::Bytes(bytes) => {
                let datum = read_compact(&self.info.field_type, bytes).map_err(damaged)?;
                text(&self.info, &datum)
            }
            Stored::Datum(datum) => text(&self.info, &datum),
            stored => match self.in_handle.and_then(|at| key.get(at)) {
                Some(datum) => text(&self.info, datum),
                None if stored == Stored::Null => Ok(None),
                None => Ok(self.default.clone()),
            },
        }
    }
}

/// The value of rows from before the column was added, as text.
pub(super) fn origin_default(column: &ColumnInfo) -> Result<Option<String>, RowError> {
    let unreadable = || RowError::OriginDefault {
        column: column.name.original.clone(),
    };
    let field = &column.field_type;
    if field.tp == tp::BIT {
        let Some(bits) = &column.origin_default_bit else {
            return Ok(None);
        };
        let bytes = BASE64.decode(bits).map_err(|_| unreadable())?;
        let mut input = &bytes[..];
        let mut value = 0_u64;
        while let Ok(byte) = read_u8(&mut input) {
            value = value << 8 | u64::from(byte);
        }
        return Ok(Some(format!("{value:X}")));
    }
    let Some(json) = &column.origin_default else {
        return Ok(None);
    };
    let value: serde_json::Value = serde_json::from_str(json.get()).map_err(|_| unreadable())?;
    let plain = match value {
        serde_json::Value::Null => return Ok(None),
        serde_json::Value::String(plain) => plain,
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(value) => u8::from(value).to_string(),
        _ => return Err(unreadable()),
    };
    // The bytes of a binary default stand in the JSON as the text that Go makes of them.
    let is_bytes = field.is_binary_string();
    Ok(Some(if is_bytes {
        upper_hex(plain.as_bytes())
    } else {
        plain
    }))
}
