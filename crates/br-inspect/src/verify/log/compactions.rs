//! SSTs that stand for files of the log, and those that restores brought in.

use br_format::backupmeta::DataFile;
use br_format::log::compaction::{self, Subcompaction};
use br_format::log::file::FileIdentity;
use br_format::log::ingested::IngestedSsts;
use br_format::log::metadata::META_SIZE_BYTES_MAX;
use br_format::log::migration::Compaction;
use br_format::log::names;
use br_log::read::LogReadError;
use br_storage::read_again;
use br_tidb::table_key::table_id;
use br_types::TableId;
use futures::{StreamExt, TryStreamExt, stream};

use super::super::CONTENTS_IN_FLIGHT_MAX;
use super::super::error::{Trouble, VerifyError};
use super::super::log_contents;
use super::super::long_values::ValuesOfFile;
use super::super::report::Cost;
use super::{Examined, window};

/// An SST whose contents are to be looked at.
struct Job {
    named_by: String,
    identity: FileIdentity,
    file: DataFile,
    cost: (Cost, Option<super::Window>),
}

impl Examined<'_> {
    pub(super) async fn compaction(&mut self, compaction: &Compaction) -> Result<(), VerifyError> {
        let folder = format!("{}/", compaction.artifacts.trim_end_matches('/'));
        let listed = self.log.storage().list(&folder);
        let mut indices: Vec<_> = listed.try_collect().await?;
        indices.retain(|entry| entry.name.ends_with(names::COMPACTION_META_SUFFIX));
        indices.sort_by(|a, b| a.name.cmp(&b.name));
        let lost = (
            Cost::All,
            window(compaction.input_min_ts, compaction.input_max_ts),
        );
        let bytes: u64 = indices
            .iter()
            .map(|entry| entry.size_bytes)
            .fold(0, u64::saturating_add);
        if compaction.metas_size_bytes != 0 && bytes != compaction.metas_size_bytes {
            let problem = format!(
                "the indices of compaction {:?} have {bytes} bytes, and {} were written: one is \
                 missing or cut off",
                compaction.name, compaction.metas_size_bytes
            );
            self.found(&compaction.artifacts, None, &problem, lost.clone());
        }
        for index in indices {
            self.listing.name(&index.name);
            self.looked.objects += 1;
            let storage = self.log.storage();
            let items = read_again(async || {
                let bytes = storage
                    .read_at_most(&index.name, META_SIZE_BYTES_MAX)
                    .await?;
                Ok::<_, LogReadError>(compaction::decode(&index.name, &bytes)?)
            });
            match items.await.map_err(Trouble::from) {
                Ok(items) => self.outputs(&index.name, items).await?,
                Err(trouble) => {
                    let problem = super::damage(trouble)?;
                    self.found(&index.name, None, &problem, lost.clone());
                }
            }
        }
        Ok(())
    }

    async fn outputs(
        &mut self,
        named_by: &str,
        items: Vec<Subcompaction>,
    ) -> Result<(), VerifyError> {
        let mut jobs = Vec::new();
        for item in items {
            let identity = FileIdentity {
                is_schema: false,
                table: item.table,
                region: item.region,
                cf: item.cf,
                kind: item.kind,
            };
            for file in item.outputs {
                let lost = (
                    Cost::of([item.table]),
                    window(item.input_min_ts, item.input_max_ts),
                );
                jobs.extend(self.sst(named_by, identity, file, lost));
            }
        }
        self.sst_contents(jobs).await
    }

    /// Notes an SST; gives what is to be looked at of its contents.
    fn sst(
        &mut self,
        named_by: &str,
        identity: FileIdentity,
        file: DataFile,
        cost: (Cost, Option<super::Window>),
    ) -> Option<Job> {
        self.looked.objects += 1;
        let looked = &mut self.looked;
        looked.object_bytes = looked.object_bytes.saturating_add(file.size_bytes);
        looked.records = looked.records.saturating_add(file.stats.total_kvs);
        looked.record_bytes = looked.record_bytes.saturating_add(file.stats.total_bytes);
        let size_bytes = (file.size_bytes != 0).then_some(file.size_bytes);
        if let Some(problem) = self.listing.problem(&file.name, size_bytes) {
            self.found(&file.name, Some(named_by), &problem, cost);
            return None;
        }
        if !self.reads_contents() {
            return None;
        }
        if !self.look.options.sample.takes(&file.name) {
            self.looked.contents.skipped += 1;
            let contents = &mut self.looked.contents;
            contents.skipped_bytes = contents.skipped_bytes.saturating_add(file.size_bytes);
            return None;
        }
        Some(Job {
            named_by: named_by.to_owned(),
            identity,
            file,
            cost,
        })
    }

    async fn sst_contents(&mut self, jobs: Vec<Job>) -> Result<(), VerifyError> {
        let look = self.look;
        let log = self.log.clone();
        let mut checked = stream::iter(jobs)
            .map(|job| {
                let log = log.clone();
                async move {
                    let _room = look.room(job.file.size_bytes).await;
                    let stored = match log.read_sst(&job.file).await {
                        Ok(stored) => stored,
                        Err(error) => {
                            let problem = super::damage(error)?;
                            return Ok::<_, VerifyError>((
                                job,
                                Some(problem),
                                ValuesOfFile::default(),
                            ));
                        }
                    };
                    let checked = look.rt.blocking(move || {
                        let mut values = ValuesOfFile::default();
                        let problem =
                            log_contents::check_sst(&job.file, stored, &job.identity, &mut values);
                        (job, problem, values)
                    });
                    Ok(checked.await)
                }
            })
            .buffered(CONTENTS_IN_FLIGHT_MAX);
        let mut done = Vec::new();
        while let Some(one) = checked.try_next().await? {
            look.check_cancel()?;
            self.phase.advance(1, one.0.file.size_bytes);
            done.push(one);
        }
        for (job, problem, values) in done {
            self.looked.contents.read += 1;
            let contents = &mut self.looked.contents;
            contents.read_bytes = contents.read_bytes.saturating_add(job.file.size_bytes);
            match problem {
                Some(problem) => {
                    let named_by = Some(job.named_by.as_str());
                    self.found(&job.file.name, named_by, &problem, job.cost);
                }
                None => self.values.add(&job.file.name, values),
            }
        }
        Ok(())
    }

    /// SSTs of restores that were done while the log was written: there with their sizes and sums.
    pub(super) async fn ingested(&mut self, paths: &[String]) -> Result<(), VerifyError> {
        for path in paths {
            self.looked.objects += 1;
            self.listing.name(path);
            let ssts = read_again(async || {
                let bytes = self.log.storage().read(path).await?;
                Ok::<_, LogReadError>(IngestedSsts::decode(path, &bytes)?)
            });
            let ssts = match ssts.await.map_err(Trouble::from) {
                Ok(ssts) => ssts,
                Err(trouble) => {
                    let problem = super::damage(trouble)?;
                    let lost = super::whole(self.looked.bounds.as_ref());
                    self.found(path, None, &problem, lost);
                    continue;
                }
            };
            for file in ssts.files {
                let id = table_id(file.range.start.as_bytes()).unwrap_or(TableId(0));
                let table = ssts.tables.iter().find(|(old, _)| *old == id);
                let table = table.map_or(id, |(_, new)| *new);
                let lost = (Cost::of([table]), window(ssts.as_if_ts, ssts.as_if_ts));
                let size_bytes = (file.size_bytes != 0).then_some(file.size_bytes);
                let mut problem = self.listing.problem(&file.name, size_bytes);
                self.looked.objects += 1;
                if problem.is_none() && self.reads_contents() {
                    let _room = self.look.room(file.size_bytes).await;
                    problem = match self.log.read_sst(&file).await {
                        Ok(_) => None,
                        Err(error) => Some(super::damage(error)?),
                    };
                }
                if let Some(problem) = problem {
                    self.found(&file.name, Some(path), &problem, lost);
                }
            }
        }
        Ok(())
    }
}
