//! A log: its marks and indices, held against what is there and against each other.

mod chain;
mod compactions;
mod flushes;
mod marks;

use br_format::log::file::FileIdentity;
use br_format::log::metadata::LogGroup;
use br_format::log::names::{self, MetaName};
use br_log::read::{Chain, LogBounds, LogStorage, Removed};
use br_rt::{Phase, Unit};
use br_storage::Storage;
use br_types::TimeStamp;
use futures::TryStreamExt;

use super::backup::about;
use super::error::{Trouble, VerifyError};
use super::listing::Listing;
use super::long_values::{LongValues, VALUES_MAX};
use super::report::{Contents, Cost, Found, LogLooked, Part, Report, Window};
use super::{Depth, Look};

pub(super) use marks::is_log;

/// Stores flush every few minutes at least. Nothing of any store for so long means that the task
/// was paused, or that metadata was lost.
const QUIET_MS_MIN: u64 = 30 * 60 * 1000;

/// A log under examination.
struct Examined<'a> {
    look: &'a Look<'a>,
    log: LogStorage,
    listing: Listing,
    looked: LogLooked,
    report: &'a mut Report,
    values: LongValues,
    phase: Phase,
    chain: Chain,
}

pub(super) async fn look(
    look: &Look<'_>,
    storage: &Storage,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let phase = Phase::start(look.progress, "Verify Log", Unit::Files, 0);
    if !is_log(storage).await? {
        // It says what there is instead.
        let bounds = LogStorage::new(storage.clone()).bounds().await;
        if let Err(Trouble::End(error)) = bounds.map_err(Trouble::from) {
            return Err(error);
        }
    }
    let listing = Listing::read(storage).await?;
    let mut examined = Examined {
        look,
        log: LogStorage::new(storage.clone()),
        listing,
        looked: LogLooked {
            bounds: None,
            metas: 0,
            objects: 0,
            object_bytes: 0,
            records: 0,
            record_bytes: 0,
            contents: Contents::default(),
        },
        report,
        values: LongValues::default(),
        phase,
        chain: Chain::default(),
    };
    let outcome = Box::pin(examined.all()).await;
    let looked = examined.looked;
    report.log = Some(looked);
    outcome
}

impl Examined<'_> {
    async fn all(&mut self) -> Result<(), VerifyError> {
        let Some(migrations) = self.marks().await? else {
            let text = "which objects count depends on what is damaged: nothing else of the log \
                        was looked at";
            self.report.note(Part::Log, text, Vec::new());
            return Ok(());
        };
        let removed = Removed::new(&migrations);
        let names = self.meta_names().await?;
        for name in names.iter().filter_map(|name| MetaName::parse(name)) {
            self.chain.note(&name);
        }
        self.flushes(&names, &removed).await?;
        for compaction in &migrations.compactions {
            self.compaction(compaction).await?;
        }
        self.ingested(&migrations.ingested_paths).await?;
        self.judge_flush_times(&names);
        self.judge_chain(&migrations).await?;
        self.judge_values();
        self.remains().await
    }

    async fn meta_names(&self) -> Result<Vec<String>, VerifyError> {
        let listed = self.log.storage().list(&format!("{}/", names::META_FOLDER));
        let listed = listed.map_ok(|entry| entry.name);
        let mut found: Vec<_> = listed.try_collect().await?;
        found.retain(|name| names::is_meta(name));
        found.sort_unstable();
        Ok(found)
    }

    fn found(
        &mut self,
        object: &str,
        named_by: Option<&str>,
        problem: &str,
        (cost, window): (Cost, Option<Window>),
    ) {
        self.report.found.push(Found {
            part: Part::Log,
            object: object.to_owned(),
            named_by: named_by.map(str::to_owned),
            problem: about(problem, object),
            cost,
            window,
        });
    }

    fn reads_contents(&self) -> bool {
        self.look.options.depth >= Depth::Checksums
    }

    /// Records whose values are nowhere: the objects that held them are gone with their index.
    fn judge_values(&mut self) {
        let options = self.look.options;
        if !self.reads_contents() {
            return;
        }
        let values = std::mem::take(&mut self.values);
        let Some(bounds) = self.looked.bounds.clone() else {
            return;
        };
        if !options.sample.is_all() {
            let text = "whether the values that records need are in the log was not looked at: \
                        that takes all objects";
            return self.report.note(Part::Log, text, Vec::new());
        }
        if values.is_given_up() {
            let text = format!(
                "whether the values that records need are in the log was not looked at: there are \
                 more than {VALUES_MAX}"
            );
            return self.report.note(Part::Log, text, Vec::new());
        }
        // Objects that are known to be damaged have lost values too.
        if self
            .report
            .found
            .iter()
            .any(|found| found.part == Part::Log)
        {
            let text = "whether the values that records need are in the log was not looked at: \
                        other objects are damaged";
            return self.report.note(Part::Log, text, Vec::new());
        }
        for lost in values.lost(bounds.min_ts, bounds.max_ts) {
            let cost = Cost::of(lost.needs.iter().map(|need| need.table));
            let begin = lost.needs.iter().map(|need| need.start_ts).min();
            let commits = || lost.needs.iter().map(|need| need.commit_ts);
            let problem = format!(
                "the values of {} of its records are nowhere in the log: an object with its index \
                 was lost, of a flush at {} or later",
                lost.needs.len(),
                begin.unwrap_or_default()
            );
            let window = Window {
                from_ts: commits().min().unwrap_or_default(),
                to_ts: commits().max().unwrap_or_default(),
            };
            self.found(&lost.object, None, &problem, (cost, Some(window)));
        }
    }
}

/// What the loss of a piece of a log costs: schemas concern every table.
fn cost(identities: impl IntoIterator<Item = FileIdentity>) -> Cost {
    let mut ids = std::collections::BTreeSet::new();
    for identity in identities {
        if identity.is_schema {
            return Cost::All;
        }
        ids.insert(identity.table);
    }
    Cost::Tables(ids)
}

fn window(min_ts: TimeStamp, max_ts: TimeStamp) -> Option<Window> {
    Some(Window {
        from_ts: min_ts,
        to_ts: max_ts,
    })
}

/// What the loss of an object costs, as far as its files still count.
fn cost_of_group(group: &LogGroup) -> (Cost, Option<Window>) {
    let least = group.files.iter().map(|file| file.min_ts).min();
    let greatest = group.files.iter().map(|file| file.max_ts).max();
    (
        cost(group.files.iter().map(|file| file.identity)),
        window(
            least.unwrap_or_default().min(group.min_ts),
            greatest.unwrap_or_default().max(group.max_ts),
        ),
    )
}

/// All that a log holds.
fn whole(bounds: Option<&LogBounds>) -> (Cost, Option<Window>) {
    let window = bounds.map(|bounds| Window {
        from_ts: bounds.min_ts.next(),
        to_ts: bounds.max_ts,
    });
    (Cost::All, window)
}

/// Damage as text; everything else ends the look.
fn damage(error: impl Into<Trouble>) -> Result<String, VerifyError> {
    match error.into() {
        Trouble::Damage(problem) => Ok(problem),
        Trouble::End(error) => Err(error),
    }
}
