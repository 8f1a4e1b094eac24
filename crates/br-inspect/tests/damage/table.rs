//! The matrix as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::place::Damage;

/// How often damage of a kind to objects of a kind was named, and how often it changed nothing.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<(String, Damage), (u64, u64)>);

impl Table {
    pub(crate) fn named(&mut self, kind: &str, damage: Damage) {
        self.0.entry((kind.to_owned(), damage)).or_default().0 += 1;
    }

    pub(crate) fn without_effect(&mut self, kind: &str, damage: Damage) {
        self.0.entry((kind.to_owned(), damage)).or_default().1 += 1;
    }

    /// Appends it to the file that `DAMAGE_TABLE` names.
    pub(crate) fn show(&self, title: &str) {
        let Ok(path) = std::env::var("DAMAGE_TABLE") else {
            return;
        };
        let mut text = String::new();
        for ((kind, damage), (named, silent)) in &self.0 {
            let damage = damage.name();
            writeln!(text, "| {title} | {kind} | {damage} | {named} | {silent} |").unwrap();
        }
        let mut known = std::fs::read_to_string(&path).unwrap_or_default();
        known.push_str(&text);
        std::fs::write(path, known).unwrap();
    }
}
