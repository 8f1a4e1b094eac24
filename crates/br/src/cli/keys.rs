//! Flags that say which keys.

use br_types::{Cf, KeyRange, RawKey};
use clap::{Args, ValueEnum};

use crate::edge::{CommandError, Outcome};

/// How `--start` and `--end` are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyFormat {
    /// Hexadecimal.
    Hex,
    /// The bytes of the text.
    Raw,
    /// Text with escapes such as \x00, \n, \123.
    Escaped,
}

/// A range of keys.
#[derive(Args)]
pub(super) struct KeyFlags {
    /// How keys are written.
    #[arg(long, value_enum, default_value = "hex", value_name = "FORMAT")]
    format: KeyFormat,
    /// The first key; without it, from the first of all.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "KEY",
        allow_hyphen_values = true
    )]
    start: String,
    /// The first key beyond the range; without it, no bound.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "KEY",
        allow_hyphen_values = true
    )]
    end: String,
}

/// A range of keys in one column family.
#[derive(Args)]
pub(super) struct RawFlags {
    #[command(flatten)]
    keys: KeyFlags,
    /// The column family.
    #[arg(long, default_value = "default", value_name = "NAME")]
    cf: String,
}

impl KeyFlags {
    pub(super) fn range(&self) -> Outcome<KeyRange<RawKey>> {
        let start = self.key("--start", &self.start)?;
        let range = KeyRange {
            start,
            end: self.key("--end", &self.end)?,
        };
        if range.is_empty() {
            return Err(CommandError::invalid(
                "the end of the range is not after its start",
                "swap --start and --end, or leave one out",
            ));
        }
        Ok(range)
    }

    fn key(&self, flag: &str, text: &str) -> Outcome<RawKey> {
        let bytes = match self.format {
            KeyFormat::Hex => unhex(text),
            KeyFormat::Raw => Some(text.as_bytes().to_vec()),
            KeyFormat::Escaped => unescape(text),
        };
        let bytes = bytes.ok_or_else(|| {
            CommandError::invalid(
                format!("{flag} is not a key in the given --format"),
                "pass hexadecimal, or --format raw or escaped",
            )
        })?;
        Ok(RawKey::new(bytes))
    }
}

impl RawFlags {
    pub(super) fn range(&self) -> Outcome<KeyRange<RawKey>> {
        self.keys.range()
    }

    pub(super) fn cf(&self) -> Outcome<Cf> {
        Cf::from_name(&self.cf).ok_or_else(|| {
            CommandError::invalid(
                format!("there is no column family {:?}", self.cf),
                "pass default, which is where raw keys are",
            )
        })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

/// The escapes of Go's text literals: `\n`, `\t`, `\"`, `\\`, `\x7f`, `\177`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            byte @ (b'\\' | b'"' | b'\'') => byte,
            b'x' => number(&mut rest, 16, None)?,
            byte @ b'0'..=b'7' => number(&mut rest, 8, Some(byte))?,
            _ => return None,
        });
    }
    Some(bytes)
}

/// A byte of two hexadecimal or three octal digits.
fn number(rest: &mut impl Iterator<Item = u8>, radix: u32, first: Option<u8>) -> Option<u8> {
    let mut value = match first {
        Some(digit) => char::from(digit).to_digit(radix)?,
        None => 0,
    };
    for _ in 0..2 {
        value = value * radix + char::from(rest.next()?).to_digit(radix)?;
    }
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_three_spellings() {
        assert_eq!(unhex("7a00FF"), Some(vec![0x7a, 0, 0xff]));
        assert_eq!(unhex(""), Some(vec![]));
        assert_eq!((unhex("7"), unhex("zz"), unhex("+1")), (None, None, None));
        assert_eq!(unescape(r"a\x00\n\377\\"), Some(b"a\0\n\xff\\".to_vec()));
        assert_eq!(
            (unescape(r"\"), unescape(r"\x1"), unescape(r"\400")),
            (None, None, None)
        );
    }

    #[test]
    fn empty_ranges_are_refused() {
        let flags = |start: &str, end: &str| KeyFlags {
            format: KeyFormat::Hex,
            start: start.into(),
            end: end.into(),
        };
        assert!(flags("61", "").range().is_ok());
        assert!(flags("61", "61").range().is_err());
        assert!(flags("6", "").range().is_err());
    }
}
