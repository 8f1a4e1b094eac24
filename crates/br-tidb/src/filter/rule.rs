//! Rules and the lines that they are written in.

use br_types::{Classify, Kind};

use super::pattern::Pattern;

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: filter rule {rule:?}: {problem}{}", at_character(*.at))]
pub struct FilterError {
    /// Where the rule was given: "--filter 2", or "line 3 of PATH".
    pub place: String,
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub problem: String,
    /// The character within the rule, counted from 1; `None`: the rule as a whole.
    pub at: Option<usize>,
}

fn at_character(at: Option<usize>) -> String {
    at.map(|at| format!(" (character {at})"))
        .unwrap_or_default()
}

impl Classify for FilterError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn next_step(&self) -> Option<String> {
        Some(
            "Write rules as db.table, with * and ? as wildcards and ! before what is left out."
                .into(),
        )
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) db: Pattern,
    pub(super) table: Pattern,
    /// Whether what it matches is taken; else it is left out.
    pub(super) is_positive: bool,
}

impl Rule {
    pub(super) fn everything() -> Self {
        Self {
            db: Pattern::Everything,
            table: Pattern::Everything,
            is_positive: true,
        }
    }
}

/// Collects rules.
pub(super) struct Parser {
    rules: Vec<Rule>,
    arguments: usize,
    ignores_case: bool,
}

impl Parser {
    pub(super) fn new(ignores_case: bool) -> Self {
        Self {
            rules: Vec::new(),
            arguments: 0,
            ignores_case,
        }
    }

    pub(super) fn into_rules(self) -> Vec<Rule> {
        self.rules
    }

    /// Takes one `--filter`.
    pub(super) fn argument(
        &mut self,
        text: &str,
        import: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<(), FilterError> {
        self.arguments += 1;
        let place = format!("--filter {}", self.arguments);
        let Some(path) = trim(text).strip_prefix('@') else {
            return self.line(text, &place);
        };
        let file = import(path).map_err(|problem| FilterError {
            place,
            rule: text.to_owned(),
            problem: format!("the file cannot be read: {problem}"),
            at: None,
        })?;
        for (at, line) in file.lines().enumerate() {
            self.line(line, &format!("line {} of {path}", at + 1))?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str, place: &str) -> Result<(), FilterError> {
        let rule = trim(text);
        let fail = |at: Option<usize>, problem: &str| FilterError {
            place: place.to_owned(),
            rule: rule.to_owned(),
            problem: problem.to_owned(),
            at: at.map(|at| rule.get(..at).unwrap_or(rule).chars().count() + 1),
        };
        if rule.is_empty() || rule.starts_with('#') {
            return Ok(());
        }
        if rule.starts_with('@') {
            return Err(fail(None, "a file of rules cannot name another one"));
        }
        let is_positive = !rule.starts_with('!');
        let start = usize::from(!is_positive);
        let pattern = |start: usize| {
            Pattern::parse(rule, start, self.ignores_case)
                .map_err(|error| fail(Some(error.at), &error.problem))
        };
        let (db, end) = pattern(start)?;
        if rule.as_bytes().get(end) != Some(&b'.') {
            return Err(fail(
                Some(end),
                "a dot between database and table is missing",
            ));
        }
        let (table, end) = pattern(end + 1)?;
        if end != rule.len() {
            return Err(fail(
                Some(end),
                "something follows the pattern of the table",
            ));
        }
        self.rules.push(Rule {
            db,
            table,
            is_positive,
        });
        Ok(())
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r'])
}
