//! Table filters: which databases and tables a command is about.
//!
//! ```text
//! db.table        one table; letters, digits, $, _ and anything beyond ASCII stand for themselves
//! db.*  d?.t[a-z] wildcards: *, ?, [abc], [a-z], [!abc]
//! \               before a character that is no letter or digit: the character itself
//! "a.b".`c``d`    quoted names, the quote doubled within
//! /regex/./regex/ regular expressions, not anchored
//! !db.table       leaves out
//! @path           rules from a file, one a line; not within such a file
//! # …             comment
//! ```
//! Of the rules that match a table the last one decides; a table that none matches is left out.

mod pattern;
mod rule;

pub use rule::FilterError;

use rule::{Parser, Rule};

/// A list of rules.
#[derive(Clone, Debug)]
pub struct TableFilter {
    /// The last rule first.
    rules: Vec<Rule>,
    ignores_case: bool,
}

impl TableFilter {
    /// Every table.
    pub fn all() -> Self {
        Self {
            rules: vec![Rule::everything()],
            ignores_case: false,
        }
    }

    /// Reads rules, as given with `--filter`. `import` gives the text of the file that an `@`
    /// rule names.
    ///
    /// # Errors
    /// The rule that cannot be read, with its place; or what `import` says.
    pub fn parse<S: AsRef<str>>(
        rules: &[S],
        is_case_sensitive: bool,
        import: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, FilterError> {
        let mut parser = Parser::new(!is_case_sensitive);
        for rule in rules {
            parser.argument(rule.as_ref(), import)?;
        }
        let mut rules = parser.into_rules();
        rules.reverse();
        Ok(Self {
            rules,
            ignores_case: !is_case_sensitive,
        })
    }

    /// Whether a table is to be processed.
    pub fn matches_table(&self, db: &str, table: &str) -> bool {
        let (db, table) = (self.folded(db), self.folded(table));
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.db.matches(&db) && rule.table.matches(&table));
        rule.is_some_and(|rule| rule.is_positive)
    }

    /// Whether some table of a database may be: it has to be looked at, and it is kept even if it
    /// has no tables.
    pub fn matches_db(&self, db: &str) -> bool {
        let db = self.folded(db);
        let decides =
            |rule: &&Rule| rule.db.matches(&db) && (rule.is_positive || rule.table.is_everything());
        self.rules
            .iter()
            .find(decides)
            .is_some_and(|rule| rule.is_positive)
    }

    fn folded<'a>(&self, name: &'a str) -> std::borrow::Cow<'a, str> {
        if self.ignores_case {
            name.to_lowercase().into()
        } else {
            name.into()
        }
    }
}

#[cfg(test)]
mod tests;
