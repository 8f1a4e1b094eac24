//! Flushes: their metadata, and the objects that it names.

use std::sync::Arc;

use br_format::log::metadata::{LogGroup, LogMeta, META_SIZE_BYTES_MAX};
use br_format::log::names::{MetaName, Stats};
use br_log::read::{LogReadError, META_READS_DEFAULT, Removed};
use br_storage::{READS_OF_DAMAGED, read_again};
use br_types::{Cf, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};

use super::super::CONTENTS_IN_FLIGHT_MAX;
use super::super::error::{MISSING, Trouble, VerifyError};
use super::super::log_contents::{self, CheckedFile};
use super::super::report::Cost;
use super::{Examined, cost, cost_of_group, window};

/// Objects that wait for a look at their contents; so many keep all looks busy.
const WAITING_MAX: usize = 64;

/// An object whose contents are to be looked at, and the metadata that names it.
struct Job {
    named_by: String,
    group: LogGroup,
}

impl Examined<'_> {
    pub(super) async fn flushes(
        &mut self,
        names: &[String],
        removed: &Removed,
    ) -> Result<(), VerifyError> {
        let log = self.log.clone();
        let mut metas = stream::iter(names.to_vec())
            .map(|name| {
                let log = log.clone();
                async move {
                    let meta = read_again(async || {
                        let storage = log.storage();
                        let bytes = storage.read_at_most(&name, META_SIZE_BYTES_MAX).await?;
                        Ok::<_, LogReadError>(LogMeta::decode(&name, &bytes)?)
                    });
                    let meta = meta.await.map_err(Trouble::from);
                    let meta = match meta {
                        Ok(mut meta) => match log.open_keys(&mut meta).await {
                            Ok(()) => Ok(meta),
                            Err(error) => Err(error.into()),
                        },
                        Err(trouble) => Err(trouble),
                    };
                    (name, meta)
                }
            })
            .buffered(META_READS_DEFAULT);
        let mut jobs = Vec::new();
        while let Some((name, meta)) = metas.next().await {
            self.look.check_cancel()?;
            self.listing.name(&name);
            self.looked.metas += 1;
            self.looked.objects += 1;
            match meta {
                Ok(meta) => {
                    self.chain.add(&name, meta.seal);
                    self.flush(&name, meta, removed, &mut jobs).await?;
                }
                Err(trouble) => self.broken_meta(&name, trouble)?,
            }
            if jobs.len() >= WAITING_MAX {
                self.contents(std::mem::take(&mut jobs)).await?;
            }
        }
        self.contents(jobs).await
    }

    /// Only its name is left of it.
    fn broken_meta(&mut self, name: &str, trouble: Trouble) -> Result<(), VerifyError> {
        let problem = match trouble {
            Trouble::Damage(problem) => problem,
            Trouble::End(error) => return Err(error),
        };
        let parsed = MetaName::parse(name);
        let stats = parsed.as_ref().and_then(MetaName::sound_stats);
        let cost = match parsed.is_some_and(|name| name.is_empty()) {
            true => Cost::Nothing,
            false => Cost::All,
        };
        let lost = stats.map_or(super::whole(self.looked.bounds.as_ref()).1, |stats| {
            window(stats.min_ts, stats.max_ts)
        });
        self.found(name, None, &problem, (cost, lost));
        Ok(())
    }

    async fn flush(
        &mut self,
        name: &str,
        meta: LogMeta,
        removed: &Removed,
        jobs: &mut Vec<Job>,
    ) -> Result<(), VerifyError> {
        if let Some(problem) = contradiction(name, &meta) {
            let files = meta.groups.iter().flat_map(|group| &group.files);
            let cost = match meta.groups.is_empty() {
                true => Cost::Nothing,
                false => cost(files.map(|file| file.identity)),
            };
            self.found(
                name,
                None,
                &problem,
                (cost, window(meta.min_ts, meta.max_ts)),
            );
        }
        if !meta.groups.is_empty() {
            let files = meta.groups.iter().flat_map(|group| &group.files);
            let least = files.map(|file| file.min_begin_ts.min(file.min_ts)).min();
            self.report.log_ranges.push(Stats {
                min_begin_ts: least.unwrap_or_default(),
                min_ts: meta.min_ts,
                max_ts: meta.max_ts,
            });
        }
        for mut group in meta.groups {
            let path = group.path.clone();
            group
                .files
                .retain(|file| !removed.is_file_removed(name, &path, file));
            if group.files.is_empty() {
                self.listing.name(&path);
                continue;
            }
            self.looked.objects += 1;
            self.looked.object_bytes = self.looked.object_bytes.saturating_add(group.length);
            for file in &group.files {
                self.looked.records = self.looked.records.saturating_add(file.entries);
                self.looked.record_bytes = self.looked.record_bytes.saturating_add(file.length);
            }
            let length = (group.length > 0).then_some(group.length);
            if let Some(problem) = self.listing.problem(&path, length) {
                self.found(&path, Some(name), &problem, cost_of_group(&group));
                continue;
            }
            if group.files.iter().any(|file| file.identity.is_schema) {
                self.read_names(&group).await;
            }
            if !self.reads_contents() {
                continue;
            }
            if self.look.options.sample.takes(&path) {
                jobs.push(Job {
                    named_by: name.to_owned(),
                    group,
                });
            } else {
                self.looked.contents.skipped += 1;
                let contents = &mut self.looked.contents;
                contents.skipped_bytes = contents.skipped_bytes.saturating_add(group.length);
            }
        }
        Ok(())
    }

    /// Names of tables. What cannot be read shows when contents are looked at.
    async fn read_names(&mut self, group: &LogGroup) {
        let files = group.files.iter().filter(|file| file.identity.is_schema);
        for file in files {
            let crypter = &self.look.options.log_crypter;
            if let Ok(records) = self.log.read_file(&group.path, file, crypter).await {
                self.report.names.add_log(&records, file.identity.cf);
            }
        }
    }

    async fn contents(&mut self, jobs: Vec<Job>) -> Result<(), VerifyError> {
        let look = self.look;
        let log = self.log.clone();
        let mut checked = stream::iter(jobs)
            .map(|job| {
                let log = log.clone();
                async move {
                    let _room = look.room(job.group.length).await;
                    let group = Arc::new(job.group.clone());
                    let mut checked = Err(MISSING.to_owned());
                    for _ in 0..READS_OF_DAMAGED {
                        let stored = match log.storage().read(&group.path).await {
                            Ok(stored) => stored,
                            Err(error) => match Trouble::from(error) {
                                Trouble::Damage(problem) => {
                                    checked = Err(problem);
                                    continue;
                                }
                                Trouble::End(error) => return Err(error),
                            },
                        };
                        let (group, crypter) = (group.clone(), look.options.log_crypter.clone());
                        let check = move || log_contents::check_group(&group, &stored, &crypter);
                        let found = look.rt.blocking(check).await;
                        let found = found.map_err(|error| VerifyError::Log(error.into()))?;
                        let is_whole = found.iter().all(|file| file.problem.is_none());
                        checked = Ok(found);
                        if is_whole {
                            break;
                        }
                    }
                    Ok((job, checked))
                }
            })
            .buffered(CONTENTS_IN_FLIGHT_MAX);
        let mut done = Vec::new();
        while let Some(one) = checked.try_next().await? {
            look.check_cancel()?;
            self.phase.advance(1, one.0.group.length);
            done.push(one);
        }
        for (job, checked) in done {
            self.judge(&job, checked);
        }
        Ok(())
    }

    /// `checked`: its files, or what is wrong with all of it.
    fn judge(&mut self, job: &Job, checked: Result<Vec<CheckedFile>, String>) {
        let group = &job.group;
        let named_by = Some(job.named_by.as_str());
        let contents = &mut self.looked.contents;
        contents.read += 1;
        contents.read_bytes = contents.read_bytes.saturating_add(group.length);
        let checked = match checked {
            Ok(checked) => checked,
            Err(problem) => {
                return self.found(&group.path, named_by, &problem, cost_of_group(group));
            }
        };
        // One finding for an object, with what all its damaged files cost.
        let mut damaged = LogGroup {
            files: Vec::new(),
            min_ts: TimeStamp::MAX,
            max_ts: TimeStamp::ZERO,
            ..group.clone()
        };
        let mut problems = Vec::new();
        for file in checked {
            match (file.problem, group.files.get(file.place)) {
                (Some(problem), Some(info)) => {
                    problems.push(problem);
                    damaged.files.push(info.clone());
                }
                _ => self.values.add(&group.path, file.values),
            }
        }
        if let Some(first) = problems.first() {
            let first = super::about(first, &group.path);
            let problem = match problems.len() {
                1 => first,
                more => format!("{first} (and {} more of its files)", more - 1),
            };
            damaged.min_ts = least(&damaged);
            let cost = cost_of_group(&damaged);
            self.found(&group.path, named_by, &problem, cost);
        } else if let Some(problem) = range_contradiction(group) {
            self.found(&job.named_by, None, &problem, cost_of_group(group));
        }
    }
}

fn least(group: &LogGroup) -> TimeStamp {
    let files = group.files.iter();
    files.map(|file| file.min_ts).min().unwrap_or_default()
}

/// What metadata says of itself that cannot be: ranges choose what a restore reads.
fn contradiction(name: &str, meta: &LogMeta) -> Option<String> {
    let mut computed = meta.clone();
    computed.recompute_range();
    if (computed.min_ts, computed.max_ts) != (meta.min_ts, meta.max_ts) {
        return Some(format!(
            "it says that it has records of {} to {}, and its objects of {} to {}",
            meta.min_ts, meta.max_ts, computed.min_ts, computed.max_ts
        ));
    }
    if let Some(problem) = meta.groups.iter().find_map(range_contradiction) {
        return Some(problem);
    }
    let name = MetaName::parse(name)?;
    if name.store().is_some_and(|store| store != meta.store) {
        return Some(format!(
            "it is of store {}, and its name says another",
            meta.store
        ));
    }
    if meta.groups.is_empty() {
        return None;
    }
    if name.is_empty() {
        return Some("its name says that it has no files, and it has".to_owned());
    }
    let files = || meta.groups.iter().flat_map(|group| &group.files);
    if !name.may_have_schemas() && files().any(|file| file.identity.is_schema) {
        return Some("its name says that it has no schemas, and it has".to_owned());
    }
    let stats = name.sound_stats()?;
    let begins =
        files().filter(|file| file.identity.cf == Cf::Write && !file.min_begin_ts.is_zero());
    let begin = begins.map(|file| file.min_begin_ts).min();
    let holds = stats.min_ts <= meta.min_ts
        && stats.max_ts >= meta.max_ts
        && begin.is_none_or(|begin| stats.min_begin_ts <= begin);
    (!holds).then(|| {
        format!(
            "its name says that it has records of {} to {}, and it has some of {} to {}",
            stats.min_ts, stats.max_ts, meta.min_ts, meta.max_ts
        )
    })
}

/// The same of one of its objects.
fn range_contradiction(group: &LogGroup) -> Option<String> {
    let least = group.files.iter().map(|file| file.min_ts).min()?;
    let greatest = group.files.iter().map(|file| file.max_ts).max()?;
    // Files may have been taken out since.
    (group.min_ts > least || group.max_ts < greatest).then(|| {
        format!(
            "it says that {} has records of {} to {}, and its files of {least} to {greatest}",
            group.path, group.min_ts, group.max_ts
        )
    })
}
