//! How much happened in many runs, so that it can be told that something did.

use std::{collections::BTreeMap, fmt};

/// What is counted: its name, and what stands in the line of a trace that tells of it.
const KINDS: [(&str, &str); 21] = [
    ("stories in fair weather", ": fair weather"),
    ("stories in windy weather", ": windy weather"),
    ("stories in a storm", ": storm weather"),
    ("stories with sealed storages", "storages are sealed"),
    ("incremental backups", "incremental backup: done in run "),
    ("commands run by two at once", ": by two at once"),
    ("commands that were killed", ": killed in run "),
    ("commands that failed and were run again", ": Retry: "),
    ("commands that found the place taken", ": Conflict: "),
    ("commands that read damaged bytes", ": Data: "),
    ("commands that were done", ": done in run "),
    ("coordinators lost", "the coordinator is lost"),
    ("clusters that died and came back", "the cluster dies"),
    ("PD or a store out of reach", "is cut off"),
    ("disks full for a while", "the disks are full"),
    ("logs truncated", "truncate until "),
    ("logs compacted", "compact from "),
    ("objects removed, and missed", " is gone"),
    ("objects cut, and found", " is cut to "),
    ("objects with a flipped bit, and found", " is flipped in "),
    ("restores equal to the model", "equal: "),
];

/// Words before which a number of something stands.
const NUMBERS: [(&str, &str); 1] = [("transactions committed", " transactions, ")];
/// Words after which one stands.
const COUNTS: [(&str, &str); 5] = [
    ("regions split", "splits: "),
    ("regions merged", "merges: "),
    ("leaders moved", "transfers: "),
    ("stores that failed and came back", "store_failures: "),
    ("keys and values compared", "entries: "),
];

/// The sums of many runs.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// Takes in the trace of a run.
    pub fn add(&mut self, trace: &[String]) {
        for line in trace {
            for (name, _) in KINDS.iter().filter(|(_, words)| line.contains(words)) {
                *self.0.entry(name).or_default() += 1;
            }
            for (name, words) in NUMBERS {
                let before = line.split_once(words).map(|(before, _)| before);
                let number = before.and_then(|before| before.rsplit(' ').next());
                self.count(name, number);
            }
            for (name, words) in COUNTS {
                let after = line.split_once(words).map(|(_, after)| after);
                let is_digit = |c: char| c.is_ascii_digit();
                let number = after.and_then(|after| after.split(|c| !is_digit(c)).next());
                self.count(name, number);
            }
        }
    }

    fn count(&mut self, name: &'static str, number: Option<&str>) {
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            *self.0.entry(name).or_default() += number;
        }
    }

    /// Adds the sums of other runs.
    pub fn join(&mut self, other: Tally) {
        for (name, number) in other.0 {
            *self.0.entry(name).or_default() += number;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = KINDS.iter().chain(&NUMBERS).chain(&COUNTS);
        for (name, _) in kinds {
            let number = self.0.get(name).copied().unwrap_or_default();
            writeln!(f, "| {name} | {number} |")?;
        }
        Ok(())
    }
}
