//! One column of an index.

use std::borrow::Cow;

use br_codec::{
    DecodeError,
    bytes::encode_into,
    number::{write_f64, write_i64, write_u64},
};

use super::super::{
    Datum, RowError,
    from_text::origin_value,
    general_ci,
    text::read_compact,
    value::{RowValue, Stored},
};
use super::restored::{RowPart, compact_int, compact_uint};
use crate::schema::{ColumnInfo, FieldType, tp};

const NULL_FLAG: u8 = 0;
const BYTES_FLAG: u8 = 1;
const INT_FLAG: u8 = 3;
const UINT_FLAG: u8 = 4;
const FLOAT_FLAG: u8 = 5;
const DECIMAL_FLAG: u8 = 6;
const DURATION_FLAG: u8 = 7;

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) column: ColumnInfo,
    /// Where in a clustered key it is; of an integer handle 0.
    pub(super) in_handle: Option<usize>,
    /// How many characters, or bytes, of it are in the index.
    pub(super) prefix: Option<usize>,
    pub(super) sort: Sort,
    /// Whether the value has to have it.
    pub(super) restores: bool,
    /// Its value in rows that were there before the column was.
    default: RowPart,
}

/// How strings sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// By their bytes.
    Binary,
    /// By their bytes, without spaces at the end.
    PadSpace,
    /// By letters without case and accents, without spaces at the end.
    GeneralCi,
}

/// A value of an index column: its bytes in a key, and what it is in a row.
pub(super) struct Encoded {
    pub(super) in_key: Vec<u8>,
    pub(super) in_row: RowPart,
}

#[derive(Clone, Debug)]
pub(super) struct RestoredHandle {
    pub(super) column: ColumnInfo,
    /// Whether only spaces at the end are lost.
    pub(super) is_pad_space: bool,
}

impl Part {
    pub(super) fn new(
        column: &ColumnInfo,
        in_handle: Option<usize>,
        prefix: Option<usize>,
        new_collations: bool,
    ) -> Result<Part, String> {
        let name = &column.name.original;
        let field = &column.field_type;
        if column.is_virtual() || column.hidden {
            return Err(format!("column {name:?} is computed when it is read"));
        }
        if matches!(field.tp, tp::JSON | tp::VECTOR) {
            return Err(format!("column {name:?} is of type {}", field.name()));
        }
        let text = Text::of(field, new_collations);
        if text.is_text
            && !matches!(
                field.charset.as_str(),
                "utf8mb4" | "utf8" | "ascii" | "latin1"
            )
        {
            return Err(format!(
                "column {name:?} has character set {}",
                field.charset
            ));
        }
        let sort = match (text.is_collated, text.is_bin) {
            (false, _) => Sort::Binary,
            (true, true) => Sort::PadSpace,
            (true, false) if is_general_ci(field) => Sort::GeneralCi,
            (true, false) => {
                return Err(format!("column {name:?} has collation {}", field.collate));
            }
        };
        Ok(Part {
            column: column.clone(),
            in_handle,
            prefix,
            sort,
            restores: text.is_restored(),
            default: origin_value(column).ok_or_else(|| {
                format!("the default that column {name:?} was added with cannot be read")
            })?,
        })
    }

    pub(super) fn encode(
        &self,
        row: &RowValue<'_>,
        handle: &[Datum<'_>],
    ) -> Result<Encoded, RowError> {
        let stored = row.column(self.column.id);
        match stored.map_err(|source| self.damaged(source))? {
            Stored::Bytes(stored) => self.encode_stored(stored),
            Stored::Datum(datum) => self.encode_datum(&datum, &[]),
            Stored::Absent => match self.in_handle.and_then(|at| handle.get(at)) {
                Some(datum) => self.encode_datum(&self.of_handle(datum), &[]),
                None => match &self.default {
                    RowPart::Bytes(stored) => self.encode_stored(stored),
                    RowPart::Null => Ok(Encoded::null()),
                },
            },
            Stored::Null => Ok(Encoded::null()),
        }
    }

    fn encode_stored(&self, stored: &[u8]) -> Result<Encoded, RowError> {
        let field = &self.column.field_type;
        if field.tp == tp::NEW_DECIMAL {
            return Ok(Encoded {
                in_key: [&[DECIMAL_FLAG], stored].concat(),
                in_row: RowPart::Bytes(stored.to_vec()),
            });
        }
        let datum = read_compact(field, stored).map_err(|source| self.damaged(source))?;
        self.encode_datum(&datum, stored)
    }

    fn damaged(&self, source: DecodeError) -> RowError {
        RowError::Column {
            column: self.column.name.original.clone(),
            source,
        }
    }

    /// An integer handle is signed in its key, whatever the column is.
    pub(super) fn of_handle<'d>(&self, datum: &Datum<'d>) -> Datum<'d> {
        match datum {
            Datum::Int(value) if self.column.field_type.is_unsigned() => {
                Datum::Uint(value.cast_unsigned())
            }
            datum => datum.clone(),
        }
    }

    pub(super) fn encode_datum(
        &self,
        datum: &Datum<'_>,
        stored: &[u8],
    ) -> Result<Encoded, RowError> {
        let mut in_key = Vec::new();
        let mut in_row = stored.to_vec();
        match datum {
            Datum::Null => return Ok(Encoded::null()),
            Datum::Int(value) => {
                in_key.push(INT_FLAG);
                write_i64(&mut in_key, *value);
                in_row = compact_int(*value);
            }
            Datum::Uint(value) => {
                in_key.push(UINT_FLAG);
                write_u64(&mut in_key, *value);
                in_row = compact_uint(*value);
            }
            Datum::Float(value) => {
                in_key.push(FLOAT_FLAG);
                write_f64(&mut in_key, *value);
            }
            Datum::DurationNs(value) => {
                in_key.push(DURATION_FLAG);
                write_i64(&mut in_key, *value);
                in_row = compact_int(*value);
            }
            Datum::Bytes(bytes) => {
                let cut = self.cut(bytes);
                in_key.push(BYTES_FLAG);
                encode_into(&mut in_key, &self.sort_key(cut));
                in_row = cut.to_vec();
            }
            Datum::Decimal(_) | Datum::Json(_) | Datum::Vector(_) => {
                let what = "its value is of an old form";
                return Err(self.damaged(DecodeError::new("index entry", what)));
            }
        }
        Ok(Encoded {
            in_key,
            in_row: RowPart::Bytes(in_row),
        })
    }

    /// The part of a string that is in the index.
    pub(super) fn cut<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(count) = self.prefix else {
            return bytes;
        };
        if is_counted_in_bytes(&self.column.field_type) {
            return bytes.get(..count).unwrap_or(bytes);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return bytes.get(..count).unwrap_or(bytes);
        };
        let end = text.char_indices().nth(count).map(|(at, _)| at);
        end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
    }

    pub(super) fn sort_key<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match self.sort {
            Sort::Binary => bytes.into(),
            Sort::PadSpace => without_spaces(bytes).into(),
            Sort::GeneralCi => general_ci::sort_key(without_spaces(bytes)).into(),
        }
    }
}

/// What a value beside a clustered key has of a column: how many spaces the key left out.
pub(super) fn spaces(in_row: &RowPart) -> RowPart {
    match in_row {
        RowPart::Null => RowPart::Null,
        RowPart::Bytes(bytes) => {
            let left_out = bytes.len() - without_spaces(bytes).len();
            RowPart::Bytes(compact_uint(left_out as u64))
        }
    }
}

impl RestoredHandle {
    /// What values have of it; the row has such a column itself.
    pub(super) fn of_row(&self, row: &RowValue<'_>) -> Result<RowPart, RowError> {
        let failed = |source| RowError::Column {
            column: self.column.name.original.clone(),
            source,
        };
        let whole = match row.column(self.column.id).map_err(failed)? {
            Stored::Bytes(bytes) => RowPart::Bytes(bytes.to_vec()),
            Stored::Datum(Datum::Bytes(bytes)) => RowPart::Bytes(bytes.into_owned()),
            _ => {
                let what = "a row lacks a column of its key";
                return Err(failed(DecodeError::new("index entry", what)));
            }
        };
        Ok(match self.is_pad_space {
            true => spaces(&whole),
            false => whole,
        })
    }
}

/// What a column's type means for sort keys.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Text {
    pub(super) is_text: bool,
    /// Whether its sort key is not its bytes.
    pub(super) is_collated: bool,
    /// Whether the sort key is its bytes without spaces at the end.
    pub(super) is_bin: bool,
    /// Whether it may end with spaces at all; a CHAR does not.
    pub(super) is_varying: bool,
}

impl Text {
    pub(in super::super) fn of(field: &FieldType, new_collations: bool) -> Text {
        let is_text = field.is_string() && !field.is_binary_string();
        let collate = field.collate.as_str();
        Text {
            is_text,
            is_collated: is_text && new_collations && collate != "utf8mb4_0900_bin",
            is_bin: matches!(
                collate,
                "utf8mb4_bin" | "utf8_bin" | "ascii_bin" | "latin1_bin"
            ),
            is_varying: matches!(field.tp, tp::VARCHAR | tp::VAR_STRING),
        }
    }

    /// Whether the sort key does not give the value back.
    pub(in super::super) fn is_restored(self) -> bool {
        self.is_collated && (self.is_varying || !self.is_bin)
    }
}

impl Encoded {
    pub(super) fn null() -> Encoded {
        Encoded {
            in_key: vec![NULL_FLAG],
            in_row: RowPart::Null,
        }
    }
}

fn is_general_ci(field: &FieldType) -> bool {
    matches!(
        field.collate.as_str(),
        "utf8mb4_general_ci" | "utf8_general_ci"
    )
}

fn is_counted_in_bytes(field: &FieldType) -> bool {
    matches!(field.charset.as_str(), "binary" | "ascii" | "latin1")
}

fn without_spaces(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ');
    bytes.get(..end.map_or(0, |at| at + 1)).unwrap_or(bytes)
}
