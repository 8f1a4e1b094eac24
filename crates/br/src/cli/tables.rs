//! Flags that say which tables.

use br_snapshot::restore::CASE_SENSITIVE;
use br_tidb::filter::TableFilter;
use clap::Args;

use crate::{
    edge::{CommandError, Outcome},
    value::Switch,
};

/// `--filter`, for commands on whole clusters.
#[derive(Args)]
pub(super) struct FilterFlags {
    /// Tables to take, such as 'shop.*' or '!shop.log'; the last rule that matches decides.
    #[arg(short, long, value_name = "RULE", allow_hyphen_values = true)]
    filter: Vec<String>,
    /// Names in rules are case-sensitive.
    #[arg(long, default_value = "false")]
    case_sensitive: Switch,
}

impl FilterFlags {
    /// Whether the user gave a filter.
    pub(super) fn is_given(&self) -> bool {
        !self.filter.is_empty()
    }

    /// The rules as they were given; `otherwise` if the user gave none.
    pub(super) fn given_rules(&self, otherwise: &[&str]) -> Vec<String> {
        match self.is_given() {
            true => self.filter.clone(),
            false => otherwise.iter().map(|rule| (*rule).to_owned()).collect(),
        }
    }

    /// All that says which tables the filter takes, as text.
    pub(super) fn rules(&self, otherwise: &[&str]) -> Vec<String> {
        let mut rules = self.given_rules(otherwise);
        if self.case_sensitive.0 {
            rules.push(CASE_SENSITIVE.to_owned());
        }
        rules
    }

    /// The filter; of `otherwise` if the user gave none.
    pub(super) fn filter(&self, otherwise: &[&str]) -> Outcome<TableFilter> {
        let read = &mut |path: &str| std::fs::read_to_string(path).map_err(|e| e.to_string());
        let filter = match self.is_given() {
            true => TableFilter::parse(&self.filter, self.case_sensitive.0, read),
            false => TableFilter::parse(otherwise, self.case_sensitive.0, read),
        };
        Ok(filter?)
    }
}

/// `--db`.
#[derive(Args)]
pub(super) struct DbFlags {
    /// The database.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    db: String,
}

impl DbFlags {
    pub(super) fn db(&self) -> Outcome<String> {
        given("--db", &self.db)
    }
}

/// `--db` and `--table`.
#[derive(Args)]
pub(super) struct TableFlags {
    #[command(flatten)]
    db: DbFlags,
    /// The table.
    #[arg(
        short,
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    table: String,
}

impl TableFlags {
    pub(super) fn db(&self) -> Outcome<String> {
        self.db.db()
    }

    pub(super) fn table(&self) -> Outcome<String> {
        given("--table", &self.table)
    }
}

fn given(flag: &str, value: &str) -> Outcome<String> {
    match value {
        "" => Err(CommandError::invalid(
            format!("{flag} is missing"),
            format!("pass {flag} NAME"),
        )),
        value => Ok(value.to_owned()),
    }
}
