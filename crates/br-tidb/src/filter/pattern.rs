//! One side of a rule: the pattern of a database's or a table's name.

use regex::Regex;

/// What names it stands for.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Each.
    Everything,
    /// This one.
    Name(String),
    /// Those that the expression matches.
    Regex(Regex),
}

/// Why a pattern cannot be read.
#[derive(Debug)]
pub(super) struct PatternError {
    /// Where in the text, in bytes.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) problem: String,
}

impl Pattern {
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Everything => true,
            Pattern::Name(only) => only == name,
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        matches!(self, Pattern::Everything)
    }

    /// Reads the pattern that `text` has at `start` and gives where it ends.
    pub(super) fn parse(
        text: &str,
        start: usize,
        ignores_case: bool,
    ) -> Result<(Self, usize), PatternError> {
        let rest = text.get(start..).unwrap_or_default();
        match rest.chars().next() {
            None => Err(PatternError {
                at: start,
                problem: "a pattern is missing".to_owned(),
            }),
            Some('/') => {
                let end = regex_end(rest).ok_or_else(|| PatternError {
                    at: start,
                    problem: "the regular expression has no end".to_owned(),
                })?;
                let inner = rest.get(1..end - 1).unwrap_or_default();
                Ok((regex(inner, start, ignores_case)?, start + end))
            }
            Some(quote @ ('"' | '`')) => {
                let (name, end) = quoted(rest, quote).ok_or_else(|| PatternError {
                    at: start,
                    problem: "the quoted name is empty or has no end".to_owned(),
                })?;
                let name = if ignores_case {
                    name.to_lowercase()
                } else {
                    name
                };
                Ok((Pattern::Name(name), start + end))
            }
            Some(_) => wildcard(text, start, ignores_case),
        }
    }
}

fn regex(pattern: &str, at: usize, ignores_case: bool) -> Result<Pattern, PatternError> {
    let folded = if ignores_case {
        format!("(?i){pattern}")
    } else {
        pattern.to_owned()
    };
    Regex::new(&folded).map(Pattern::Regex).map_err(|error| {
        let last = error.to_string();
        let last = last
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        PatternError {
            at,
            problem: format!("the regular expression is not valid: {last}"),
        }
    })
}

/// Bytes of the `/…/` that `text` begins with; it is not empty, and a backslash hides what follows.
fn regex_end(text: &str) -> Option<usize> {
    let mut is_hidden = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_hidden => is_hidden = false,
            '\\' => is_hidden = true,
            '/' => return (at > 1).then_some(at + 1),
            _ => {}
        }
    }
    None
}

/// The name in quotes that `text` begins with and its bytes; it is not empty.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            name.push(quote);
        } else {
            return (!name.is_empty()).then_some((name, at + 1));
        }
    }
    None
}

/// Reads names and wildcards up to a dot or the end.
fn wildcard(
    text: &str,
    start: usize,
    ignores_case: bool,
) -> Result<(Pattern, usize), PatternError> {
    let fail = |at: usize, problem: &str| PatternError {
        at,
        problem: problem.to_owned(),
    };
    let rest = text.get(start..).unwrap_or_default();
    let mut name = Some(String::new());
    let mut expression = String::new();
    let mut chars = rest.char_indices();
    let mut end = text.len();
    while let Some((offset, c)) = chars.next() {
        let at = start + offset;
        match c {
            '.' => {
                end = at;
                break;
            }
            '*' => {
                name = None;
                expression.push_str(".*");
            }
            '?' => {
                name = None;
                expression.push('.');
            }
            '[' => {
                name = None;
                let inner = chars.as_str();
                let len = class(inner, &mut expression)
                    .ok_or_else(|| fail(at, "the character class is empty or has no end"))?;
                chars = skip(rest, offset + 1 + len);
            }
            '\\' => {
                let (_, hidden) = chars
                    .next()
                    .ok_or_else(|| fail(at, "a backslash cannot be the last character"))?;
                if hidden.is_ascii_alphanumeric() {
                    return Err(fail(at, "a letter or digit cannot follow a backslash"));
                }
                push_literal(&mut name, &mut expression, hidden);
            }
            '$' | '_' => push_literal(&mut name, &mut expression, c),
            _ if c.is_ascii_alphanumeric() || !c.is_ascii() => {
                push_literal(&mut name, &mut expression, c);
            }
            _ => {
                let problem = format!("{c:?} has to be quoted or follow a backslash");
                return Err(PatternError { at, problem });
            }
        }
    }
    let pattern = match name {
        Some(name) if ignores_case => Pattern::Name(name.to_lowercase()),
        Some(name) => Pattern::Name(name),
        None if expression == ".*" => Pattern::Everything,
        None => regex(&format!("(?s)^{expression}$"), start, ignores_case)?,
    };
    Ok((pattern, end))
}

fn skip(text: &str, len: usize) -> std::str::CharIndices<'_> {
    let mut chars = text.char_indices();
    while chars.offset() < len && chars.next().is_some() {}
    chars
}

fn push_literal(name: &mut Option<String>, expression: &mut String, c: char) {
    if let Some(name) = name {
        name.push(c);
    }
    expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// Appends the class that follows a `[` and gives its bytes up to and with the `]`. `!` negates; a
/// backslash hides a character that is no letter or digit.
fn class(text: &str, expression: &mut String) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    expression.push('[');
    if chars.next_if(|(_, c)| *c == '!').is_some() {
        expression.push('^');
    }
    let mut is_empty = true;
    while let Some((at, c)) = chars.next() {
        match c {
            ']' if is_empty => return None,
            ']' => {
                expression.push(']');
                return Some(at + 1);
            }
            '\\' => {
                let (_, hidden) = chars.next().filter(|(_, c)| !c.is_ascii_alphanumeric())?;
                expression.push_str(&regex::escape(hidden.encode_utf8(&mut [0; 4])));
            }
            '-' => expression.push('-'),
            // Everything but ranges is literal here, whatever the regular expressions make of it.
            _ => expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
        is_empty = false;
    }
    None
}
