//! A JSON object whose fields keep their order and their text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::SchemaError;

/// The fields of an object; values are text, untouched until one is set.
pub(crate) struct Object {
    what: &'static str,
    fields: Vec<(String, Box<RawValue>)>,
}

impl Object {
    /// Reads `{…}`.
    pub(crate) fn parse(what: &'static str, text: &str) -> Result<Self, SchemaError> {
        let Fields(fields) =
            serde_json::from_str(text).map_err(|source| SchemaError::Json { what, source })?;
        Ok(Self { what, fields })
    }

    /// The text of a field's value.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(name, _)| name == field)
            .map(|(_, value)| value.get())
    }

    /// The text of a field's value; `None` if it is not there or null.
    pub(crate) fn get_value(&self, field: &str) -> Option<&str> {
        self.get(field).filter(|text| *text != "null")
    }

    /// Replaces the value of a field.
    pub(crate) fn set(&mut self, field: &'static str, text: String) -> Result<(), SchemaError> {
        let what = self.what;
        let value = raw(what, text)?;
        let slot = self
            .fields
            .iter_mut()
            .find(|(name, _)| name == field)
            .ok_or(SchemaError::MissingField { what, field })?;
        slot.1 = value;
        Ok(())
    }

    /// Replaces the value of a field if it is there.
    pub(crate) fn set_if_there(
        &mut self,
        field: &'static str,
        text: String,
    ) -> Result<(), SchemaError> {
        if self.get(field).is_some() {
            self.set(field, text)
        } else {
            Ok(())
        }
    }

    /// Replaces the value of a field, or adds it after another one.
    pub(crate) fn set_after(
        &mut self,
        field: &'static str,
        after: &'static str,
        text: String,
    ) -> Result<(), SchemaError> {
        if self.get(field).is_some() {
            return self.set(field, text);
        }
        let what = self.what;
        let place = self
            .fields
            .iter()
            .position(|(name, _)| name == after)
            .ok_or(SchemaError::MissingField { what, field: after })?;
        self.fields
            .insert(place + 1, (field.to_owned(), raw(what, text)?));
        Ok(())
    }

    /// Removes a field if it is there.
    pub(crate) fn remove(&mut self, field: &str) {
        self.fields.retain(|(name, _)| name != field);
    }

    /// The object as compact JSON.
    pub(crate) fn to_text(&self) -> String {
        let len: usize = self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value.get().len() + 4)
            .sum();
        let mut out = String::with_capacity(len + 2);
        out.push('{');
        for (at, (name, value)) in self.fields.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_string(&mut out, name);
            out.push(':');
            out.push_str(value.get());
        }
        out.push('}');
        out
    }
}

/// Reads `[…]`: the text of each element. Null is an empty list.
pub(crate) fn parse_list(
    what: &'static str,
    text: &str,
) -> Result<Vec<Box<RawValue>>, SchemaError> {
    let list: Option<Vec<Box<RawValue>>> =
        serde_json::from_str(text).map_err(|source| SchemaError::Json { what, source })?;
    Ok(list.unwrap_or_default())
}

/// A list of values as compact JSON.
pub(crate) fn list_text<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let mut out = String::from("[");
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(value.as_ref());
    }
    out.push(']');
    out
}

/// Appends a JSON string, escaped as TiDB escapes it: Go also escapes `<`, `>`, `&` and the two
/// line separators of Unicode.
pub(crate) fn push_string(out: &mut String, text: &str) {
    use fmt::Write as _;

    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a string cannot fail");
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn raw(what: &'static str, text: String) -> Result<Box<RawValue>, SchemaError> {
    RawValue::from_string(text).map_err(|source| SchemaError::Json { what, source })
}

struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
