//! Seals: each flush names the one before it of its store, and the copy of the checkpoint names the
//! last one. So a flush that was lost with its index is missed, and told from a time without writes.

use std::collections::{BTreeMap, BTreeSet};

use br_format::log::migration::Migration;
use br_format::log::names::{self, MetaName};
use br_format::log::seal::{FlushMark, Seal};
use br_types::{StoreId, TimeStamp};

use super::super::report::{Cost, Window};
use super::Examined;

/// A flush that an object names.
struct Named {
    store: StoreId,
    mark: FlushMark,
    by: String,
}

/// What the seals of a log say.
#[derive(Default)]
pub(super) struct Chain {
    named: Vec<Named>,
    /// The last flush of each store, and whether it has a seal.
    last: BTreeMap<StoreId, (TimeStamp, bool)>,
}

impl Chain {
    /// Takes in what metadata of that name says.
    pub(super) fn add(&mut self, name: &str, seal: Option<Seal>) {
        let parsed = MetaName::parse(name);
        let of_flush = parsed.and_then(|name| Some((name.store()?, name.flush_ts()?)));
        let Some((store, flush_ts)) = of_flush else {
            return;
        };
        let last = self.last.entry(store).or_default();
        *last = (*last).max((flush_ts, seal.is_some()));
        if let Some(Seal { previous }) = seal {
            self.name(store, previous, name);
        }
    }

    fn name(&mut self, store: StoreId, mark: FlushMark, by: &str) {
        if !mark.flush_ts.is_zero() {
            self.named.push(Named {
                store,
                mark,
                by: by.to_owned(),
            });
        }
    }
}

impl Examined<'_> {
    /// Flushes that are named and are not there, though nobody has removed them.
    pub(super) fn judge_chain(&mut self, metas: &[String], migrations: &Migration) {
        let Some(bounds) = self.looked.bounds.clone() else {
            return;
        };
        let mut chain = std::mem::take(&mut self.chain);
        for copy in &bounds.checkpoints {
            let Some(store) = names::store_of_global_checkpoint(&copy.name) else {
                continue;
            };
            match copy.last_flush {
                Some(mark) => chain.name(store, mark, &copy.name),
                None if chain.last.get(&store).is_some_and(|(_, sealed)| *sealed) => {
                    let problem = "its checksum is cut off";
                    let window = Window {
                        from_ts: bounds.min_ts,
                        to_ts: copy.ts,
                    };
                    self.found(&copy.name, None, problem, (Cost::All, Some(window)));
                }
                None => {}
            }
        }
        let parsed = metas.iter().filter_map(|name| MetaName::parse(name));
        let there: BTreeSet<_> = parsed
            .filter_map(|name| Some((name.store()?, name.flush_ts()?)))
            .collect();
        let is_removed = |mark: FlushMark| {
            let is_compacted = |from: TimeStamp, to: TimeStamp| (from..=to).contains(&mark.max_ts);
            let mut compactions = migrations.compactions.iter();
            mark.max_ts < bounds.truncated_to
                || compactions.any(|it| is_compacted(it.from_ts, it.until_ts))
        };
        let mut told = BTreeSet::new();
        for Named { store, mark, by } in chain.named {
            if there.contains(&(store, mark.flush_ts))
                || is_removed(mark)
                || !told.insert((store, mark.flush_ts))
            {
                continue;
            }
            let before = there.range(..(store, mark.flush_ts)).next_back();
            let before = before.filter(|(other, _)| *other == store);
            let window = Window {
                from_ts: before.map_or(bounds.min_ts, |(_, flush_ts)| flush_ts.next()),
                to_ts: mark.max_ts.max(mark.flush_ts),
            };
            let object = names::meta_prefix(store, mark.flush_ts);
            let problem = format!(
                "no index is there that begins so: the flush of store {store} at {}",
                mark.flush_ts
            );
            self.found(&object, Some(&by), &problem, (Cost::All, Some(window)));
        }
    }
}
